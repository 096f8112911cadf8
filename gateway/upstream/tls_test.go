package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/internal/metric"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t), file: filepath.Join(t.TempDir(), "ca.pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	write(t, a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue signs a certificate, changed by change.
func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "leaf"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"shop.internal"},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// save writes a certificate and its key into two files.
func save(t *testing.T, c tls.Certificate, cert, key string) {
	t.Helper()
	write(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func pin(c *x509.Certificate) string {
	hash := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256/" + base64.StdEncoding.EncodeToString(hash[:])
}

// serveTLS serves a handler over TLS, with HTTP/2 if h2, and returns its address.
func serveTLS(t *testing.T, config *tls.Config, h2 bool, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS, s.EnableHTTP2 = config, h2
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// overTLS makes the targets of a document ones over TLS that are believed as set says.
func overTLS(set model.UpstreamTLS) func(*model.Upstream) {
	return func(m *model.Upstream) {
		for i := range m.Targets {
			m.Targets[i].URL = strings.Replace(m.Targets[i].URL, "http://", "https://", 1)
		}
		m.TLS = &set
	}
}

func hello(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }

func TestATargetOverTLSIsAskedInTheVersionThatItAgreesOn(t *testing.T) {
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, nil)}}
	for _, test := range []struct {
		name, protocol string
		h2             bool
		want           string
	}{
		{"auto, and it offers HTTP/2", "auto", true, "h2"},
		{"auto, and it does not", "auto", false, "h1"},
		{"h1, although it offers HTTP/2", "h1", true, "h1"},
		{"h2", "h2", true, "h2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var seen atomic.Pointer[http.Request]
			address := serveTLS(t, config.Clone(), test.h2, func(w http.ResponseWriter, r *http.Request) { seen.Store(r) })
			u := build(t, env(io.Discard), config2(overTLS(model.UpstreamTLS{CA: []string{ca.file}}), test.protocol, address))
			for range 3 {
				if status, code := send(t, u, ask("GET")); status != 200 {
					t.Fatal(code)
				}
			}
			s := u.Status().Targets[0]
			major := seen.Load().ProtoMajor
			if major != map[string]int{"h1": 1, "h2": 2}[test.want] || s.Protocol != test.want || s.TLS != "verified" {
				t.Errorf("HTTP/%d, %+v", major, s)
			}
			if n := u.env.Sweeper.Len(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
			if test.want == "h2" && (s.H2Conns != 1 || s.H2Streams != 0) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// config2 is config with a protocol.
func config2(change func(*model.Upstream), protocol string, addresses ...string) model.Upstream {
	m := config(change, addresses...)
	m.Protocol = protocol
	return m
}

// Why a handshake fails, as clients, operators and metrics are told.
func TestATargetThatIsNotBelieved(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := ca.issue(t, nil)
	expired := ca.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	elsewhere := ca.issue(t, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"elsewhere.internal"} })
	for _, test := range []struct {
		name        string
		server      *tls.Config // nil: plain HTTP
		set         model.UpstreamTLS
		code, cause string
	}{
		{"unknown authority", &tls.Config{Certificates: []tls.Certificate{good}}, model.UpstreamTLS{CA: []string{other.file}},
			"upstream_untrusted", "unknown_authority"},
		{"expired", &tls.Config{Certificates: []tls.Certificate{expired}}, model.UpstreamTLS{CA: []string{ca.file}},
			"upstream_untrusted", "certificate_expired"},
		{"another name", &tls.Config{Certificates: []tls.Certificate{elsewhere}}, model.UpstreamTLS{CA: []string{ca.file}},
			"upstream_untrusted", "wrong_name"},
		{"another name than server_name", &tls.Config{Certificates: []tls.Certificate{good}},
			model.UpstreamTLS{CA: []string{ca.file}, ServerName: "elsewhere.internal"}, "upstream_untrusted", "wrong_name"},
		{"not pinned", &tls.Config{Certificates: []tls.Certificate{good}},
			model.UpstreamTLS{CA: []string{ca.file}, Pins: []string{pin(other.cert)}}, "upstream_untrusted", "not_pinned"},
		{"not pinned, and nothing else is looked at", &tls.Config{Certificates: []tls.Certificate{good}},
			model.UpstreamTLS{Insecure: true, Pins: []string{pin(ca.cert)}}, "upstream_untrusted", "not_pinned"},
		{"no TLS at all", nil, model.UpstreamTLS{CA: []string{ca.file}}, "upstream_unreachable", "not_tls"},
		{"nothing in common", &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10},
			model.UpstreamTLS{CA: []string{ca.file}}, "upstream_unreachable", "refused_by_target"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var address string
			if test.server == nil {
				s := httptest.NewServer(http.HandlerFunc(hello))
				s.Config.ErrorLog = log.New(io.Discard, "", 0)
				defer s.Close()
				address = s.Listener.Addr().String()
			} else {
				address = serveTLS(t, test.server.Clone(), true, hello)
			}
			e := env(io.Discard)
			u := build(t, e, config(overTLS(test.set), address))
			x := ask("GET")
			_, err := u.Send(x)
			if err == nil || !strings.HasPrefix(err.Error(), test.code+":") || !strings.Contains(err.Error(), test.cause) || x.Usage.Attempts != 1 {
				t.Errorf("%v after %d attempts, want %s for %s", err, x.Usage.Attempts, test.code, test.cause)
			}
			if u.Status().Targets[0].Failures != 1 || e.Sweeper.Len() != 0 {
				t.Errorf("%+v, %d connections left", u.Status().Targets[0], e.Sweeper.Len())
			}
			if text := exposition(t, e.Metrics); !strings.Contains(text, `cause="`+test.cause+`"} 1`) {
				t.Errorf("not counted:\n%s", text)
			}
		})
	}
}

