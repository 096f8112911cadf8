package tcp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestTheNameItselfGoesBeforeTheLongestWildcard(t *testing.T) {
	var table Table[string]
	for _, name := range []string{"a.example", "*.example", "*.b.example", "x.b.example.", "*.C.Example"} {
		if err := table.Add(name, name); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"a.example": "a.example", "z.example": "*.example", "b.example": "*.example", "y.b.example": "*.b.example", "x.b.example": "x.b.example.",
		"y.x.b.example": "*.b.example", "q.c.example": "*.C.Example", "example": "", "": "", ".example": "", "..example": "", "com": "",
	} {
		if got, ok := table.Find(name); got != want || ok != (want != "") {
			t.Errorf("%q leads to %q, %v; want %q", name, got, ok, want)
		}
	}
	for _, name := range []string{
		"", "*", "*.", "a..b", "a b", "https://a", "a:1", "*.*.a", "a.*", "10.0.0.1", "::1",
		strings.Repeat("a.", 127) + "a.a", "A.example", "*.EXAMPLE",
	} {
		if err := table.Add(name, name); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

// certificate makes one of its own authority.
func certificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true}
	c.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func pool(c tls.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.Leaf)
	return p
}
