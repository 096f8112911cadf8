package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/crypto/ocsp"

	"headgate/internal/testkit"
)

// scene is a gateway that asks clients for certificates, and everybody around it.
type scene struct {
	t             *testing.T
	address       string
	server, root  *holder
	gateway       *testkit.Gateway
	crl           string
	responder     *httptest.Server
	revokedByOCSP atomic.Pointer[holder]
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, address: freeAddress(t), server: issue(t, nil, "Servers", nil), root: issue(t, nil, "Clients", nil)}
	s.responder = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.responder.Close)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		testkit.WriteFile(t, path, text)
		return path
	}
	door := issue(t, s.server, "door", func(c *x509.Certificate) { c.DNSNames = []string{"shop.example"} })
	s.crl = write("clients.crl", s.root.crl(t, 1))
	s.gateway = testkit.Start(t, binary, fmt.Sprintf(`
listeners:
  door:
    address: %q
    protocols: [h1, h2, h3]
    tls:
      certificates: [{cert: %q, key: %q}]
      client_auth: {mode: request, ca: [%q], crl: [%q], crl_fail: hard, ocsp: soft}
apis:
  shop:
    policies: [mtls]
    routes: {all: {match: "GET /{x...}", respond: {body: "{consumer} {client.cert.subject} {request.scheme}"}}}
  open:
    base_path: /open
    routes: {all: {match: GET /, respond: {body: "{client.tls.version} {client.cert.subject}"}}}
consumers:
  billing: {certificates: ["uri:spiffe://example.com/billing"]}
`, s.address, write("door.pem", door.pem()), write("door.key", door.keyPEM(t)), write("clients.pem", s.root.pem()), s.crl))
	return s
}

// answer is an OCSP responder.
func (s *scene) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	request, err := ocsp.ParseRequest(body)
	if err != nil {
		s.t.Error(err)
		return
	}
	answer := ocsp.Response{Status: ocsp.Good, SerialNumber: request.SerialNumber, ThisUpdate: time.Now(),
		NextUpdate: time.Now().Add(time.Hour)}
	if bad := s.revokedByOCSP.Load(); bad != nil && bad.SerialNumber.Cmp(request.SerialNumber) == 0 {
		answer.Status, answer.RevokedAt = ocsp.Revoked, time.Now().Add(-time.Minute)
	}
	der, err := ocsp.CreateResponse(s.root.Certificate, s.root.Certificate, answer, s.root.key)
	if err != nil {
		s.t.Error(err)
		return
	}
	_, _ = w.Write(der) // the asker may have gone
}

// client makes a certificate for the workload at that path.
func (s *scene) client(issuer *holder, path string) *holder {
	return issue(s.t, issuer, "client "+path, func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: path}}
		c.OCSPServer = []string{s.responder.URL}
	})
}

// config is how a client with that certificate comes; nil: it has none.
func (s *scene) config(h *holder) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(s.server.Certificate)
	c := &tls.Config{RootCAs: roots}
	if h != nil {
		c.Certificates = []tls.Certificate{h.tls()}
	}
	return c
}

func TestAVerifiedCertificateIsAConsumerOverEveryVersionOfHTTP(t *testing.T) {
	s := newScene(t)
	billing, other, stranger := s.client(s.root, "/billing"), s.client(s.root, "/other"), s.client(issue(t, nil, "Clients", nil), "/billing")
	for version, make := range map[string]func(*tls.Config) *http.Client{
		"HTTP/1.1": func(c *tls.Config) *http.Client { c.NextProtos = []string{"http/1.1"}; return plain(t, s.address, c) },
		"HTTP/2.0": func(c *tls.Config) *http.Client { return client(t, s.address, c) },
		"HTTP/3.0": func(c *tls.Config) *http.Client {
			transport := &http3.Transport{TLSClientConfig: c,
				Dial: func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
					return quic.DialAddrEarly(ctx, s.address, t, q)
				}}
			t.Cleanup(func() { _ = transport.Close() }) // the test is over
			return &http.Client{Transport: transport, Timeout: 30 * time.Second}
		},
	} {
		for _, test := range []struct {
			who    string
			cert   *holder
			path   string
			status int
			body   string
		}{
			{"a consumer", billing, "/orders", 200, "billing CN=client /billing https"},
			{"somebody else", other, "/orders", 403, `"code":"mtls_unknown"`},
			{"nobody", nil, "/orders", 403, `"code":"mtls_missing"`},
			{"somebody else, where it does not matter", other, "/open/", 200, "TLS 1.3 CN=client /other"},
			{"nobody, where it does not matter", nil, "/open/", 200, "TLS 1.3 "},
			{"one of another authority", stranger, "/open/", 0, ""},
		} {
			status, _, body, err := get(make(s.config(test.cert)), "https://shop.example"+test.path)
			if status != test.status || !strings.Contains(body, test.body) || (err != nil) != (test.status == 0) {
				t.Errorf("%s, %s: %d %q %v, want %d %q", version, test.who, status, body, err, test.status, test.body)
			}
		}
	}
}

// plain returns a client of HTTP/1.1.
func plain(t *testing.T, address string, c *tls.Config) *http.Client {
	one := client(t, address, c)
	transport := one.Transport.(*http.Transport)
	transport.ForceAttemptHTTP2 = false
	transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	return one
}

func TestARevokedCertificateEndsInTheHandshakeAlsoOnResumption(t *testing.T) {
	s := newScene(t)
	billing, other := s.client(s.root, "/billing"), s.client(s.root, "/billing")
	config := s.config(billing)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	c := plain(t, s.address, config)
	for range 2 { // the second one resumes
		if status, _, body, err := get(c, "https://shop.example/"); status != 200 || err != nil {
			t.Fatalf("%d %q %v", status, body, err)
		}
	}
	testkit.WriteFile(t, s.crl, s.root.crl(t, 2, billing))
	s.gateway.Await("/status", func(page string) bool { return strings.Contains(page, `"revoked": 1`) })
	_, _, _, err := get(c, "https://shop.example/")
	if err == nil || !strings.Contains(err.Error(), "tls:") && !strings.Contains(err.Error(), "EOF") {
		t.Errorf("by a list: %v", err)
	}
	if status, _, _, err := get(plain(t, s.address, s.config(other)), "https://shop.example/"); status != 200 || err != nil {
		t.Errorf("another one of the same authority: %d %v", status, err)
	}
	third := s.client(s.root, "/billing")
	s.revokedByOCSP.Store(third)
	if _, _, _, err := get(plain(t, s.address, s.config(third)), "https://shop.example/"); err == nil {
		t.Error("by its responder: it was let in")
	}
	metrics := s.gateway.Ask("/metrics")
	for _, line := range []string{
		`headgate_client_revocation_checks_total{listener="door",method="crl",outcome="revoked"} 1`,
		`headgate_client_revocation_checks_total{listener="door",method="ocsp",outcome="revoked"} 1`,
		`headgate_ocsp_queries_total{outcome="answered"} 3`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
}