func exposition(t *testing.T, r *metric.Registry) string {
	t.Helper()
	var text strings.Builder
	w := metric.NewText(&text)
	r.Expose(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestWhoIsBelieved(t *testing.T) {
	ca := newAuthority(t)
	leaf := ca.issue(t, nil)
	var asked atomic.Pointer[string]
	server := &tls.Config{
		Certificates: []tls.Certificate{leaf},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			asked.Store(&h.ServerName)
			return nil, nil
		},
	}
	address := serveTLS(t, server, true, hello)
	for name, set := range map[string]model.UpstreamTLS{
		"an address in the certificate":       {CA: []string{ca.file}},
		"the name that the document gives":    {CA: []string{ca.file}, ServerName: "shop.internal"},
		"its own key is pinned":               {CA: []string{ca.file}, Pins: []string{pin(newAuthority(t).cert), pin(leaf.Leaf)}},
		"its authority's key is pinned":       {CA: []string{ca.file}, Pins: []string{pin(ca.cert)}},
		"anybody":                             {Insecure: true},
		"anybody with the key that is pinned": {Insecure: true, Pins: []string{pin(leaf.Leaf)}},
	} {
		u := build(t, env(io.Discard), config(overTLS(set), address))
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Errorf("%s: %s", name, code)
		}
		if got := *asked.Load(); got != set.ServerName { // there is none for an address (RFC 6066 section 3)
			t.Errorf("%s: asked for %q", name, got)
		}
	}
}

func TestSessionsAreResumed(t *testing.T) {
	ca := newAuthority(t)
	var resumed atomic.Int64
	address := serveTLS(t, serverTLS(t, ca), false, func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.DidResume {
			resumed.Add(1)
		}
		w.Header().Set("Connection", "close")
	})
	u := build(t, env(io.Discard), config(overTLS(model.UpstreamTLS{CA: []string{ca.file}, Pins: []string{pin(ca.cert)}}), address))
	for range 3 {
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Fatal(code)
		}
	}
	if resumed.Load() != 2 {
		t.Errorf("%d of 3 connections were resumed, want all but the first", resumed.Load())
	}
}

func TestNotVerifyingIsToldAtEveryStart(t *testing.T) {
	log := new(buffer)
	u := build(t, env(log), config(overTLS(model.UpstreamTLS{Insecure: true}), "127.0.0.1:1"))
	for n := 1; n <= 3; n++ {
		u.Start()
		if got := strings.Count(log.String(), "insecure_skip_verify"); got != n {
			t.Errorf("told %d times after %d documents", got, n)
		}
	}
	if u.Status().Targets[0].TLS != "insecure" {
		t.Errorf("%+v", u.Status().Targets[0])
	}
	if text := exposition(t, u.env.Metrics); !strings.Contains(text, `headgate_target_insecure{upstream="shop",target="127.0.0.1:1"} 1`) {
		t.Error(text)
	}
}

