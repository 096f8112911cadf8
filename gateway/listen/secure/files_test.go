package secure

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/internal/metric"
)

// refused compiles and returns the problems, each with its path below tls.
func (w *world) refused(l *model.Listener) (problems []string) {
	w.Helper()
	t, err := w.Compile("main", l, w.dir)
	if err == nil {
		w.Error("it was taken")
		_ = t.Close()
	}
	for _, e := range decode.Flatten(err) {
		path := ""
		if at, ok := e.(*decode.PathError); ok {
			path = decode.FormatPath(at.Path)
		}
		problems = append(problems, path+": "+strings.ReplaceAll(e.Error(), w.dir+string(filepath.Separator), ""))
	}
	return problems
}

func TestABadFileIsAProblemAtItsPlace(t *testing.T) {
	w := newWorld(t)
	good := w.ca.leaf(t, ecKey(t), nil, "good.example")
	middle := authority(t, "middle", w.ca)
	other := w.ca.leaf(t, ecKey(t), nil, "other.example")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weakLeaf, p224Leaf := w.ca.leaf(t, weak, nil, "weak.example"), w.ca.leaf(t, p224, nil, "p224.example")
	cert, key := certPEM(good.Certificate[0]), keyPEM(t, good.PrivateKey)
	block := func(kind, text string) string {
		return "-----BEGIN " + kind + "-----\n" + text + "-----END " + kind + "-----\n"
	}
	for _, test := range []struct{ name, cert, key, want string }{
		{"no certificate file", "", key, "certificates[0].cert: c.crt does not exist"},
		{"no key file", cert, "", "certificates[0].key: c.key does not exist"},
		{"an empty file", "\n", key, "certificates[0].cert: c.crt is empty"},
		{"no PEM", "hello", key, "certificates[0].cert: c.crt is not a PEM file: it has no line -----BEGIN CERTIFICATE-----"},
		{"DER", string(good.Certificate[0]), key, "certificates[0].cert: c.crt is in DER, not in PEM; convert it"},
		{"a request", block("CERTIFICATE REQUEST", "MAA=\n"), key, "holds a request for a certificate, which an authority has still"},
		{"the key twice", key, key, "certificates[0].cert: c.crt holds no certificate, but PRIVATE KEY"},
		{"the certificate twice", cert, cert, "certificates[0].key: c.key holds no private key; PKCS #8"},
		{"a broken certificate", block("CERTIFICATE", "MAA=\n"), key,
			"certificates[0].cert: c.crt holds a certificate that cannot be read, number 1"},
		{"a broken key", cert, block("PRIVATE KEY", "MAA=\n"), "certificates[0].key: c.key holds a private key that cannot be read"},
		{"a key with a passphrase", cert, block("ENCRYPTED PRIVATE KEY", "MAA=\n"), "c.key is encrypted with a passphrase"},
		{"another key", cert, keyPEM(t, other.PrivateKey),
			"certificates[0].key: c.key is not the key of the certificate in c.crt (CN=good.example)"},
		{"the wrong order", certPEM(middle.Raw, good.Certificate[0]), key,
			"certificates[0].cert: c.crt is in the wrong order: the key is that of certificate number 2 (CN=good.example)"},
		{"a weak key", certPEM(weakLeaf.Certificate[0]), keyPEM(t, weak), "c.crt has an RSA key of 1024 bits, which can be broken"},
		{"a curve that TLS does not have", certPEM(p224Leaf.Certificate[0]), keyPEM(t, p224), "c.crt has a key on the curve P-224"},
		{"too many", strings.Repeat(cert, maxChain+1), key, "c.crt holds 17 certificates"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, text := range map[string]string{"c.crt": test.cert, "c.key": test.key} {
				path := filepath.Join(w.dir, name)
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
				if text != "" {
					write(t, path, text)
				}
			}
			got := strings.Join(w.refused(settings(nil, model.Certificate{Cert: "c.crt", Key: "c.key"})), "\n")
			if !strings.Contains(got, test.want) {
				t.Errorf("%s\nwant %s", got, test.want)
			}
		})
	}
	if got := w.refused(settings(nil, model.Certificate{Cert: ".", Key: "c.key"})); !strings.Contains(got[0], "is not a file") {
		t.Errorf("a folder: %s", got)
	}
	if got := w.refused(settings(nil)); !strings.Contains(got[0], "it has no certificate; name files in certificates, an authority in acme") {
		t.Errorf("nothing at all: %s", got)
	}
	all := settings(func(t *model.ListenerTLS) {
		t.ClientAuth = &model.ClientAuth{Mode: "require", CA: []string{"c.key", "nowhere"}}
	},
		model.Certificate{Cert: "1", Key: "1"}, model.Certificate{Cert: "2", Key: "2"})
	if got := w.refused(all); len(got) != 4 || !strings.HasPrefix(got[2], "client_auth.ca[0]: c.key holds no certificate") ||
		!strings.HasPrefix(got[3], "client_auth.ca[1]: nowhere does not exist") {
		t.Errorf("not all problems at once: %q", got)
	}
	if len(w.pairs)+len(w.bundles)+len(w.terms) != 0 {
		t.Errorf("something is kept of what was refused: %v %v %v", w.pairs, w.bundles, w.terms)
	}
}

