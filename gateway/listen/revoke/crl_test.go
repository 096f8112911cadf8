package revoke

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/listen/secure"
)

func TestACertificateInItsAuthoritysListIsRefused(t *testing.T) {
	root := authority(t, nil, "Root")
	between := authority(t, root, "Between")
	ann, bob := issue(t, between, "ann", nil), issue(t, between, "bob", nil)
	outcast := authority(t, root, "Outcast")
	cyd := issue(t, outcast, "cyd", nil)
	for form, encode := range map[string]func(der ...[]byte) []byte{
		"PEM": inPEM,
		"DER": func(der ...[]byte) []byte { return der[0] },
	} {
		h := newHouse(t)
		c := h.checker(model.ClientAuth{CRL: []string{
			h.write("between.crl", encode(between.crl(t, nil, ann))), h.write("root.crl", encode(root.crl(t, nil, outcast))),
		}}, root)
		err := c.Verify(chain(ann, between, root))
		if !errors.Is(err, secure.ErrRevoked) || !strings.Contains(err.Error(), "between.crl") || !strings.Contains(err.Error(), "CN=Between") {
			t.Errorf("%s: %v", form, err)
		}
		if err := c.Verify(chain(bob, between, root)); err != nil {
			t.Errorf("%s: of one that is not in it: %v", form, err)
		}
		if err := c.Verify(chain(cyd, outcast, root)); !errors.Is(err, secure.ErrRevoked) {
			t.Errorf("%s: of an authority in between that was revoked: %v", form, err)
		}
		if !h.counted(`headgate_client_revocation_checks_total{listener="public",method="crl",outcome="revoked"} 2`) {
			t.Errorf("%s: not counted", form)
		}
	}
}

func TestOneGoodChainIsEnough(t *testing.T) {
	h := newHouse(t)
	root := authority(t, nil, "Root")
	bad := authority(t, root, "Cross")
	ann := issue(t, root, "ann", nil)
	c := h.checker(model.ClientAuth{CRL: []string{h.write("a.crl", root.crl(t, nil, bad))}}, root)
	if err := c.Verify(append(chain(ann, bad, root), chain(ann, root)...)); err != nil {
		t.Error(err)
	}
	if err := c.Verify(nil); err == nil {
		t.Error("no chain at all was believed")
	}
}

func TestWhatHappensWithoutACurrentListIsSaid(t *testing.T) {
	root, other := authority(t, nil, "Root"), authority(t, nil, "Other")
	ann, bob := issue(t, root, "ann", nil), issue(t, other, "bob", nil)
	for _, test := range []struct {
		name    string
		client  *holder
		issuer  *holder
		advance time.Duration
		hard    string
		outcome string
	}{
		{"current", ann, root, 0, "", "good"},
		{"outdated", ann, root, 24 * time.Hour, "outdated", "outdated"},
		{"of tomorrow", ann, root, -2 * time.Hour, "outdated", "outdated"},
		{"missing", bob, other, 0, "there is no revocation list of CN=Other", "missing"},
	} {
		h := newHouse(t)
		path := h.write("root.crl", root.crl(t, nil))
		soft := h.checker(model.ClientAuth{CRL: []string{path}}, root, other)
		hard := h.checker(model.ClientAuth{CRL: []string{path}, CRLFail: "hard"}, root, other)
		h.clock.Advance(test.advance)
		if err := soft.Verify(chain(test.client, test.issuer)); err != nil {
			t.Errorf("%s, soft: %v", test.name, err)
		}
		err := hard.Verify(chain(test.client, test.issuer))
		if (test.hard == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), test.hard) || errors.Is(err, secure.ErrRevoked)) {
			t.Errorf("%s, hard: %v, want %q", test.name, err, test.hard)
		}
		if !h.counted(`headgate_client_revocation_checks_total{listener="public",method="crl",outcome="` + test.outcome + `"} 2`) {
			t.Errorf("%s: not counted", test.name)
		}
	}
}

func TestAnOutdatedListStillKnowsWhoWasRevoked(t *testing.T) {
	h := newHouse(t)
	root := authority(t, nil, "Root")
	ann := issue(t, root, "ann", nil)
	c := h.checker(model.ClientAuth{CRL: []string{h.write("a.crl", root.crl(t, nil, ann))}}, root)
	h.clock.Advance(48 * time.Hour)
	if err := c.Verify(chain(ann, root)); !errors.Is(err, secure.ErrRevoked) {
		t.Error(err)
	}
}

func TestAListThatItsAuthorityDidNotSignIsNoList(t *testing.T) {
	h := newHouse(t)
	root, impostor := authority(t, nil, "Root"), authority(t, nil, "Root")
	ann := issue(t, root, "ann", nil)
	path := h.write("forged.crl", impostor.crl(t, nil, ann))
	if _, err := h.compile(model.ClientAuth{CRL: []string{path}}, root); err == nil || !strings.Contains(err.Error(), "did not sign") {
		t.Errorf("of an authority that is configured: %v", err)
	}
	// Of one in between, which only clients bring along, it shows in the handshake.
	between, forger := authority(t, root, "Between"), authority(t, root, "Between")
	bob := issue(t, between, "bob", nil)
	lists := []string{h.write("b.crl", forger.crl(t, nil, bob)), h.write("r.crl", root.crl(t, nil))}
	c := h.checker(model.ClientAuth{CRL: lists, CRLFail: "hard"}, root)
	if err := c.Verify(chain(bob, between, root)); err == nil || errors.Is(err, secure.ErrRevoked) {
		t.Errorf("a forged list is believed: %v", err)
	}
}

