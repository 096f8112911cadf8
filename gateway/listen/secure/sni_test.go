package secure

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headgate/config/model"
)

func TestTheNameThatAClientAsksForDecidesItsCertificate(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(nil,
		w.issue("first", "first.example", "www.first.example"),
		w.issue("exact", "a.wild.example"),
		w.issue("wild", "*.wild.example"),
		w.issue("idn", "xn--bcher-kva.example"),
	)))
	for asked, shown := range map[string]string{
		"first.example":         "first.example",
		"www.first.example":     "first.example",
		"WWW.First.Example":     "first.example",
		"a.wild.example":        "a.wild.example",
		"b.wild.example":        "*.wild.example",
		"A.WILD.example":        "a.wild.example",
		"a.b.wild.example":      "first.example", // a wildcard stands for one label
		"wild.example":          "first.example", // and not for none
		"xn--bcher-kva.example": "xn--bcher-kva.example",
		"unknown.example":       "first.example",
		"":                      "first.example",
		"127.0.0.1":             "first.example", // an address is not sent
	} {
		c := w.client(asked)
		c.InsecureSkipVerify = true
		_, state, err := d.call(c)
		if err != nil {
			t.Fatalf("%q: %v", asked, err)
		}
		if got := state.PeerCertificates[0].DNSNames[0]; got != shown {
			t.Errorf("%q is shown the certificate for %s, want %s", asked, got, shown)
		}
	}
}

func TestAClientGetsTheKindOfCertificateThatItCanUse(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(nil,
		w.put("rsa", w.ca.leaf(t, rsaKey(), nil, "both.example")),
		w.put("ecdsa", w.ca.leaf(t, ecKey(t), nil, "both.example", "one.example")),
	)))
	rsaOnly := func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	}
	for _, test := range []struct {
		name   string
		client func(*tls.Config)
		want   x509.PublicKeyAlgorithm
	}{
		{"both.example", func(*tls.Config) {}, x509.ECDSA}, // it costs less
		{"both.example", rsaOnly, x509.RSA},
		{"", func(*tls.Config) {}, x509.ECDSA}, // of the first certificate's name
		{"", rsaOnly, x509.RSA},
		{"unknown.example", rsaOnly, x509.RSA},
		{"one.example", func(*tls.Config) {}, x509.ECDSA},
	} {
		c := w.client(test.name)
		c.InsecureSkipVerify = true
		test.client(c)
		_, state, err := d.call(c)
		if err != nil {
			t.Fatalf("%q: %v", test.name, err)
		}
		if got := state.PeerCertificates[0].PublicKeyAlgorithm; got != test.want {
			t.Errorf("%q: %s, want %s", test.name, got, test.want)
		}
	}
	c := w.client("one.example")
	rsaOnly(c)
	if _, _, err := d.call(c); err == nil {
		t.Error("a name without an RSA certificate and a client that knows nothing else")
	}
	until(t, "it is counted", func() bool { return w.counted(causeCipher) == 1 })
}

func TestStrictSNIRefusesOtherNamesWithTheirAlert(t *testing.T) {
	w := newWorld(t)
	d := w.open(w.compile(settings(func(t *model.ListenerTLS) { t.StrictSNI = true },
		w.issue("a", "a.example"), w.issue("w", "*.w.example"))))
	for asked, ok := range map[string]bool{
		"a.example": true, "A.EXAMPLE": true, "x.w.example": true, "x.y.w.example": false, "b.example": false, "": false,
	} {
		want := w.counted(causeUnknown)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := w.client(asked)
			c.InsecureSkipVerify, c.MaxVersion = true, version
			_, _, err := d.call(c)
			if ok != (err == nil) || !ok && !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%q with %s: %v", asked, tls.VersionName(version), err)
			}
		}
		if !ok {
			want += 2
		}
		until(t, "it is counted: "+asked, func() bool { return w.counted(causeUnknown) == want })
	}
}

func TestStrictSNIHoldsForResumedSessions(t *testing.T) {
	w := newWorld(t)
	loose := settings(nil, w.issue("a", "a.example"))
	strict := settings(func(t *model.ListenerTLS) { t.StrictSNI = true }, loose.TLS.Certificates...)
	d := w.open(w.compile(loose))
	c := w.client("b.example")
	c.InsecureSkipVerify, c.ClientSessionCache = true, tls.NewLRUClientSessionCache(1)
	for range 2 {
		if _, _, err := d.call(c); err != nil {
			t.Fatal(err)
		}
	}
	d.terms.Store(w.compile(strict))
	if _, _, err := d.call(c); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a session of before: %v", err)
	}
}

func TestWhatACertificateCovers(t *testing.T) {
	leaf := &x509.Certificate{DNSNames: []string{"a.example", "*.W.example", "xn--bcher-kva.example", "*"},
		IPAddresses: []net.IP{net.ParseIP("192.0.2.7"), net.ParseIP("2001:db8::1")}}
	for host, want := range map[string]bool{
		"a.example": true, "A.Example.": true, "a.example:8443": true, "b.example": false, "xa.example": false,
		"x.w.example": true, "w.example": false, "x.y.w.example": false, ".w.example": false, "x.w.example.:443": true,
		"bücher.example": true, "BÜCHER.example": true, "192.0.2.7": true, "192.0.2.7:443": true, "192.0.2.8": false,
		"[2001:db8::1]": true, "[2001:db8::1]:443": true, "2001:db8::1": true, "[2001:db8::2]": false, "": false, ":": false, "localhost": false,
		"\x00": false, "[": false, "]": false, "a.example\x00": false, "*.w.example": true, "@.example": false,
	} {
		if got := covers(leaf, host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { covers(leaf, "X.w.example:8443"); covers(leaf, "z.example") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What we say of a name is what clients, by the standard library, say of it.
func TestCoverageIsThatOfTheStandardLibrary(t *testing.T) {
	label := rapid.StringMatching(`[a-cA-C]{1,2}`)
	name := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(label, 1, 3).Draw(t, "labels"), ".") })
	rapid.Check(t, func(t *rapid.T) {
		leaf := &x509.Certificate{}
		for range rapid.IntRange(0, 3).Draw(t, "names") {
			n := name.Draw(t, "name")
			if rapid.Bool().Draw(t, "wild") {
				n = "*." + n
			}
			leaf.DNSNames = append(leaf.DNSNames, n)
		}
		host := name.Draw(t, "host")
		if got, want := covers(leaf, host), leaf.VerifyHostname(host) == nil; got != want {
			t.Fatalf("%v of %q: %v, want %v", host, leaf.DNSNames, got, want)
		}
	})
}

func FuzzCovers(f *testing.F) {
	leaf := &x509.Certificate{DNSNames: []string{"a.example", "*.w.example"}, IPAddresses: []net.IP{net.ParseIP("::1")}}
	for _, s := range []string{"a.example:1", "[::1]:2", "x.w.example.", "é", ":", "[]", "[::1%eth0]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		valid := strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789-.:[]") == "" // wires refuse others
		if valid && covers(leaf, host) && leaf.VerifyHostname(strings.TrimSuffix(normal(hostname(host)), ".")) != nil {
			t.Errorf("%q is not covered", host)
		}
	})
}

func TestNamesOfSourcesAreChecked(t *testing.T) {
	for name, ok := range map[string]bool{
		"a.example": true, "*.a.example": true, "localhost": true, "192.0.2.1": true, "::1": true, "xn--bcher-kva.example": true,
		"*.example": false, "a.*.example": false, "*": false, "": false, ".a": false, "a..b": false, "a b": false, "é.example": false,
		strings.Repeat("a", 254): false,
	} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
