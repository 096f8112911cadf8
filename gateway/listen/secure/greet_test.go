package secure

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/internal/metric"
)

func TestAClientsCertificateIsVerified(t *testing.T) {
	w := newWorld(t)
	write(t, w.dir+"/ca.pem", certPEM(w.ca.Raw))
	stranger := authority(t, "stranger")
	mine := w.ca.leaf(t, ecKey(t), client, "me")
	certificate := w.issue("a", "a.example")
	auth := func(mode string) *Terms {
		return w.compile(settings(func(t *model.ListenerTLS) {
			t.ClientAuth = &model.ClientAuth{Mode: mode, CA: []string{"ca.pem"}}
		}, certificate))
	}
	request, require := auth("request"), auth("require")
	d := w.open(require)
	for _, test := range []struct {
		name             string
		shows            *tls.Certificate
		request, require bool
	}{
		{"none", nil, true, false},
		{"the right one", mine, true, true},
		{"one of another authority", stranger.leaf(t, ecKey(t), client, "me"), false, false},
		{"an expired one", w.ca.leaf(t, ecKey(t), func(c *x509.Certificate) { expired(time.Hour)(c); client(c) }, "me"), false, false},
		{"one for servers", w.ca.leaf(t, ecKey(t), nil, "me"), false, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for terms, want := range map[*Terms]bool{request: test.request, require: test.require} {
				d.terms.Store(terms)
				c := w.client("a.example")
				c.MaxVersion = version
				// It shows its certificate whatever authorities the listener names.
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if test.shows == nil {
						return &tls.Certificate{}, nil
					}
					return test.shows, nil
				}
				counted := w.counted(causeClient)
				answer, _, err := d.call(c)
				if (err == nil) != want {
					t.Errorf("%s, %s, %s: %v", test.name, tls.VersionName(version), terms.config.ClientAuth.Mode, err)
					continue
				}
				if !want {
					until(t, "it is counted: "+test.name, func() bool { return w.counted(causeClient) == counted+1 })
					if remote := new(net.OpError); !errors.As(err, &remote) || remote.Op != "remote error" {
						t.Errorf("%s, %s: the client does not learn why: %v", test.name, tls.VersionName(version), err)
					}
				} else if known := strings.HasSuffix(answer, "|CN=me"); known != (test.shows != nil) {
					t.Errorf("%s: %s", test.name, answer)
				}
			}
		}
	}
}

func TestWhatIsKnownOfAClientsCertificate(t *testing.T) {
	ca := authority(t, "root")
	spiffe := &url.URL{Scheme: "spiffe", Host: "example", Path: "/shop"}
	leaf := ca.leaf(t, ecKey(t), func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "shop, main", Organization: []string{"Example"}, Country: []string{"DE"}}
		c.URIs, c.EmailAddresses = []*url.URL{spiffe}, []string{"a@example"}
	}, "shop.example", "192.0.2.1").Leaf
	got := clientCertificate([]*x509.Certificate{leaf, ca.Certificate})
	if got.Subject != `CN=shop\, main,O=Example,C=DE` || got.Issuer != "CN=root" || got.DNS[0] != "shop.example" ||
		got.IPs[0] != "192.0.2.1" || got.URIs[0] != "spiffe://example/shop" || got.Emails[0] != "a@example" ||
		len(got.Thumbprint) != 43 || len(got.Chain) != 2 || !got.NotAfter.Equal(leaf.NotAfter) || got.Serial != leaf.SerialNumber.Text(16) {
		t.Errorf("%+v", got)
	}
}

func TestOthersHaveTheLastWordAboutAClientAtEveryHandshake(t *testing.T) {
	var verdict atomic.Pointer[error]
	var asked atomic.Int64
	w := newWorld(t, func(string, *model.ListenerTLS) (Extension, error) {
		return Extension{Verify: func(chains [][]*x509.Certificate) error {
			if asked.Add(1); chains[0][0].Subject.CommonName != "me" {
				t.Errorf("asked about %s", chains[0][0].Subject)
			}
			if e := verdict.Load(); e != nil {
				return *e
			}
			return nil
		}}, nil
	})
	write(t, w.dir+"/ca.pem", certPEM(w.ca.Raw))
	d := w.open(w.compile(settings(func(t *model.ListenerTLS) {
		t.ClientAuth = &model.ClientAuth{Mode: "request", CA: []string{"ca.pem"}}
	}, w.issue("a", "a.example"))))
	c := w.returning("a.example", tls.VersionTLS13)
	if d.resumes(c); asked.Load() != 0 {
		t.Error("asked about a client without a certificate")
	}
	c = w.returning("a.example", tls.VersionTLS13)
	c.Certificates = []tls.Certificate{*w.ca.leaf(t, ecKey(t), client, "me")}
	if d.resumes(c) || !d.resumes(c) || asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
	revoked := fmt.Errorf("by the list of today: %w", ErrRevoked)
	verdict.Store(&revoked)
	if _, _, err := d.call(c); err == nil {
		t.Error("a session of a revoked certificate was resumed")
	}
	until(t, "it is counted", func() bool { return w.counted(causeRevoked) == 1 })
	unknown := errors.New("its authority has no list")
	verdict.Store(&unknown)
	if _, _, err := d.call(c); err == nil {
		t.Error("refused for another reason")
	}
}

