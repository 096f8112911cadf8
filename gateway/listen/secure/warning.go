package secure

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math"
	"slices"
	"time"
)

// day is what days to expiry are counted in.
const day = 24 * time.Hour

// warnings says what clients may hold against a certificate that is served all the same.
func warnings(chain []*x509.Certificate, now time.Time) (all []string) {
	leaf := chain[0]
	if when := validity(leaf, now); when != "" {
		all = append(all, when)
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		all = append(all, "it names no host (subjectAltName), so no client believes it, and it is only served to those that ask for no other")
	}
	if leaf.IsCA && leaf.BasicConstraintsValid && len(chain) > 1 {
		all = append(all, "it is an authority's own certificate")
	}
	if len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		all = append(all, "it is not for servers (extended key usage)")
	}
	switch leaf.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		all = append(all, fmt.Sprintf("it is signed with %s, which clients no longer believe", leaf.SignatureAlgorithm))
	}
	for i, c := range chain[1:] {
		if c.CheckSignature(chain[i].SignatureAlgorithm, chain[i].RawTBSCertificate, chain[i].Signature) != nil {
			all = append(all, fmt.Sprintf("certificate number %d of its file (%s) did not issue number %d (%s): the chain is in the wrong order, "+
				"or incomplete, and some clients will not find their way", i+2, c.Subject, i+1, chain[i].Subject))
			break
		}
		if when := validity(c, now); when != "" {
			all = append(all, fmt.Sprintf("of its chain, %s: %s", c.Subject, when))
		}
	}
	return all
}

// validity says that a certificate is not valid now; "": it is.
func validity(c *x509.Certificate, now time.Time) string {
	switch {
	case now.After(c.NotAfter):
		return fmt.Sprintf("it expired on %s; renew it", c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Sprintf("it is not valid before %s; if that is past, the clock of this machine is slow",
			c.NotBefore.UTC().Format(time.RFC3339))
	}
	return ""
}

// describe fills what a status says of a certificate.
func describe(s *Status, leaf *x509.Certificate, now time.Time) {
	s.Names, s.Issuer, s.Serial = namesOf(leaf), leaf.Issuer.String(), leaf.SerialNumber.Text(16)
	s.NotBefore, s.NotAfter, s.Days = leaf.NotBefore.UTC(), leaf.NotAfter.UTC(), DaysLeft(leaf.NotAfter, now)
	s.Algorithm = algorithm(leaf)
}

// DaysLeft returns the whole days until t, rounded down; negative when it has passed.
func DaysLeft(t, now time.Time) int { return int(math.Floor(float64(t.Sub(now)) / float64(day))) }

// algorithm names a certificate's key.
func algorithm(leaf *x509.Certificate) string {
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	}
	return leaf.PublicKeyAlgorithm.String()
}