func TestEveryFormOfKeyIsRead(t *testing.T) {
	w := newWorld(t)
	ec := ecKey(t)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	params := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" // as openssl ecparam writes it in front
	for name, test := range map[string]struct {
		certificate *tls.Certificate
		key         string
	}{
		"PKCS #1": {w.ca.leaf(t, rsaKey(), nil, "a.example"),
			string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey())}))},
		"SEC 1":   {w.ca.leaf(t, ec, nil, "a.example"), params + string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))},
		"PKCS #8": {w.ca.leaf(t, ec, nil, "a.example"), keyPEM(t, ec)},
	} {
		if _, _, f := parsePair(files{"c", "k"}, []byte(certPEM(test.certificate.Certificate[0])), []byte(test.key), time.Now()); f != nil {
			t.Errorf("%s: %v", name, f)
		}
	}
}

func TestCertificatesThatClientsMayRefuseAreServedWithAWarning(t *testing.T) {
	w := newWorld(t)
	middle, stranger := authority(t, "middle", w.ca), authority(t, "stranger")
	leaf := func(change func(*x509.Certificate), names ...string) *tls.Certificate {
		return middle.leaf(t, ecKey(t), change, names...)
	}
	for name, test := range map[string]struct {
		certificate *tls.Certificate
		chain       [][]byte
		want        string
	}{
		"a good one":        {leaf(nil, "a.example"), [][]byte{middle.Raw}, ""},
		"a good long chain": {leaf(nil, "a.example"), [][]byte{middle.Raw, w.ca.Raw}, ""},
		"an expired one":    {leaf(expired(time.Hour), "a.example"), nil, "it expired on "},
		"one of tomorrow": {leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(day) }, "a.example"), nil,
			"it is not valid before "},
		"one without names": {leaf(func(c *x509.Certificate) { c.Subject.CommonName = "a.example" }), nil, "it names no host (subjectAltName)"},
		"one for clients":   {leaf(client, "a.example"), nil, "it is not for servers"},
		"a chain of others": {leaf(nil, "a.example"), [][]byte{stranger.Raw},
			"certificate number 2 of its file (CN=stranger) did not issue number 1"},
		"a chain upside down": {leaf(nil, "a.example"), [][]byte{w.ca.Raw, middle.Raw},
			"certificate number 2 of its file (CN=root) did not issue number 1"},
	} {
		terms := w.compile(settings(nil, w.put(strings.ReplaceAll(name, " ", "-"), test.certificate, test.chain...)))
		got := ""
		for _, e := range terms.Warnings(time.Now()) {
			got += e.Error()
		}
		if (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		if !strings.Contains(w.log.String(), test.want) {
			t.Errorf("%s: the log does not say so: %s", name, w.log)
		}
	}
}

// running follows changes of files until the test ends.
func (w *world) running() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = w.Run(ctx) }()
	w.Cleanup(func() { cancel(); <-ended })
}

// shown returns the serial number of the certificate that a client is shown.
func (d *door) shown(name string) string {
	d.Helper()
	_, state, err := d.call(d.client(name))
	if err != nil {
		d.Fatal(err)
	}
	return state.PeerCertificates[0].SerialNumber.String()
}

