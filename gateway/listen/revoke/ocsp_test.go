package revoke

import (
	"crypto/x509"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"headgate/config/model"
	"headgate/gateway/listen/secure"
)

// setup returns a house, an authority's responder, and checkers that take its silence softly and hard.
func setup(t *testing.T) (h *house, r *responderServer, soft, hard *Checker) {
	h = newHouse(t)
	r = newResponder(t, authority(t, nil, "Root"), h.clock)
	soft = h.checker(model.ClientAuth{OCSP: "soft"}, r.issuer)
	hard = h.checker(model.ClientAuth{OCSP: "hard"}, r.issuer)
	return h, r, soft, hard
}

func TestTheResponderHasTheLastWord(t *testing.T) {
	_, r, soft, hard := setup(t)
	ann, bob, cyd := r.client("ann"), r.client("bob"), r.client("cyd")
	r.status[bob.SerialNumber.String()], r.status[cyd.SerialNumber.String()] = ocsp.Revoked, ocsp.Unknown
	for _, c := range []*Checker{soft, hard} {
		if err := c.Verify(chain(ann, r.issuer)); err != nil {
			t.Error(err)
		}
		if err := c.Verify(chain(bob, r.issuer)); !errors.Is(err, secure.ErrRevoked) || !strings.Contains(err.Error(), r.url) {
			t.Error(err)
		}
	}
	if err := soft.Verify(chain(cyd, r.issuer)); err != nil {
		t.Errorf("unknown, soft: %v", err)
	}
	if err := hard.Verify(chain(cyd, r.issuer)); err == nil || errors.Is(err, secure.ErrRevoked) {
		t.Errorf("unknown, hard: %v", err)
	}
}

func TestACertificateWithoutAResponder(t *testing.T) {
	h, r, soft, hard := setup(t)
	ann := issue(t, r.issuer, "ann", func(c *x509.Certificate) { c.OCSPServer = []string{"ldap://nowhere", "http://"} })
	if err := soft.Verify(chain(ann, r.issuer)); err != nil {
		t.Error(err)
	}
	if err := hard.Verify(chain(ann, r.issuer)); err == nil || !strings.Contains(err.Error(), "names no OCSP responder") {
		t.Error(err)
	}
	if !h.counted(`headgate_client_revocation_checks_total{listener="public",method="ocsp",outcome="missing"} 2`) {
		t.Error("not counted")
	}
}

func TestAResponderThatDoesNotAnswerIsPassedSoftlyAndRefusedHard(t *testing.T) {
	other := authority(t, nil, "Other")
	for name, test := range map[string]struct {
		change func(t *testing.T, r *responderServer)
		want   string
	}{
		"status": {func(_ *testing.T, r *responderServer) {
			r.broken = func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
		}, "status 503"},
		"a redirect": {func(_ *testing.T, r *responderServer) {
			r.broken = func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusFound) }
		}, "status 302"},
		"nonsense": {func(_ *testing.T, r *responderServer) {
			r.broken = func(w http.ResponseWriter) { _, _ = w.Write([]byte("hello")) }
		}, "asn1"},
		"a flood": {func(_ *testing.T, r *responderServer) {
			r.broken = func(w http.ResponseWriter) { _, _ = w.Write(make([]byte, maxAnswer+1)) }
		}, "more than"},
		"try later": {func(_ *testing.T, r *responderServer) {
			r.broken = func(w http.ResponseWriter) { _, _ = w.Write(ocsp.TryLaterErrorResponse) }
		}, "try later"},
		"signed by a stranger": {func(_ *testing.T, r *responderServer) { r.signer = other }, "bad OCSP signature"},
		"signed by another client of the authority": {func(t *testing.T, r *responderServer) { r.signer = r.client("thief") },
			"may not sign answers"},
		"signed by who could once": {func(t *testing.T, r *responderServer) {
			r.signer = issue(t, r.issuer, "old", func(c *x509.Certificate) {
				c.ExtKeyUsage, c.NotAfter = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, noon.Add(-time.Minute)
			})
		}, "not valid now"},
		"of yesterday": {func(_ *testing.T, r *responderServer) { r.next = -time.Minute }, "was good until"},
		"of tomorrow":  {func(_ *testing.T, r *responderServer) { r.this = time.Hour }, "yet to come"},
	} {
		t.Run(name, func(t *testing.T) {
			h, r, soft, hard := setup(t)
			ann := r.client("ann")
			r.set(func(r *responderServer) { test.change(t, r) })
			if err := soft.Verify(chain(ann, r.issuer)); err != nil {
				t.Errorf("soft: %v", err)
			}
			if err := hard.Verify(chain(ann, r.issuer)); err == nil || !strings.Contains(err.Error(), test.want) ||
				errors.Is(err, secure.ErrRevoked) {
				t.Errorf("hard: %v, want %q", err, test.want)
			}
			if r.questions() != 1 || !strings.Contains(h.log.String(), r.url) {
				t.Errorf("asked %d times; a failure is remembered for a while, and logged: %s", r.questions(), h.log)
			}
			r.set(func(r *responderServer) { r.broken, r.signer, r.next, r.this = nil, nil, time.Hour, 0 })
			h.clock.Advance(failurePause)
			if err := hard.Verify(chain(ann, r.issuer)); err != nil {
				t.Errorf("when it answers again: %v", err)
			}
		})
	}
}