func TestHTTPOnATLSPortIsToldSo(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(nil, w.issue("a", "a.example"))))
	for i, request := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /" + strings.Repeat("x", 3000) + " HTTP/1.1\r\n\r\n" + strings.Repeat("body", 8000),
		"M-SEARCH * HTTP/1.1\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		c, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("%.20s: the client does not get to read it: %v", request, err)
		}
		_ = c.Close()
		head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
		var problem struct {
			Status int
			Code   string
			Title  string
		}
		if err := json.Unmarshal([]byte(body), &problem); err != nil || problem.Code != "plain_http" || problem.Status != 400 {
			t.Errorf("%.20s: %s, %v", request, answer, err)
		}
		if !strings.HasPrefix(head, "HTTP/1.1 400 Bad Request\r\n") || !strings.Contains(head, fmt.Sprintf("Content-Length: %d", len(body))) {
			t.Errorf("%s", head)
		}
		until(t, "it is counted", func() bool { return w.counted(causePlain) == uint64(i+1) })
	}
}

// trickle sends every byte by itself.
type trickle struct{ net.Conn }

func (c trickle) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestAHelloMayComeInPieces(t *testing.T) {
	w := newWorld(t)
	for _, limit := range []int{0, 1} {
		d := w.open(w.compile(settings(func(t *model.ListenerTLS) { t.Handshakes = limit }, w.issue("a", "a.example"))))
		for _, protocols := range [][]string{nil, slices.Repeat([]string{strings.Repeat("x", 200)}, 40)} { // of more than one buffer, too
			nc, err := net.Dial("tcp", d.address)
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.(*net.TCPConn).SetNoDelay(true)
			c := w.client("a.example")
			c.NextProtos = append(protocols, "http/1.1")
			conn := tls.Client(trickle{nc}, c)
			if answer, err := ask(conn); err != nil || !strings.Contains(answer, "|a.example|http/1.1|") {
				t.Errorf("%d protocols: %q, %v", len(protocols), answer, err)
			}
			_ = conn.Close()
		}
	}
}