func TestListsOfSomeCertificatesSpeakForThoseOnly(t *testing.T) {
	const point = "http://crl.test/1"
	id := asn1.ObjectIdentifier{2, 5, 29, 28}
	root := authority(t, nil, "Root")
	between := authority(t, root, "Between")
	ann := issue(t, root, "ann", nil)
	here := issue(t, root, "here", func(c *x509.Certificate) { c.CRLDistributionPoints = []string{point} })
	uri := distributionPoint{Names: []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(point)}}}
	for _, test := range []struct {
		name    string
		scope   distribution
		cert    *holder
		covered bool
	}{
		{"users only", distribution{Users: true}, ann, true},
		{"users only", distribution{Users: true}, between, false},
		{"authorities only", distribution{Issuers: true}, ann, false},
		{"authorities only", distribution{Issuers: true}, between, true},
		{"one point", distribution{Point: uri}, here, true},
		{"one point", distribution{Point: uri}, ann, false},
	} {
		l, err := parseDER(root.crl(t, func(r *x509.RevocationList) {
			r.ExtraExtensions = append(r.ExtraExtensions, extension(t, id, test.scope))
		}))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := l.covers(test.cert.Certificate); got != test.covered {
			t.Errorf("%s covers %s: %v, want %v", test.name, test.cert.Subject, got, test.covered)
		}
	}
}

func TestFilesThatAreNoWholeListsAreRefused(t *testing.T) {
	root := authority(t, nil, "Root")
	with := func(id asn1.ObjectIdentifier, value any) []byte {
		return root.crl(t, func(r *x509.RevocationList) { r.ExtraExtensions = append(r.ExtraExtensions, extension(t, id, value)) })
	}
	for want, content := range map[string][]byte{
		"it is no revocation list":     []byte("hello"),
		"no whole PEM block":           []byte("-----BEGIN X509 CRL-----\nAAAA\n"),
		`a PEM block is "CERTIFICATE"`: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"a delta list":                 with(asn1.ObjectIdentifier{2, 5, 29, 27}, big.NewInt(1)),
		"an indirect list":             with(asn1.ObjectIdentifier{2, 5, 29, 28}, distribution{Indirect: true}),
		"cannot be read":               with(asn1.ObjectIdentifier{2, 5, 29, 28}, 7),
		"critical extension 1.2.3.4":   with(asn1.ObjectIdentifier{1, 2, 3, 4}, 7),
	} {
		h := newHouse(t)
		_, err := h.compile(model.ClientAuth{CRL: []string{h.write("a.crl", content)}}, root)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "a.crl") {
			t.Errorf("%v, want %q", err, want)
		}
		if len(h.keeper.files) != 0 {
			t.Errorf("%s: a file of a refused document is kept", want)
		}
	}
	h := newHouse(t)
	if _, err := h.compile(model.ClientAuth{CRL: []string{h.dir + "/none.crl"}}, root); err == nil ||
		!strings.Contains(err.Error(), "none.crl") {
		t.Error(err)
	}
}

func TestFilesAreWatchedAndABadVersionLeavesTheOneBefore(t *testing.T) {
	h := newHouse(t)
	root := authority(t, nil, "Root")
	ann, bob := issue(t, root, "ann", nil), issue(t, root, "bob", nil)
	path := h.write("a.crl", root.crl(t, nil, ann))
	c := h.checker(model.ClientAuth{CRL: []string{path}}, root)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.keeper.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	revoked := func(who *holder) func() bool {
		return func() bool { return errors.Is(c.Verify(chain(who, root)), secure.ErrRevoked) }
	}
	trouble := func() string {
		if lists := h.keeper.Status().Lists; len(lists) == 1 {
			return lists[0].Error
		}
		return "not one list"
	}
	h.write("a.crl", []byte("half a file"))
	await(t, "the bad version", func() bool { return trouble() != "" })
	if !revoked(ann)() || revoked(bob)() || !strings.Contains(h.log.String(), "the version before it stays") {
		t.Errorf("the version before did not stay: %s", h.log)
	}
	h.write("next.crl", root.crl(t, nil, bob))
	if err := os.Rename(h.dir+"/next.crl", path); err != nil {
		t.Fatal(err)
	}
	await(t, "the new version", revoked(bob))
	if revoked(ann)() || trouble() != "" {
		t.Errorf("ann is revoked: %v; trouble %q", revoked(ann)(), trouble())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	await(t, "the missing file", func() bool { return trouble() != "" })
	h.write("a.crl", root.crl(t, nil, bob))
	await(t, "the file's return", func() bool { return trouble() == "" })
	if !revoked(bob)() {
		t.Error("bob is believed again")
	}
	if !h.counted(`headgate_crl_remaining_seconds{file="` + path + `",issuer="CN=Root"} 86400`) {
		t.Error("the time that is left is not told")
	}
}

func TestAFileLivesAsLongAsSomebodyUsesIt(t *testing.T) {
	h := newHouse(t)
	root := authority(t, nil, "Root")
	auth := model.ClientAuth{CRL: []string{h.write("a.crl", root.crl(t, nil))}}
	one, err := h.compile(auth, root)
	if err != nil {
		t.Fatal(err)
	}
	two, err := h.compile(auth, root)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []*Checker{one, one, two} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if want := []int{1, 1, 0}[i]; len(h.keeper.files) != want {
			t.Errorf("after %d: %d files, want %d", i, len(h.keeper.files), want)
		}
	}
	if c, err := h.compile(model.ClientAuth{}, root); c != nil || err != nil {
		t.Errorf("a checker of nothing: %v %v", c, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"))
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x01})
	f.Fuzz(func(t *testing.T, content []byte) {
		lists, err := parse(content)
		if (err == nil) == (len(lists) == 0) {
			t.Errorf("%d lists and %v", len(lists), err)
		}
		_, _ = parseScope(content) // any bytes are an answer or an error
	})
}
