package conformance

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/internal/testkit"
)

// secured is a gateway whose door is encrypted, with the authority of its certificates.
type secured struct {
	*testkit.Gateway
	t       testing.TB
	files   string // the folder of certificates and keys
	address string
	root    *x509.Certificate
	rootKey *ecdsa.PrivateKey
	serial  int64
}

// newSecured makes an authority; start starts the gateway.
func newSecured(t testing.TB) *secured {
	t.Helper()
	s := &secured{t: t, files: t.TempDir()}
	s.rootKey = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	s.root = template
	s.root = s.sign(template, s.rootKey.Public())
	s.put("root.pem", pemOf("CERTIFICATE", s.root.Raw))
	s.address = must(testkit.FreeAddress())(t)
	return s
}

// must fails the test when something that cannot fail does.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (s *secured) put(name, text string) { testkit.WriteFile(s.t, filepath.Join(s.files, name), text) }

func (s *secured) sign(template *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	s.t.Helper()
	s.serial++
	template.SerialNumber, template.NotBefore = big.NewInt(s.serial), time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(1000 * time.Hour)
	}
	der := must(x509.CreateCertificate(rand.Reader, template, s.root, key, s.rootKey))(s.t)
	return must(x509.ParseCertificate(der))(s.t)
}

// issue writes NAME.crt and NAME.key with a new key, renaming them into their places.
func (s *secured) issue(name string, key crypto.Signer, change func(*x509.Certificate), names ...string) *x509.Certificate {
	s.t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature}
	if change != nil {
		change(template)
	}
	if key == nil {
		key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(s.t)
	}
	c := s.sign(template, key.Public())
	for suffix, text := range map[string]string{
		".key": pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(s.t)), ".crt": pemOf("CERTIFICATE", c.Raw),
	} {
		s.put("next", text)
		if err := os.Rename(filepath.Join(s.files, "next"), filepath.Join(s.files, name+suffix)); err != nil {
			s.t.Fatal(err)
		}
	}
	return c
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	return must(rsa.GenerateKey(rand.Reader, 2048))(t)
}

// document has one door with the settings of tls, one per line, besides the certificates of those names.
func (s *secured) document(settings string, certificates ...string) string {
	var list []string
	for _, c := range certificates {
		list = append(list, fmt.Sprintf("{cert: %q, key: %q}", filepath.Join(s.files, c+".crt"), filepath.Join(s.files, c+".key")))
	}
	return fmt.Sprintf("listeners:\n  door:\n    address: %q\n    tls:\n      certificates: [%s]\n      %s\n"+
		"apis: {hello: {routes: {all: {match: {path: /**}, respond: {status: 200, body: hello}}}}}\n",
		s.address, strings.Join(list, ", "), settings)
}

func (s *secured) start(settings string, certificates ...string) *secured {
	s.t.Helper()
	path, err := binary()
	if err != nil {
		s.t.Fatal(err)
	}
	s.Gateway = testkit.Start(s.t, path, s.document(settings, certificates...))
	return s
}

// client believes the authority, asks for the name and speaks HTTP/1.1.
func (s *secured) client(name string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.root)
	return &tls.Config{RootCAs: pool, ServerName: name, NextProtos: []string{"http/1.1"}}
}

// dial makes a handshake.
func (s *secured) dial(c *tls.Config) (*tls.Conn, error) {
	return tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", s.address, c)
}

// ask sends a request for the host over an open connection.
func ask(c net.Conn, host string) (*http.Response, string, error) {
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return nil, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// hello is the first flight of a client, with exactly what a test wants to offer.
type hello struct {
	version  uint16   // of the record, and the newest that is offered up to TLS 1.2
	versions []uint16 // supported_versions; nil: the extension is left out, as before TLS 1.3
	suites   []uint16
	groups   []uint16
	schemes  []uint16 // signature algorithms; nil: left out
	name     string
}

func list16(values []uint16) (b []byte) {
	for _, v := range values {
		b = append(b, byte(v>>8), byte(v))
	}
	return b
}

// sized puts a length of so many bytes in front.
func sized(bytes int, content []byte) (b []byte) {
	for i := bytes - 1; i >= 0; i-- {
		b = append(b, byte(len(content)>>(8*i)))
	}
	return append(b, content...)
}

func extension(id uint16, content []byte) []byte {
	return append([]byte{byte(id >> 8), byte(id)}, sized(2, content)...)
}

// bytes returns the ClientHello of RFC 8446 section 4.1.2 in one record.
func (h hello) bytes() []byte {
	var ext []byte
	if h.name != "" {
		ext = append(ext, extension(0, sized(2, append([]byte{0}, sized(2, []byte(h.name))...)))...)
	}
	if h.groups != nil {
		ext = append(ext, extension(10, sized(2, list16(h.groups)))...)
		ext = append(ext, extension(11, []byte{1, 0})...) // uncompressed points
	}
	if h.schemes != nil {
		ext = append(ext, extension(13, sized(2, list16(h.schemes)))...)
	}
	ext = append(ext, extension(0xff01, []byte{0})...) // renegotiation_info
	if h.versions != nil {
		ext = append(ext, extension(43, sized(1, list16(h.versions)))...)
		ext = append(ext, extension(51, sized(2, nil))...) // no key share: the server asks for one of the group that it takes
	}
	body := append([]byte{byte(h.version >> 8), byte(h.version)}, make([]byte, 32)...)
	body = append(body, sized(1, make([]byte, 32))...)
	body = append(body, sized(2, list16(h.suites))...)
	body = append(body, 1, 0)
	body = append(body, sized(2, ext)...)
	return append([]byte{22, 3, 1}, sized(2, append([]byte{1}, sized(3, body)...))...)
}

// verdict is what a server makes of a hello.
type verdict struct {
	taken bool
	suite uint16 // of the ServerHello
	alert byte   // otherwise
}

// offer sends a hello and reads the answer: an alert, or the server's first flight up to where it is clear that it goes on.
func (s *secured) offer(h hello) (v verdict) {
	s.t.Helper()
	c := must(net.Dial("tcp", s.address))(s.t)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(h.bytes()); err != nil {
		s.t.Fatal(err)
	}
	for {
		var head [5]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			s.t.Fatalf("%+v: no answer: %v", h, err)
		}
		record := make([]byte, int(head[3])<<8|int(head[4]))
		if _, err := io.ReadFull(c, record); err != nil {
			s.t.Fatal(err)
		}
		switch {
		case head[0] == 21 && len(record) == 2:
			return verdict{alert: record[1]}
		case head[0] == 22 && record[0] == 2 && len(record) > 41+int(record[38]): // ServerHello, or HelloRetryRequest
			at := 39 + int(record[38])
			v.suite = uint16(record[at])<<8 | uint16(record[at+1])
			if v.taken = h.versions != nil; v.taken {
				return v
			}
		case head[0] == 22 && record[0] == 14: // ServerHelloDone: it has signed its key exchange
			v.taken = true
			return v
		case head[0] != 22:
			s.t.Fatalf("%+v: %x %x", h, head, record)
		}
	}
}