// alertOf returns the alert's number that a client's bytes are answered with; -1: none.
func (d *door) alertOf(hello []byte) int {
	d.Helper()
	c, err := net.Dial("tcp", d.address)
	if err != nil {
		d.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(hello); err != nil {
		d.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		d.Fatal(err)
	}
	if len(answer) < 7 || answer[0] != 21 {
		return -1
	}
	return int(answer[6])
}

// oldHello is a ClientHello that offers nothing newer than the version.
func oldHello(version uint16, suites ...uint16) []byte {
	body := append([]byte{byte(version >> 8), byte(version)}, make([]byte, 33)...) // random, and an empty session id
	body = append(body, 0, byte(2*len(suites)))
	for _, s := range suites {
		body = append(body, byte(s>>8), byte(s))
	}
	body = append(body, 1, 0)                                      // compression: none
	body = append(body, 0, 8, 0, 10, 0, 4, 0, 2, 0, 23)            // supported_groups: P-256
	hello := append([]byte{1, 0, 0, byte(len(body))}, body...)     // handshake
	return append([]byte{22, 3, 1, 0, byte(len(hello))}, hello...) // record
}

func TestEveryFailureHasItsCauseAndItsAlert(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(func(t *model.ListenerTLS) { t.Timeout = 200 * time.Millisecond }, w.issue("a", "a.example"))))
	raw := func(b []byte) func() error {
		return func() error {
			if alert := d.alertOf(b); alert >= 0 {
				return fmt.Errorf("alert %d", alert)
			}
			return errors.New("no alert")
		}
	}
	leave := func(after string) func() error {
		return func() error {
			c, err := net.Dial("tcp", d.address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, after)
			return errors.Join(c.Close(), errors.New("gone"))
		}
	}
	calling := func(change func(*tls.Config)) func() error {
		return func() error {
			c := w.client("a.example")
			change(c)
			_, _, err := d.call(c)
			return err
		}
	}
	for _, test := range []struct {
		name  string
		fail  func() error
		cause cause
		says  string
	}{
		{"SSL 3.0", raw(oldHello(0x0300, 0xc02b)), causeVersion, "alert 70"},
		{"TLS 1.0", raw(oldHello(tls.VersionTLS10, 0xc02b)), causeVersion, "alert 70"}, // protocol_version
		{"TLS 1.1", raw(oldHello(tls.VersionTLS11, 0xc009)), causeVersion, "alert 70"},
		{"a suite without forward secrecy", raw(oldHello(tls.VersionTLS12, 0x009c, 0x002f)), causeCipher, "alert 40"}, // handshake_failure
		{"a suite without AEAD", raw(oldHello(tls.VersionTLS12, 0xc009, 0xc023)), causeCipher, "alert 40"},
		{"garbage", raw([]byte("\x16\x03\x01\x00\x05hello")), causeMalformed, "alert "},
		{"another protocol", raw([]byte("\x00\x01\x02\x03\x04\x05\x06")), causeMalformed, "no alert"},
		{"no protocol of ours", calling(func(c *tls.Config) { c.NextProtos = []string{"smtp"} }), causeProtocol, "no application protocol"},
		{"no key exchange of ours", calling(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} }), causeCipher,
			"handshake failure"},
		{"a client that does not believe us", calling(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }), causeRefused,
			"unknown authority"},
		{"a client that leaves at once", leave(""), causeClosed, ""},
		{"a client that leaves in the midst", leave("\x16\x03\x01\x00\xff"), causeClosed, ""},
		{"a silent client", raw(nil), causeTimeout, "no alert"},
		{"a client that stops", raw([]byte("\x16\x03\x01\x00\xff")), causeTimeout, "no alert"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := w.counted(test.cause)
			err := test.fail()
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want %s", err, test.says)
			}
			until(t, "it is counted as "+test.cause.String(), func() bool { return w.counted(test.cause) == before+1 })
		})
	}
}

func TestHandshakesAreCountedByVersionAndResumption(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(nil, w.issue("a", "a.example"))))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := w.returning("a.example", version)
		for range 3 {
			answer, _, err := d.call(c)
			if err != nil || !strings.HasPrefix(answer, tls.VersionName(version)+"|a.example|http/1.1|") {
				t.Fatalf("%q, %v", answer, err)
			}
		}
		for resumed, want := range map[string]uint64{"false": 1, "true": 2} {
			n := w.metrics.Counter("headgate_tls_handshakes_total", "", metric.Label{Name: "listener", Value: "main"},
				metric.Label{Name: "version", Value: tls.VersionName(version)}, metric.Label{Name: "resumed", Value: resumed}).Value()
			if n != want {
				t.Errorf("%s, resumed %s: %d", tls.VersionName(version), resumed, n)
			}
		}
	}
}

// slow is a source whose certificates are long in coming.
type slow struct {
	certificate atomic.Pointer[tls.Certificate]
	asked       chan struct{}
	free        chan struct{}
}

func (s *slow) Kind() string     { return "test" }
func (s *slow) Names() []string  { return []string{"slow.example"} }
func (s *slow) Status() []Status { return []Status{{Source: "test", Names: s.Names()}} }
func (s *slow) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName == "slow.example" {
		s.asked <- struct{}{}
		<-s.free
	}
	return s.certificate.Load(), nil
}

func TestHandshakesAboveTheLimitWaitAndAreDroppedAtTheTimeout(t *testing.T) {
	s := &slow{asked: make(chan struct{}, 10), free: make(chan struct{})}
	w := newWorld(t, func(string, *model.ListenerTLS) (Extension, error) { return Extension{Sources: []Source{s}}, nil })
	s.certificate.Store(w.ca.leaf(t, ecKey(t), nil, "slow.example"))
	terms := w.compile(settings(func(t *model.ListenerTLS) { t.Handshakes, t.Timeout = 1, time.Second }, w.issue("a", "a.example")))
	d := w.open(terms)
	done := make(chan error, 2)
	go func() { _, _, err := d.call(w.client("slow.example")); done <- err }()
	<-s.asked
	if _, _, err := d.call(w.client("a.example")); err == nil {
		t.Error("a second one was worked on")
	}
	until(t, "it is counted", func() bool { return w.counted(causeBusy) == 1 })
	go func() { _, _, err := d.call(w.client("a.example")); done <- err }()
	until(t, "another one waits", func() bool { return terms.gate.waiting.Load() == 1 })
	close(s.free)
	for range 2 { // the slow one may have been too slow, the one behind it had its turn
		if err := <-done; err != nil && w.counted(causeBusy)+w.counted(causeTimeout) < 2 {
			t.Error(err)
		}
	}
	if len(terms.gate.slots) != 0 || terms.gate.waiting.Load() != 0 {
		t.Error("a turn was not given back")
	}
}

