package trust

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"headgate/internal/testkit"
)

// From an empty folder to HTTPS that clients believe, by each way of proof, with nothing but a document.
func TestAGatewayGetsItsCertificatesByItself(t *testing.T) {
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			a, err := testkit.NewACME()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(a.Close)
			a.HTTP, a.TLS = freeAddress(t), freeAddress(t)
			_, port, err := net.SplitHostPort(a.TLS)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			roots := filepath.Join(dir, "roots.pem")
			testkit.WriteFile(t, roots, string(a.ServerRoot()))
			document := func(body string) string {
				return fmt.Sprintf(`
listeners:
  clear: {address: %q, redirect_to_https: {port: %s}}
  door:
    address: %q
    tls:
      acme: {domains: [shop.example], email: ops@example.com, directory: %q, roots: %q, challenges: [%s], agree_to_terms: true}
      hsts: {max_age: 24h}
apis: {hello: {routes: {all: {match: "GET /{x...}", respond: {body: %q}}}}}
policies: [headers: {response: {set: {X-Policy: ran}}}]
`, a.HTTP, port, a.TLS, a.Directory(), roots, challenge, body)
			}
			g := testkit.Start(t, binary, document("hello over {client.tls.version}"))
			g.Await("/status", func(page string) bool { return strings.Contains(page, `"issuer": "CN=Test authority"`) })
			pool := x509.NewCertPool()
			pool.AddCert(a.Root())
			secure := client(t, a.TLS, &tls.Config{RootCAs: pool})
			status, header, body, err := get(secure, "https://shop.example/")
			if err != nil || status != 200 || body != "hello over TLS 1.3" || header.Get("Strict-Transport-Security") != "max-age=86400" {
				t.Errorf("%d %q %v %v", status, body, header, err)
			}
			status, header, _, err = get(client(t, a.HTTP, nil), "http://shop.example/a?b=c")
			if err != nil || status != 308 || header.Get("Location") != "https://shop.example:"+port+"/a?b=c" || header.Get("X-Policy") != "" {
				t.Errorf("%d %v %v", status, header, err)
			}
			if metrics := g.Ask("/metrics"); !strings.Contains(metrics, "\nheadgate_acme_attempts_total{result=\"success\"} 1\n") ||
				!strings.Contains(metrics, `headgate_certificate_expiry_timestamp_seconds{listener="door",source="acme",certificate="shop.example"}`) {
				t.Error("the metrics do not tell of the certificate")
			}
			if info, err := os.Stat(filepath.Join(g.Dir, "acme")); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("what was got is not kept beside the document, for its owner alone: %v %v", info, err)
			}
			g.Write("headgate.yaml", document("reloaded")+fmt.Sprintf("admin: {address: %q}\nlog: {access: {to: \"off\"}}\n", g.Admin()))
			g.Ask("POST /reload")
			if status, _, body, err := get(secure, "https://shop.example/"); err != nil || status != 200 || body != "reloaded" {
				t.Errorf("%d %q %v", status, body, err)
			}
			if certificates, accounts := a.Issued(); certificates != 1 || accounts != 1 {
				t.Errorf("%d certificates of %d accounts; a reload needs no other", certificates, accounts)
			}
		})
	}
}

func TestAnAuthorityThatRefusesKeepsNothingElseFromBeingServed(t *testing.T) {
	a, err := testkit.NewACME()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	a.Problem = "caa"
	a.HTTP, a.TLS = freeAddress(t), freeAddress(t)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	testkit.WriteFile(t, roots, string(a.ServerRoot()))
	g := testkit.Start(t, binary, fmt.Sprintf(`
listeners:
  clear: {address: %q}
  door: {address: %q, tls: {acme: {domains: [shop.example], directory: %q, roots: %q, agree_to_terms: true}}}
apis: {hello: {routes: {all: {match: "GET /{x...}", respond: {body: hello}}}}}
`, a.HTTP, a.TLS, a.Directory(), roots))
	g.Await("/status", func(page string) bool {
		return strings.Contains(page, "a CAA record of shop.example does not allow this authority")
	})
	if status, _, body, err := get(client(t, a.HTTP, nil), "http://shop.example/"); err != nil || status != 200 || body != "hello" {
		t.Errorf("in clear: %d %q %v", status, body, err)
	}
	if _, _, _, err := get(client(t, a.TLS, &tls.Config{InsecureSkipVerify: true}), "https://shop.example/"); err == nil ||
		!strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("over TLS, before there is a certificate: %v", err)
	}
}
