package websocket

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"

	"headgate/internal/testkit"
)

// TestFramesPassThroughAnUpstreamOverHTTP2 puts a second gateway behind the first, which it asks by extended CONNECT.
func TestFramesPassThroughAnUpstreamOverHTTP2(t *testing.T) {
	_, behind := start(t, mirror(t))
	address := must(testkit.FreeAddress())(t)
	testkit.Start(t, built, fmt.Sprintf("listeners: {public: {address: %q}}\nupstreams: {far: {targets: [%q], protocol: h2}}\n"+
		"apis: {far: {upstream: far}}\n", address, "h2c://"+behind))
	for name, open := range doors {
		t.Run(name, func(t *testing.T) {
			for _, c := range webSocketCases() {
				if len(c.frames) < 2 && c.number[0] != '1' {
					continue // the short ones are much alike for a stream
				}
				s := open(t, address, "/")
				sending := make(chan error, 1)
				go func() {
					_, err := c.send(s)
					sending <- err
				}()
				var want []byte
				for _, f := range c.frames {
					want = append(want, masked(f)...)
				}
				got := make([]byte, len(want))
				if n, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s: %d of %d bytes came back, or others: %v", c.number, n, len(want), err)
				}
				if err := <-sending; err != nil {
					t.Fatal(err)
				}
				if err := s.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
					t.Errorf("%s: %d bytes more came, %v", c.number, len(rest), err)
				}
				_ = s.Close() // it has ended
			}
		})
	}
}

// TestWebSocketsOverTLS opens one by https with a client of somebody else's.
func TestWebSocketsOverTLS(t *testing.T) {
	dir := t.TempDir()
	roots := certificate(t, dir)
	address := must(testkit.FreeAddress())(t)
	testkit.Start(t, built, fmt.Sprintf("listeners: {public: {address: %q, tls: {certificates: [{cert: %q, key: %q}]}}}\n"+
		"upstreams: {echo: %q}\napis: {echo: {upstream: echo}}\n",
		address, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), endpoint(t, nil)))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer tr.CloseIdleConnections()
	c, _, err := websocket.Dial(ctx, "wss://"+address, &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	for _, size := range []int{0, 1, 20_000, 5_000_000} {
		message := bytes.Repeat([]byte{'x'}, size)
		if err := c.Write(ctx, websocket.MessageBinary, message); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("%d of %d bytes came back: %v", len(got), size, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// certificate makes one for the loopback address, cert.pem and key.pem in the folder, that is its own authority.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, private.Public(), private))(t)
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	testkit.WriteFile(t, filepath.Join(dir, "cert.pem"), text("CERTIFICATE", der))
	testkit.WriteFile(t, filepath.Join(dir, "key.pem"), text("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(private))(t)))
	roots := x509.NewCertPool()
	roots.AddCert(must(x509.ParseCertificate(der))(t))
	return roots
}