func TestClientsThatFallSilentKeepNobodyOut(t *testing.T) {
	w := newWorld(t)
	terms := w.compile(settings(func(t *model.ListenerTLS) { t.Handshakes = 1 }, w.issue("a", "a.example")))
	d := w.open(terms)
	var hello [2048]byte
	tap, other := net.Pipe()
	go func() { _ = tls.Client(tap, w.client("a.example")).Handshake() }()
	n, err := other.Read(hello[:])
	if err != nil {
		t.Fatal(err)
	}
	_ = other.Close()
	for _, said := range [][]byte{nil, hello[:5], hello[:n]} { // the last one is owed the rest of its handshake
		c, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(said); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, _, err := d.call(w.client("a.example")); err != nil {
			t.Error(err)
		}
	}
}

func TestTooManyWaitersAreTurnedAwayAtOnce(t *testing.T) {
	var g gate
	g.limit(1)
	if !g.enter(time.Hour) {
		t.Fatal("the first one waits")
	}
	g.waiting.Store(maxWaiting)
	if g.enter(time.Hour) {
		t.Error("it got a turn")
	}
	g.waiting.Store(0)
	if g.enter(0) {
		t.Error("a turn without time")
	}
	g.leave()
	if !g.enter(0) {
		t.Error("a free turn was not taken")
	}
	var none gate
	for range 3 {
		if !none.enter(0) {
			t.Error("without a limit nobody waits")
		}
	}
	none.leave()
}

// prover is a source that an authority may call.
type prover struct{ slow }

func (p *prover) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName != "new.example" {
		return nil, nil
	}
	return p.certificate.Load(), nil
}

func TestAnAuthoritysChallengeIsAnsweredAndGoesNoFurther(t *testing.T) {
	p := &prover{}
	w := newWorld(t, func(string, *model.ListenerTLS) (Extension, error) { return Extension{Sources: []Source{p}}, nil })
	p.certificate.Store(w.ca.leaf(t, ecKey(t), nil, "new.example"))
	for _, strict := range []bool{false, true} {
		d := w.open(w.compile(settings(func(t *model.ListenerTLS) { t.StrictSNI = strict }, w.issue("a", "a.example"))))
		c := w.client("new.example")
		c.NextProtos = []string{ChallengeProtocol}
		_, state, err := d.call(c)
		if err == nil || state.NegotiatedProtocol != ChallengeProtocol || state.PeerCertificates[0].DNSNames[0] != "new.example" {
			t.Errorf("strict %v: %v, %q", strict, err, state.NegotiatedProtocol)
		}
		c.NextProtos = []string{"http/1.1", ChallengeProtocol}
		if _, state, err := d.call(c); !strict && (err == nil || state.NegotiatedProtocol != "") {
			t.Errorf("an ordinary client was shown the proof: %v", err) // it does not believe the certificate that it is shown
		}
		c.ServerName, c.NextProtos = "third.example", []string{ChallengeProtocol}
		if _, _, err := d.call(c); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("a name of which nothing is to be proven: %v", err)
		}
	}
}

func TestWhatIsSpokenIsAgreedOnByALPN(t *testing.T) {
	w := newWorld(t)
	certificate := w.issue("a", "a.example")
	for _, test := range []struct {
		spoken, offered []string
		tcp             bool
		want            string // "!": refused
	}{
		{nil, []string{"http/1.1", "h2"}, false, "h2"}, // ours comes first
		{nil, []string{"http/1.1"}, false, "http/1.1"},
		{nil, nil, false, ""},
		{[]string{"h1"}, []string{"h2", "http/1.1"}, false, "http/1.1"},
		{[]string{"h1"}, []string{"h2"}, false, "!"},
		{[]string{"h2"}, []string{"h2", "http/1.1"}, false, "h2"},
		{[]string{"h1", "h2", "h3"}, []string{"h3", "h2"}, false, "h2"}, // h3 is not spoken over TCP
		{nil, []string{ChallengeProtocol}, false, "!"},                  // nobody here has anything to prove
		{nil, []string{"imap"}, true, ""},                               // bytes of any kind
	} {
		l := settings(nil, certificate)
		l.Protocols = test.spoken
		if test.tcp {
			l.TCP = &model.TCP{}
		}
		c := w.client("a.example")
		c.NextProtos = test.offered
		_, state, err := w.open(w.compile(l)).call(c)
		if got := state.NegotiatedProtocol; (err != nil) != (test.want == "!") || err == nil && got != test.want {
			t.Errorf("%+v: %q, %v", test, got, err)
		}
	}
}