func TestAChangedCertificateIsServedWithoutAnybodyNoticing(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(nil, w.issue("a", "a.example"))))
	w.running()
	before := d.shown("a.example")
	nc, err := net.Dial("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	old := tls.Client(nc, w.client("a.example"))
	if _, err := ask(old); err != nil {
		t.Fatal(err)
	}
	var calls, failed atomic.Int64
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, err := d.call(w.client("a.example")); err != nil {
					failed.Add(1)
					t.Log(err)
				}
				calls.Add(1)
			}
		})
	}
	for range 3 {
		w.issue("new", "a.example")
		for _, suffix := range []string{".key", ".crt"} { // one after the other, each at once, as tools do
			if err := os.Rename(filepath.Join(w.dir, "new"+suffix), filepath.Join(w.dir, "a"+suffix)); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "the new one is served", func() bool { return d.shown("a.example") != before })
		before = d.shown("a.example")
	}
	if answer, err := ask(old); err != nil || !strings.Contains(answer, "a.example") {
		t.Errorf("a connection of before: %q, %v", answer, err)
	}
	close(stop)
	callers.Wait()
	if failed.Load() != 0 || calls.Load() == 0 {
		t.Errorf("%d of %d handshakes failed", failed.Load(), calls.Load())
	}
}

func TestAKubernetesSecretIsFollowed(t *testing.T) {
	w := newWorld(t)
	version := func(name string, c *tls.Certificate) {
		dir := filepath.Join(w.dir, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "tls.crt"), certPEM(c.Certificate...))
		write(t, filepath.Join(dir, "tls.key"), keyPEM(t, c.PrivateKey))
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", w.ca.leaf(t, ecKey(t), nil, "a.example"))
	link("..1", "..data")
	link("..data/tls.crt", "tls.crt")
	link("..data/tls.key", "tls.key")
	d := w.open(w.compile(settings(nil, model.Certificate{Cert: "tls.crt", Key: "tls.key"})))
	w.running()
	before := d.shown("a.example")
	version("..2", w.ca.leaf(t, ecKey(t), nil, "a.example"))
	link("..2", "..tmp")
	if err := os.Rename(filepath.Join(w.dir, "..tmp"), filepath.Join(w.dir, "..data")); err != nil {
		t.Fatal(err)
	}
	until(t, "the new one is served", func() bool { return d.shown("a.example") != before })
}

func TestABadChangeKeepsTheOldCertificateAndSaysWhy(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(nil, w.issue("a", "a.example"))))
	before := d.shown("a.example")
	good := w.ca.leaf(t, ecKey(t), nil, "a.example")
	for _, test := range []struct {
		name   string
		change func()
		want   string
	}{
		{"gone", func() { _ = os.Remove(filepath.Join(w.dir, "a.crt")) }, "a.crt does not exist"},
		{"half written", func() { write(t, filepath.Join(w.dir, "a.crt"), "-----BEGIN CERTIFICATE-----\nMII") }, "a.crt is not a PEM file"},
		{"another's key", func() { w.put("a", good); write(t, filepath.Join(w.dir, "a.key"), keyPEM(t, ecKey(t))) }, "a.key is not the key"},
		{"expired", func() { w.put("a", w.ca.leaf(t, ecKey(t), expired(time.Minute), "a.example")) }, "a.crt: it expired on"},
	} {
		test.change()
		w.Look()
		w.Look() // says nothing new
		s := w.Status()[0]
		if !strings.Contains(s.Error, test.want) || s.ErrorAt == nil || s.Days != 89 {
			t.Errorf("%s: %+v, want %q", test.name, s, test.want)
		}
		if n := strings.Count(w.log.String(), test.want); n != 1 {
			t.Errorf("%s: told %d times in the log:\n%s", test.name, n, w.log)
		}
		if now := d.shown("a.example"); now != before {
			t.Errorf("%s: certificate %s is served instead of %s", test.name, now, before)
		}
	}
	if w.refusedChanges() != 4 {
		t.Errorf("%d counted", w.refusedChanges())
	}
	w.put("a", good)
	w.Look()
	if now := d.shown("a.example"); now != good.Leaf.SerialNumber.String() || w.Status()[0].Error != "" {
		t.Errorf("once it is good again, %s is served: %+v", now, w.Status()[0])
	}
	w.put("a", good, w.ca.Raw)
	w.Look() // a change of the chain alone is one
	_, state, err := d.call(w.client("a.example"))
	if err != nil || len(state.PeerCertificates) != 2 {
		t.Errorf("%v, %d certificates", err, len(state.PeerCertificates))
	}
}

