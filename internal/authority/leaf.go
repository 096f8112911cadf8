package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxNames bounds the names of one certificate: it is sent in every handshake.
const maxNames = 100

// CheckName says whether the authority may issue for a name or an address, and if not, what it issues for.
func CheckName(name string) error {
	if a, err := netip.ParseAddr(name); err == nil {
		for _, r := range ranges() {
			if r.Contains(net.IP(a.Unmap().AsSlice())) {
				return nil
			}
		}
		return fmt.Errorf("%s is not a private address; the internal authority speaks for loopback, private and link-local addresses only", name)
	}
	host := strings.TrimPrefix(strings.ToLower(name), "*.")
	if host == "" || len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || strings.HasPrefix(host, ".") ||
		strings.HasSuffix(host, ".") || strings.Contains(host, "..") {
		return fmt.Errorf("%q is neither a host name nor an address", name)
	}
	for _, d := range domains() {
		if host == d && host == strings.ToLower(name) || strings.HasSuffix(host, "."+d) || strings.HasSuffix(strings.ToLower(name), "*."+d) {
			return nil
		}
	}
	return fmt.Errorf("%q is a public name, for which the internal authority does not speak: its root may be trusted without risk because it "+
		"cannot. Use localhost, a name below .%s, or a private address", name, strings.Join(domains(), ", ."))
}

// Leaf is a certificate for some names that renews itself when it is asked for. It is safe for concurrent use.
type Leaf struct {
	authority *Authority
	dns       []string
	addresses []net.IP

	current  atomic.Pointer[issued]
	renewing sync.Mutex
}

type issued struct {
	certificate *tls.Certificate
	renew       time.Time
}

// Leaf issues a certificate for the names and addresses.
func (a *Authority) Leaf(names []string) (*Leaf, error) {
	if len(names) == 0 || len(names) > maxNames {
		return nil, fmt.Errorf("the internal authority: %d names; a certificate has 1 to %d", len(names), maxNames)
	}
	l := &Leaf{authority: a}
	var wrong []error
	for _, name := range names {
		if err := CheckName(name); err != nil {
			wrong = append(wrong, err)
		} else if ip := net.ParseIP(name); ip != nil {
			l.addresses = append(l.addresses, ip)
		} else {
			l.dns = append(l.dns, strings.ToLower(name))
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return l, l.issue()
}

// Certificate returns the certificate that is valid now. Past half of its life the first caller has a new one issued, which
// takes about a tenth of a millisecond; the others get the one before meanwhile.
func (l *Leaf) Certificate() (*tls.Certificate, error) {
	c := l.current.Load()
	now := l.authority.clock.Now()
	if now.Before(c.renew) {
		return c.certificate, nil
	}
	if now.Before(c.certificate.Leaf.NotAfter) {
		if !l.renewing.TryLock() {
			return c.certificate, nil
		}
	} else {
		l.renewing.Lock() // nobody is helped by what has ended
	}
	defer l.renewing.Unlock()
	if again := l.current.Load(); now.Before(again.renew) {
		return again.certificate, nil
	}
	if err := l.issue(); err != nil {
		return nil, err
	}
	return l.current.Load().certificate, nil
}

func (l *Leaf) issue() error {
	now := l.authority.clock.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	number, err := serial()
	if err != nil {
		return err
	}
	end := now.Add(leafLife)
	if root := l.authority.root.NotAfter; end.After(root) {
		end = root
	}
	if !now.Before(end) {
		return fmt.Errorf("the internal authority's root ended %s; remove %s, start again and trust the new root",
			end.Format(time.RFC3339), l.authority.folder)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{Organization: []string{"Headgate"}},
		NotBefore: now.Add(-backdate), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		DNSNames: l.dns, IPAddresses: l.addresses,
	}, l.authority.root, &key.PublicKey, l.authority.key)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	l.current.Store(&issued{&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, now.Add(leafRenewal)})
	return nil
}
