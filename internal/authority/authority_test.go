package authority

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"headgate/internal/clock"
)

func manual() *clock.Manual { return clock.NewManual(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)) }

func open(t *testing.T, folder string, c clock.Clock) *Authority {
	t.Helper()
	a, err := Open(folder, c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func leaf(t *testing.T, a *Authority, names ...string) *Leaf {
	t.Helper()
	l, err := a.Leaf(names)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func certificate(t *testing.T, l *Leaf) *x509.Certificate {
	t.Helper()
	c, err := l.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

func pool(t *testing.T, a *Authority) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(a.Root()) {
		t.Fatal("the root is not PEM")
	}
	return p
}

func TestWhoTrustsTheRootTrustsWhatItIssues(t *testing.T) {
	c := manual()
	a := open(t, filepath.Join(t.TempDir(), "state", "authority"), c)
	l := leaf(t, a, "localhost", "*.shop.test", "127.0.0.1", "::1", "10.1.2.3")
	for _, name := range []string{"localhost", "a.shop.test", "127.0.0.1", "::1", "10.1.2.3"} {
		if _, err := certificate(t, l).Verify(x509.VerifyOptions{Roots: pool(t, a), DNSName: name, CurrentTime: c.Now()}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := certificate(t, l).Verify(x509.VerifyOptions{Roots: pool(t, a), DNSName: "other.test", CurrentTime: c.Now()}); err == nil {
		t.Error("the certificate speaks for a name that it was not issued for")
	}
}

func TestHandshakeWithAnIssuedCertificateSucceeds(t *testing.T) {
	a := open(t, t.TempDir(), clock.System{})
	l := leaf(t, a, "localhost")
	server, client := net.Pipe()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(server, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.Certificate() }})
		done <- s.HandshakeContext(t.Context())
	}()
	if err := tls.Client(client, &tls.Config{RootCAs: pool(t, a), ServerName: "localhost"}).HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRootCannotSpeakForPublicNames(t *testing.T) {
	c := manual()
	a := open(t, t.TempDir(), c)
	// What a thief of the key would do: issue without asking CheckName.
	l := &Leaf{authority: a, dns: []string{"bank.com"}, addresses: []net.IP{net.ParseIP("8.8.8.8")}}
	if err := l.issue(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bank.com", "8.8.8.8"} {
		_, err := certificate(t, l).Verify(x509.VerifyOptions{Roots: pool(t, a), DNSName: name, CurrentTime: c.Now()})
		if err == nil || !strings.Contains(err.Error(), "not permitted") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamesThatMayBeIssuedFor(t *testing.T) {
	for _, name := range []string{"localhost", "LocalHost", "a.localhost", "shop.test", "*.shop.test", "printer.local", "db.internal",
		"127.0.0.1",
		"::1", "fd00::1", "192.168.1.1", "::ffff:10.0.0.1"} {
		if err := CheckName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"example.com": "public name", "test.com": "public name", "nottest": "public name", "8.8.8.8": "not a private address",
		"2001:db8::1": "not a private address", "": "neither a host name", "a b.test": "neither a host name", ".test": "neither a host name",
		"a..test": "neither a host name", "*.com": "public name", "a.*.com": "neither a host name",
	} {
		if err := CheckName(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := open(t, t.TempDir(), manual()).Leaf([]string{"example.com", "8.8.8.8"}); err == nil ||
		!strings.Contains(err.Error(), "example.com") || !strings.Contains(err.Error(), "8.8.8.8") {
		t.Errorf("not every wrong name is told: %v", err)
	}
}

func TestSecondStartHasTheSameRoot(t *testing.T) {
	folder, c := t.TempDir(), manual()
	first := open(t, folder, c)
	c.Advance(300 * 24 * time.Hour)
	if second := open(t, folder, c); string(first.Root()) != string(second.Root()) {
		t.Error("the root has changed")
	}
	published, err := os.ReadFile(first.RootFile())
	if err != nil || string(published) != string(first.Root()) {
		t.Errorf("the root's file: %q, %v", published, err)
	}
}

func TestProcessesAtOneTimeGetOneRoot(t *testing.T) {
	folder, c := filepath.Join(t.TempDir(), "authority"), manual()
	var roots [16]string
	var all sync.WaitGroup
	for i := range roots {
		all.Go(func() {
			a, err := Open(folder, c)
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = string(a.Root())
		})
	}
	all.Wait()
	for _, r := range roots {
		if r != roots[0] {
			t.Fatal("there are two roots")
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder holds %v, %v; want the pair and the root", entries, err)
	}
}

func TestKeyIsReadableByItsOwnerOnly(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "authority")
	open(t, folder, manual())
	for path, want := range map[string]os.FileMode{folder: 0o700, filepath.Join(folder, pairFile): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %o", path, info.Mode(), err, want)
		}
	}
	if err := os.Chmod(filepath.Join(folder, pairFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(folder, manual()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read is used: %v", err)
	}
}

func TestBrokenFilesAreNamed(t *testing.T) {
	good := open(t, t.TempDir(), manual())
	other := open(t, t.TempDir(), manual())
	pair, err := os.ReadFile(filepath.Join(other.folder, pairFile))
	if err != nil {
		t.Fatal(err)
	}
	_, othersKey := pem.Decode(pair)
	for want, content := range map[string]string{
		"does not hold":           "hello",
		"does not hold a":         string(good.Root()),
		"the key is not":          string(good.Root()) + string(othersKey),
		"which is no certificate": strings.Repeat("x", maxFile+1),
	} {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, pairFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(folder, manual()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), pairFile) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestLeafRenewsItselfBeforeItEnds(t *testing.T) {
	c := manual()
	a := open(t, t.TempDir(), c)
	l := leaf(t, a, "localhost")
	first := certificate(t, l)
	c.Advance(leafRenewal - time.Second)
	if certificate(t, l) != first {
		t.Error("it was renewed too early")
	}
	c.Advance(time.Second)
	second := certificate(t, l)
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 || !second.NotAfter.Equal(c.Now().Add(leafLife)) {
		t.Errorf("the second ends %v and the first %v", second.NotAfter, first.NotAfter)
	}
	// Somebody else is at it: the one before is good meanwhile.
	c.Advance(leafRenewal)
	l.renewing.Lock()
	if certificate(t, l) != second {
		t.Error("callers wait although there is a valid certificate")
	}
	l.renewing.Unlock()
	c.Advance(10 * leafLife)
	if third := certificate(t, l); !third.NotAfter.After(c.Now()) {
		t.Errorf("what has ended is handed out: %v", third.NotAfter)
	}
}

func TestEndOfTheRootIsTold(t *testing.T) {
	folder, c := t.TempDir(), manual()
	l := leaf(t, open(t, folder, c), "localhost")
	c.Advance(rootLife - leafLife/2)
	if got := certificate(t, l); got.NotAfter.After(l.authority.NotAfter()) {
		t.Errorf("a certificate outlives its root: %v", got.NotAfter)
	}
	if _, err := Open(folder, c); err == nil || !strings.Contains(err.Error(), "trust that") {
		t.Errorf("a root that ends soon is used: %v", err)
	}
	c.Advance(leafLife)
	if _, err := l.Certificate(); err == nil || !strings.Contains(err.Error(), "trust the new root") {
		t.Errorf("a root that has ended issues: %v", err)
	}
}