func (w *world) refusedChanges() uint64 { return w.Keeper.refused.Value() }

func TestACertificateOfTomorrowIsUsedWhenItsTimeHasCome(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(nil, w.issue("a", "a.example"))))
	before := d.shown("a.example")
	w.put("a", w.ca.leaf(t, ecKey(t), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, "a.example"))
	w.Look()
	if d.shown("a.example") != before || !strings.Contains(w.Status()[0].Error, "it is not valid before") {
		t.Errorf("%+v", w.Status()[0])
	}
	w.clock.Advance(2 * time.Hour)
	w.Look()
	if d.shown("a.example") == before || w.Status()[0].Error != "" {
		t.Errorf("%+v", w.Status()[0])
	}
}

func TestWhenNothingBetterIsLeftAnExpiredCertificateIsReplacedByAnotherOne(t *testing.T) {
	w := newWorld(t)
	w.compile(settings(nil, w.put("a", w.ca.leaf(t, ecKey(t), expired(time.Hour), "a.example"))))
	w.put("a", w.ca.leaf(t, ecKey(t), expired(time.Minute), "a.example"))
	w.Look()
	if s := w.Status()[0]; s.Error != "" || s.Days != -1 || len(s.Warnings) != 1 {
		t.Errorf("%+v", s)
	}
}

func TestAReloadBesideABadFileKeepsWhatIsServed(t *testing.T) {
	w := newWorld(t)
	l := settings(nil, w.issue("a", "a.example"))
	old := w.compile(l)
	d := w.open(old)
	before := d.shown("a.example")
	write(t, filepath.Join(w.dir, "a.crt"), "nonsense")
	next, err := w.Compile("main", l, w.dir)
	if err != nil {
		t.Fatalf("the document is refused for a file that it does not change: %v", err)
	}
	old.Retire()
	next.Live()
	d.terms.Store(next)
	if d.shown("a.example") != before {
		t.Error("another certificate is served")
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

func TestStatusAndMetricsTellWhenCertificatesExpire(t *testing.T) {
	w := newWorld(t)
	c := w.ca.leaf(t, ecKey(t), nil, "a.example", "*.a.example", "192.0.2.1")
	w.compile(settings(nil, w.put("a", c), w.put("r", w.ca.leaf(t, rsaKey(), nil, "r.example"))))
	w.clock.Advance(80 * day)
	list := w.Status()
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	s := list[0]
	if s.Source != "file" || s.Cert != filepath.Join(w.dir, "a.crt") || s.Key != filepath.Join(w.dir, "a.key") || s.Days != 9 ||
		strings.Join(s.Names, " ") != "a.example *.a.example 192.0.2.1" || s.Issuer != "CN=root" || s.Algorithm != "ECDSA P-256" ||
		s.Serial != c.Leaf.SerialNumber.Text(16) || !s.NotAfter.Equal(c.Leaf.NotAfter) || s.Listeners[0] != "main" ||
		list[1].Algorithm != "RSA 2048" {
		t.Errorf("%+v", s)
	}
	found := false
	w.metrics.Visit(func(*metric.Family, *metric.Series) {}, func(collect func(metric.Emit)) {
		collect(func(name, _ string, _ metric.Type, value float64, labels ...metric.Label) {
			if name == "headgate_certificate_expiry_timestamp_seconds" && value == float64(c.Leaf.NotAfter.Unix()) && labels[0].Value == "main" {
				found = true
			}
		})
	})
	if !found {
		t.Error("no metric tells it")
	}
}

func FuzzParsePair(f *testing.F) {
	ca := authority(f, "root")
	c := ca.leaf(f, ecKey(f), nil, "a.example")
	cert, key := []byte(certPEM(c.Certificate[0], ca.Raw)), []byte(keyPEM(f, c.PrivateKey))
	f.Add(cert, key)
	f.Add(key, cert)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"), []byte{0x30})
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		got, _, f := parsePair(files{"c", "k"}, cert, key, time.Now())
		if (got == nil) == (f == nil) {
			t.Fatalf("%v, %v", got, f)
		}
		if f == nil && (got.Leaf == nil || len(got.Certificate) == 0 || got.PrivateKey == nil) {
			t.Error("incomplete")
		}
	})
}