func TestADelegatedResponderMaySign(t *testing.T) {
	_, r, _, hard := setup(t)
	r.set(func(r *responderServer) {
		r.signer = issue(t, r.issuer, "responder", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })
	})
	if err := hard.Verify(chain(r.client("ann"), r.issuer)); err != nil {
		t.Error(err)
	}
}

func TestAnAnswerIsBelievedUntilItEnds(t *testing.T) {
	for _, test := range []struct {
		name    string
		next    time.Duration
		refresh time.Duration
		until   time.Duration
	}{
		{"its next update", 10 * time.Minute, time.Hour, 10 * time.Minute},
		{"the longest that is allowed", 24 * time.Hour, time.Hour, time.Hour},
		{"one without an end", 0, 2 * time.Hour, 2 * time.Hour},
	} {
		h := newHouse(t)
		r := newResponder(t, authority(t, nil, "Root"), h.clock)
		c := h.checker(model.ClientAuth{OCSP: "hard", Refresh: test.refresh}, r.issuer)
		r.set(func(r *responderServer) { r.next = test.next })
		ann := r.client("ann")
		for i, want := range []int{1, 1, 2} {
			if err := c.Verify(chain(ann, r.issuer)); err != nil {
				t.Fatal(err)
			}
			if r.questions() != want {
				t.Errorf("%s, look %d: asked %d times, want %d", test.name, i, r.questions(), want)
			}
			h.clock.Advance([]time.Duration{test.until - time.Second, time.Second, 0}[i])
		}
	}
}

func TestAnswersInUseAreRenewedBeforeTheyEnd(t *testing.T) {
	h := newHouse(t)
	r := newResponder(t, authority(t, nil, "Root"), h.clock)
	c := h.checker(model.ClientAuth{OCSP: "hard", Refresh: time.Hour}, r.issuer)
	ann, bob := r.client("ann"), r.client("bob")
	for _, client := range []*holder{ann, bob, ann} { // ann comes back
		if err := c.Verify(chain(client, r.issuer)); err != nil {
			t.Fatal(err)
		}
	}
	h.clock.Advance(44 * time.Minute)
	h.keeper.answers.renew()
	if r.questions() != 2 {
		t.Errorf("asked %d times before it was time", r.questions())
	}
	h.clock.Advance(2 * time.Minute)
	h.keeper.answers.renew()
	await(t, "the renewal", func() bool { return r.questions() == 3 })
	h.keeper.answers.running.Wait()
	h.clock.Advance(20 * time.Minute)
	if err := c.Verify(chain(ann, r.issuer)); err != nil || r.questions() != 3 {
		t.Errorf("%v; a handshake had to ask (%d questions)", err, r.questions())
	}
	h.keeper.answers.renew()
	if n := h.keeper.answers.len(); n != 1 {
		t.Errorf("%d answers are kept; bob has not come back", n)
	}
}

func TestAnAnswerThatIsGoodOutlivesAFailedRenewal(t *testing.T) {
	h := newHouse(t)
	r := newResponder(t, authority(t, nil, "Root"), h.clock)
	c := h.checker(model.ClientAuth{OCSP: "hard", Refresh: time.Hour}, r.issuer)
	ann := r.client("ann")
	for range 2 {
		if err := c.Verify(chain(ann, r.issuer)); err != nil {
			t.Fatal(err)
		}
	}
	r.set(func(r *responderServer) {
		r.broken = func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }
	})
	h.clock.Advance(50 * time.Minute)
	h.keeper.answers.renew()
	h.keeper.answers.running.Wait()
	if err := c.Verify(chain(ann, r.issuer)); err != nil || r.questions() != 2 {
		t.Errorf("%v after %d questions", err, r.questions())
	}
	h.clock.Advance(11 * time.Minute)
	if err := c.Verify(chain(ann, r.issuer)); err == nil {
		t.Error("an answer is believed beyond its end")
	}
}

func TestHandshakesOfOneCertificateShareOneQuestion(t *testing.T) {
	h, r, soft, hard := setup(t)
	ann := r.client("ann")
	release := make(chan struct{})
	r.set(func(r *responderServer) { r.release = release })
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			c := soft
			if i%2 == 0 {
				c = hard
			}
			if err := c.Verify(chain(ann, r.issuer)); err != nil {
				t.Error(err)
			}
		})
	}
	await(t, "the question", func() bool { return r.questions() > 0 })
	// While somebody waits for the responder, others are not held up.
	bob := issue(t, r.issuer, "bob", nil)
	if err := soft.Verify(chain(bob, r.issuer)); err != nil {
		t.Error(err)
	}
	if n := h.keeper.answers.len(); n != 1 {
		t.Errorf("%d answers", n)
	}
	close(release)
	all.Wait()
	if r.questions() != 1 {
		t.Errorf("%d questions", r.questions())
	}
}

func TestAnswersAreBounded(t *testing.T) {
	h, r, _, _ := setup(t)
	a := h.keeper.answers
	cert := *r.client("ann").Certificate
	for i := range maxAnswers + 100 {
		c := cert
		c.Raw = big.NewInt(int64(i + 1)).Bytes()
		key := identity(&c, r.issuer.Certificate)
		a.mu.Lock()
		a.makeRoom()
		a.subjects[key] = &subject{cert: &c, answer: &answer{at: noon.Add(time.Duration(i))}, refresh: time.Hour}
		a.mu.Unlock()
	}
	if a.len() != maxAnswers {
		t.Errorf("%d answers are kept, want %d", a.len(), maxAnswers)
	}
}
