package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// pebbleVariable says where Let's Encrypt's server for tests is: its binary, or "fetch" to build it.
	pebbleVariable = "HEADGATE_PEBBLE"
	pebbleModule   = "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1"
)

// TestPebble gets certificates from Let's Encrypt's server for tests, which refuses every now and then a nonce that is good:
//
//	HEADGATE_PEBBLE=fetch go test ./gateway/listen/acme -run Pebble -v
func TestPebble(t *testing.T) {
	program := pebbleBinary(t)
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			n := newNode(t, filepath.Join(t.TempDir(), "acme"))
			p := startPebble(t, n, program)
			m := n.settings(n.authority(), challenge+".example.org")
			m.Directory, m.Roots, m.Challenges = "https://"+p.directory+"/dir", p.roots, []string{challenge}
			s := n.live(m)
			n.until("the certificate", func() bool { return !s.Status()[0].NotAfter.IsZero() })
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(p.get("/roots/0")) {
				t.Fatal("pebble has no root")
			}
			c, err := tls.Dial("tcp", n.doorTLS.Addr().String(), &tls.Config{ServerName: challenge + ".example.org", RootCAs: roots})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != challenge+".example.org" || c.Close() != nil {
				t.Errorf("%s is shown", got)
			}
		})
	}
}

// pebbleBinary returns the path of the server, or skips the test when nobody said where it is.
func pebbleBinary(t *testing.T) string {
	t.Helper()
	switch path := os.Getenv(pebbleVariable); path {
	case "":
		t.Skipf("set %s to \"fetch\", or to the binary of %s", pebbleVariable, pebbleModule)
	case "fetch":
		dir := t.TempDir()
		build := exec.CommandContext(t.Context(), "go", "install", pebbleModule)
		build.Dir, build.Env = dir, append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Skipf("%s cannot be built: %v\n%s", pebbleModule, err, out)
		}
		return filepath.Join(dir, "pebble")
	default:
		return path
	}
	return ""
}

// pebble is a running server.
type pebble struct {
	t                            *testing.T
	directory, management, roots string
	client                       *http.Client
}

// startPebble starts a server that finds the node's doors behind every name.
func startPebble(t *testing.T, n *node, program string) *pebble {
	t.Helper()
	dir := t.TempDir()
	p := &pebble{t: t, directory: free(t), management: free(t), roots: filepath.Join(dir, "cert.pem")}
	key := selfSigned(t, p.roots, filepath.Join(dir, "key.pem"))
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: key}}
	p.client = &http.Client{Timeout: 5 * time.Second, Transport: transport}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": p.directory, "managementListenAddress": p.management, "certificate": p.roots,
		"privateKey": filepath.Join(dir, "key.pem"),
		"httpPort":   port(t, n.clear.Listener.Addr()), "tlsPort": port(t, n.doorTLS.Addr()), "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"description": "as usual", "validityPeriod": 7776000}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.CommandContext(t.Context(), program, "-config", path, "-dnsserver", names(t))
	server.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	n.until("pebble's start", func() bool {
		r, err := p.client.Get("https://" + p.directory + "/dir")
		return err == nil && r.Body.Close() == nil
	})
	return p
}

// names starts a DNS server, over TCP as pebble asks, that finds every name on the loopback address.
func names(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				for lookUp(c) == nil {
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l.Addr().String()
}

// lookUp answers one question (RFC 1035 section 4.2.2).
func lookUp(c net.Conn) error {
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return err
	}
	packet := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, packet); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(packet); err != nil {
		return err
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
		}
	}
	answer, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	return err
}

// get asks the server's management.
func (p *pebble) get(path string) []byte {
	p.t.Helper()
	r, err := p.client.Get("https://" + p.management + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return body
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func port(t *testing.T, a net.Addr) int {
	t.Helper()
	_, p, err := net.SplitHostPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// selfSigned writes a certificate for 127.0.0.1 and its key, and returns whom to believe.
func selfSigned(t *testing.T, certPath, keyPath string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	for path, content := range map[string][]byte{certPath: cert, keyPath: private} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}
