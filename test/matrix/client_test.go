package matrix

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	mathbig "math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// ways in: what the client speaks.
var waysIn = []string{"h1", "h1s", "h2", "h2c", "h3"}

// house is the gateway between clients and upstreams of every version.
type house struct {
	t             *testing.T
	clear, secure string // addresses of the doors
	roots         *x509.CertPool
}

// client returns one that speaks nothing but the given version, and the URL that it reaches the gateway at.
func (h *house) client(t *testing.T, way string) (*http.Client, string) {
	t.Helper()
	trust := &tls.Config{RootCAs: h.roots}
	url := "https://" + h.secure
	if way == "h3" {
		own := &http3.Transport{TLSClientConfig: trust, DisableCompression: true}
		t.Cleanup(func() {
			if err := own.Close(); err != nil {
				t.Error(err)
			}
		})
		return &http.Client{Transport: own}, url
	}
	var only http.Protocols
	switch way {
	case "h1":
		only.SetHTTP1(true)
		url = "http://" + h.clear
	case "h1s":
		only.SetHTTP1(true)
	case "h2":
		only.SetHTTP2(true)
	case "h2c":
		only.SetUnencryptedHTTP2(true)
		url = "http://" + h.clear
	}
	tr := &http.Transport{TLSClientConfig: trust, DisableCompression: true, Protocols: &only}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}, url
}

// talk is one client's way to one upstream.
type talk struct {
	*testing.T
	client  *http.Client
	url     string
	origin  *origin
	in, out string
}

// ask sends a request and returns the reply, whose body is closed with the test.
func (k *talk) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	k.Helper()
	r, err := http.NewRequestWithContext(ctx, method, k.url+path, body)
	if err != nil {
		k.Fatal(err)
	}
	answer, err := k.client.Do(r)
	if err == nil {
		k.Cleanup(func() { _ = answer.Body.Close() })
	}
	return answer, err
}

// must is ask for those who expect an answer with this status.
func (k *talk) must(status int, method, path string, body io.Reader) *http.Response {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), patience+time.Duration(*big>>20)*time.Second)
	k.Cleanup(cancel)
	answer, err := k.ask(ctx, method, path, body)
	if err != nil {
		k.Fatalf("%s %s: %v", method, path, err)
	}
	if answer.StatusCode != status {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1000)) // for the report
		k.Fatalf("%s %s: %s, want %d\n%s", method, path, answer.Status, status, text)
	}
	return answer
}

func (k *talk) text(answer *http.Response) string {
	k.Helper()
	var b bytes.Buffer
	if _, err := b.ReadFrom(answer.Body); err != nil {
		k.Fatal(err)
	}
	return b.String()
}

// certificate makes one for the loopback address that is its own authority.
func certificate(t *testing.T) (pair tls.Certificate, certPEM, keyPEM string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: mathbig.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(certPEM)) {
		t.Fatal("the certificate does not parse")
	}
	if pair, err = tls.X509KeyPair([]byte(certPEM), []byte(keyPEM)); err != nil {
		t.Fatal(err)
	}
	return pair, certPEM, keyPEM, roots
}

func proto(way string) string {
	return map[string]string{"h1": "HTTP/1.1", "h1s": "HTTP/1.1", "h2": "HTTP/2.0", "h2c": "HTTP/2.0", "h3": "HTTP/3.0"}[way]
}