// Files that change are read again; connections under the old identity are used to their end and never for a new request.
func TestANewCertificateMeansNewConnections(t *testing.T) {
	ca := newAuthority(t)
	for _, h2 := range []bool{false, true} {
		pool := x509.NewCertPool()
		pool.AddCert(ca.cert)
		config1 := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, nil)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
		address := serveTLS(t, config1, h2, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Client", r.TLS.PeerCertificates[0].Subject.CommonName)
			if r.TLS.DidResume {
				w.Header().Set("X-Resumed", "yes")
			}
		})
		folder := t.TempDir()
		cert, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
		named := func(name string) {
			save(t, ca.issue(t, func(c *x509.Certificate) {
				c.Subject.CommonName, c.ExtKeyUsage = name, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			}), cert, key)
		}
		named("first")
		log := new(buffer)
		e := env(log)
		u := build(t, e, config(overTLS(model.UpstreamTLS{
			CA: []string{ca.file}, Certificate: &model.Certificate{Cert: cert, Key: key},
		}), address))
		who := func() string {
			x := ask("GET")
			if status, code := send(t, u, x); status != 200 {
				t.Fatal(code)
			}
			if x.Reply.Header.Has("X-Resumed") {
				t.Error("a session was resumed under another identity")
			}
			return x.Reply.Header.Get("X-Client")
		}
		if got := who(); got != "first" || !strings.Contains(u.Status().Certificate.Subject, "first") || u.Status().Certificate.Days != 0 {
			t.Errorf("%q, %+v", got, u.Status().Certificate)
		}
		named("second, renewed")
		u.Tidy()
		if got := who(); got != "second, renewed" {
			t.Errorf("h2 %v: %q", h2, got)
		}
		until(t, "the old connection is closed", func() bool { return e.Sweeper.Len() == 1 })
		write(t, cert, []byte("no certificate"))
		u.Tidy()
		if got := who(); got != "second, renewed" || e.Sweeper.Len() != 1 {
			t.Errorf("after a bad file: %q", got)
		}
		if p := u.Status().Problem; !strings.Contains(p, cert) || !strings.Contains(log.String(), "what was read before stays") {
			t.Errorf("told %q", p)
		}
		named("third, of another length")
		u.Tidy()
		if got := who(); got != "third, of another length" || u.Status().Problem != "" {
			t.Errorf("after a good file again: %q, %q", got, u.Status().Problem)
		}
	}
}

func TestProblemsWithTLSAreToldAtTheirPlace(t *testing.T) {
	ca := newAuthority(t)
	folder := t.TempDir()
	cert, key, empty := filepath.Join(folder, "c.pem"), filepath.Join(folder, "k.pem"), filepath.Join(folder, "empty.pem")
	save(t, ca.issue(t, nil), cert, key)
	save(t, ca.issue(t, nil), filepath.Join(folder, "c2.pem"), filepath.Join(folder, "k2.pem"))
	write(t, empty, nil)
	missing := filepath.Join(folder, "missing.pem")
	for _, test := range []struct {
		set         model.UpstreamTLS
		url         string
		path, words string
	}{
		{model.UpstreamTLS{CA: []string{ca.file, missing}}, "https://a", "tls.ca.1", "no such file"},
		{model.UpstreamTLS{CA: []string{empty}}, "https://a", "tls.ca.0", "holds no certificate"},
		{model.UpstreamTLS{CA: []string{folder}}, "https://a", "tls.ca.0", "is no file"},
		{model.UpstreamTLS{Certificate: &model.Certificate{Cert: missing, Key: key}}, "https://a", "tls.certificate.cert", "no such file"},
		{model.UpstreamTLS{Certificate: &model.Certificate{Cert: cert, Key: missing}}, "https://a", "tls.certificate.key", "no such file"},
		{model.UpstreamTLS{Certificate: &model.Certificate{Cert: cert, Key: filepath.Join(folder, "k2.pem")}}, "https://a",
			"tls.certificate", "do not go together"},
		{model.UpstreamTLS{Pins: []string{"sha256/AAAA"}}, "https://a", "tls.pins.0", "32 bytes"},
		{model.UpstreamTLS{}, "http://a", "tls", "there is none"},
	} {
		m := config(nil)
		m.Targets, m.TLS = []model.Target{{URL: test.url, Weight: 1}}, &test.set
		_, err := New("shop", m, env(io.Discard))
		if err == nil {
			t.Errorf("%s: no problem", test.path)
			continue
		}
		p, ok := decode.Flatten(err)[0].(*decode.PathError)
		if !ok || strings.Join(p.Path, ".") != test.path || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%v: %v, want %q at %s", p, err, test.words, test.path)
		}
	}
}

func serverTLS(t *testing.T, ca *authority) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{ca.issue(t, nil)}}
}