func TestSourcesServeTheirNamesBesideFiles(t *testing.T) {
	s := &slow{asked: make(chan struct{}, 10), free: make(chan struct{})}
	close(s.free)
	w := newWorld(t, func(string, *model.ListenerTLS) (Extension, error) { return Extension{Sources: []Source{s}}, nil })
	alone := w.open(w.compile(settings(nil)))
	for _, strange := range []string{"slow.example", "other.example", ""} {
		c := w.client(strange)
		c.InsecureSkipVerify = true
		if _, _, err := alone.call(c); err == nil {
			t.Errorf("%q: served before there is a certificate", strange)
		}
	}
	until(t, "it is counted", func() bool { return w.counted(causeNone) == 3 })
	s.certificate.Store(w.ca.leaf(t, ecKey(t), nil, "slow.example"))
	for _, d := range []*door{alone, w.open(w.compile(settings(nil, w.issue("a", "a.example"))))} {
		for asked, want := range map[string]string{"slow.example": "slow.example", "": "a.example", "other.example": "a.example"} {
			if d == alone {
				want = "slow.example"
			}
			c := w.client(asked)
			c.InsecureSkipVerify = true
			_, state, err := d.call(c)
			if err != nil || state.PeerCertificates[0].DNSNames[0] != want {
				t.Errorf("%q: %v, want %s", asked, err, want)
			}
		}
	}
}

func TestAnExtensionLivesWithItsTerms(t *testing.T) {
	var told []string
	say := func(s string) { told = append(told, s) }
	var refuse error
	w := newWorld(t, func(listener string, _ *model.ListenerTLS) (Extension, error) {
		return Extension{Live: func() { say("live") }, Close: func() error { say("close"); return nil }}, refuse
	})
	l := settings(nil, w.issue("a", "a.example"))
	terms, err := w.Compile("main", l, w.dir)
	if err != nil {
		t.Fatal(err)
	}
	terms.Live()
	if err := terms.Close(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(told, " "); got != "live close" {
		t.Errorf("%q", got)
	}
	told = nil
	_ = w.refused(settings(nil, model.Certificate{Cert: "nowhere", Key: "nowhere"}))
	if got := strings.Join(told, " "); got != "close" {
		t.Errorf("of a refused document: %q", got)
	}
	refuse = errors.New("acme: no")
	if got := w.refused(l); len(got) != 1 || !strings.Contains(got[0], "acme: no") {
		t.Errorf("%q", got)
	}
	if len(w.pairs)+len(w.terms) != 0 {
		t.Errorf("something is kept: %v %v", w.pairs, w.terms)
	}
}

func TestADescriptionTellsWhatTheServedCertificateCovers(t *testing.T) {
	w := newWorld(t)
	terms := w.compile(settings(nil, w.issue("a", "a.example", "b.example"), w.issue("w", "*.w.example")))
	for name, covered := range map[string]map[string]bool{
		"a.example":       {"a.example": true, "B.example:443": true, "x.w.example": false, "c.example": false},
		"x.w.example":     {"x.w.example": true, "y.w.example": true, "a.example": false},
		"unknown.example": {"a.example": true, "unknown.example": false},
	} {
		d := terms.Describe(tls.ConnectionState{Version: tls.VersionTLS13, ServerName: name, CipherSuite: tls.TLS_AES_128_GCM_SHA256})
		if d.Version != "TLS 1.3" || d.Cipher != "TLS_AES_128_GCM_SHA256" || d.ServerName != name {
			t.Errorf("%+v", d)
		}
		for host, want := range covered {
			if d.Serves(host) != want {
				t.Errorf("%s by a connection for %s: %v", host, name, !want)
			}
		}
	}
}

func TestOverQUICTheSameCertificatesAreServed(t *testing.T) {
	w := newWorld(t)
	terms := w.compile(settings(func(t *model.ListenerTLS) { t.StrictSNI = true }, w.issue("a", "a.example")))
	ask := func(name string) *tls.Config {
		c, err := terms.QUIC().GetConfigForClient(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := ask("a.example"); c.MinVersion != tls.VersionTLS13 || c.NextProtos[0] != "h3" ||
		c.GetCertificate == nil || c.SessionTicketsDisabled {
		t.Errorf("%+v", c)
	}
	if c := ask("b.example"); c.GetCertificate != nil || !c.SessionTicketsDisabled {
		t.Error("strict_sni does not hold over QUIC")
	}
}
