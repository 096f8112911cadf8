package secure

import (
	"context"
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
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// issuer is an authority of the tests.
type issuer struct {
	*x509.Certificate
	key crypto.Signer
}

var serials atomic.Int64

// authority makes a root, or, under another one, an intermediate.
func authority(t testing.TB, name string, above ...*issuer) *issuer {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	key := ecKey(t)
	parent := &issuer{template, key}
	if len(above) > 0 {
		parent = above[0]
	}
	return &issuer{sign(t, template, key, parent), key}
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rsaKey is made once, since that takes long.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func sign(t testing.TB, template *x509.Certificate, key crypto.Signer, by *issuer) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(serials.Add(1))
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(90 * day)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// leaf is a certificate to be made: a server's unless change makes it another one.
func (by *issuer) leaf(t testing.TB, key crypto.Signer, change func(*x509.Certificate), names ...string) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, n)
	}
	if len(names) > 0 {
		template.Subject.CommonName = names[0]
	}
	if change != nil {
		change(template)
	}
	c := sign(t, template, key, by)
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

func client(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }

// expired is for leaf and says when.
func expired(ago time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-ago-time.Hour), time.Now().Add(-ago)
	}
}

func certPEM(certificates ...[]byte) string {
	var b strings.Builder
	for _, der := range certificates {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}

func keyPEM(t testing.TB, key crypto.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// world is a keeper with a folder of files, and what listens by its terms.
type world struct {
	testing.TB
	*Keeper
	dir     string
	clock   *clock.Shifted
	metrics *metric.Registry
	log     *strings.Builder
	ca      *issuer
	sweeper *sock.Sweeper
}

func newWorld(t testing.TB, extend ...Extend) *world {
	t.Helper()
	w := &world{
		TB: t, dir: t.TempDir(), clock: &clock.Shifted{}, metrics: metric.NewRegistry(), log: &strings.Builder{},
		ca: authority(t, "root"),
	}
	w.Keeper = New(Options{
		Clock: w.clock, Metrics: w.metrics, Random: rand.Reader, Extend: extend,
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	w.sweeper = sock.NewSweeper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = w.sweeper.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

// put writes a certificate and its key into files of that name, and returns the part of the document that names them.
func (w *world) put(name string, c *tls.Certificate, chain ...[]byte) model.Certificate {
	w.Helper()
	write(w, filepath.Join(w.dir, name+".crt"), certPEM(append(c.Certificate[:1:1], chain...)...))
	write(w, filepath.Join(w.dir, name+".key"), keyPEM(w, c.PrivateKey))
	return model.Certificate{Cert: name + ".crt", Key: name + ".key"}
}

// issue is put for a good certificate with an ECDSA key.
func (w *world) issue(file string, names ...string) model.Certificate {
	w.Helper()
	return w.put(file, w.ca.leaf(w, ecKey(w), nil, names...))
}

// settings are the defaults with the certificates, changed.
func settings(change func(*model.ListenerTLS), certificates ...model.Certificate) *model.Listener {
	l := &model.Listener{TLS: &model.ListenerTLS{}}
	l.SetDefaults()
	l.TLS.SetDefaults()
	l.TLS.Certificates = certificates
	if change != nil {
		change(l.TLS)
	}
	return l
}

// compile makes live terms.
func (w *world) compile(l *model.Listener) *Terms {
	w.Helper()
	t, err := w.Compile("main", l, w.dir)
	if err != nil {
		w.Fatal(err)
	}
	t.Live()
	w.Cleanup(func() {
		if err := t.Close(); err != nil {
			w.Error(err)
		}
	})
	return t
}

// door greets connections by terms that may be replaced, and tells each client in a line what was agreed on.
type door struct {
	*world
	terms   atomic.Pointer[Terms]
	address string
	greeted sync.WaitGroup
}

func (w *world) open(t *Terms) *door {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	d := &door{world: w, address: l.Addr().String()}
	d.terms.Store(t)
	d.greeted.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			d.greeted.Go(func() { d.greet(nc) })
		}
	})
	w.Cleanup(func() { _ = l.Close(); d.greeted.Wait() })
	return d
}

func (d *door) greet(nc net.Conn) {
	c, err := sock.New(nc, d.sweeper, nil)
	if err != nil {
		d.Error(err)
		return
	}
	defer c.Close()
	who := exchange.Client{Peer: netip.MustParseAddrPort(nc.RemoteAddr().String())}
	if d.terms.Load().Greet(c, &who) != nil {
		return
	}
	subject := "-"
	if who.TLS.Certificate != nil {
		subject = who.TLS.Certificate.Subject
	}
	answer := fmt.Sprintf("%s|%s|%s|%v|%s\n", who.TLS.Version, who.TLS.ServerName, who.TLS.ALPN, who.TLS.Resumed, subject)
	c.Arm(sock.PhaseWrite, 10*time.Second)
	var line [64]byte
	for {
		n, err := c.Read(line[:])
		if err != nil {
			return
		}
		if _, err := c.Write([]byte(answer)); err != nil || line[n-1] == '.' {
			return
		}
	}
}

// roots are what clients believe.
func (w *world) roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(w.ca.Certificate)
	return p
}

// call makes a handshake, asks once and returns what the door says, and what was agreed on.
func (d *door) call(c *tls.Config) (answer string, state tls.ConnectionState, err error) {
	nc, err := net.Dial("tcp", d.address)
	if err != nil {
		return "", state, err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	conn := tls.Client(nc, c)
	if err := conn.Handshake(); err != nil {
		return "", state, err
	}
	state = conn.ConnectionState()
	answer, err = ask(conn)
	return answer, state, err
}

// ask reads the door's answer, with which a session ticket comes and errors about our own certificate.
func ask(conn net.Conn) (string, error) {
	if _, err := conn.Write([]byte("?")); err != nil {
		return "", err
	}
	b := make([]byte, 512)
	n, err := conn.Read(b)
	return strings.TrimSpace(string(b[:n])), err
}

// client returns the configuration of a client that believes the world's authority and asks for the name.
func (w *world) client(name string) *tls.Config {
	return &tls.Config{RootCAs: w.roots(), ServerName: name, NextProtos: []string{"http/1.1"}, Time: w.clock.Now}
}

// counted returns how many handshakes failed for the cause.
func (w *world) counted(c cause) uint64 {
	return w.metrics.Counter("headgate_tls_handshake_errors_total", "", metric.Label{Name: "listener", Value: "main"},
		metric.Label{Name: "cause", Value: c.String()}).Value()
}

func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
