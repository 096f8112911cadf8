package revoke

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// maxListFile bounds what a file of lists may cost in memory; the largest public ones have about half of it.
	maxListFile = 64 << 20
	// maxSigners bounds the authorities of one name that a list was held against: someone with an authority of his own
	// could make any number of them.
	maxSigners = 16
)

// list is one authority's revocation list.
type list struct {
	signed  *x509.RevocationList // without its entries
	revoked map[string]struct{}  // serial numbers, big-endian
	scope   scope

	mu      sync.Mutex
	signers map[[32]byte]bool // by public key: whether it signed the list
}

// scope is which certificates a list speaks about (RFC 5280 section 5.2.5).
type scope struct {
	points        []string // of those that name one of these distribution points; nil: of all
	users, issuer bool     // of those that are no authorities; of those that are
}

// parse reads the lists of a file, PEM or DER.
func parse(content []byte) (lists []*list, err error) {
	if !bytes.Contains(content, []byte("-----BEGIN ")) {
		l, err := parseDER(content)
		if err != nil {
			return nil, err
		}
		return []*list{l}, nil
	}
	for rest := content; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "X509 CRL" {
			return nil, fmt.Errorf("a PEM block is %q; write revocation lists (X509 CRL) only", b.Type)
		}
		l, err := parseDER(b.Bytes)
		if err != nil {
			return nil, err
		}
		lists = append(lists, l)
	}
	if len(lists) == 0 {
		return nil, errors.New("there is no whole PEM block in it; write revocation lists in PEM (X509 CRL) or one in DER")
	}
	return lists, nil
}

func parseDER(der []byte) (*list, error) {
	r, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("it is no revocation list: %w", err)
	}
	l := &list{signed: r, revoked: make(map[string]struct{}, len(r.RevokedCertificateEntries)), signers: map[[32]byte]bool{}}
	for i := range r.RevokedCertificateEntries {
		l.revoked[string(r.RevokedCertificateEntries[i].SerialNumber.Bytes())] = struct{}{}
	}
	for _, e := range r.Extensions {
		switch {
		case e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 27}):
			return nil, errors.New("it is a delta list, which speaks only beside the whole one; write the whole one")
		case e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 28}):
			if l.scope, err = parseScope(e.Value); err != nil {
				return nil, err
			}
		case e.Critical: // RFC 5280 section 5.2: it must not be used
			return nil, fmt.Errorf("it has the critical extension %s, which is not known here", e.Id)
		}
	}
	r.RevokedCertificateEntries = nil
	return l, nil
}

// distribution is the extension IssuingDistributionPoint (RFC 5280 section 5.2.5).
type distribution struct {
	Point    distributionPoint `asn1:"optional,tag:0"`
	Users    bool              `asn1:"optional,tag:1"`
	Issuers  bool              `asn1:"optional,tag:2"`
	Reasons  asn1.BitString    `asn1:"optional,tag:3"`
	Indirect bool              `asn1:"optional,tag:4"`
	Others   bool              `asn1:"optional,tag:5"`
}

type distributionPoint struct {
	Names []asn1.RawValue `asn1:"optional,tag:0"`
}

func parseScope(der []byte) (s scope, err error) {
	var d distribution
	if rest, err := asn1.Unmarshal(der, &d); err != nil || len(rest) > 0 {
		return s, errors.New("its extension IssuingDistributionPoint cannot be read")
	}
	if d.Indirect || d.Others || d.Reasons.BitLength > 0 {
		return s, errors.New("it is an indirect list, or one for some reasons only; write the authority's own, whole list")
	}
	s.users, s.issuer = d.Users, d.Issuers
	for _, n := range d.Point.Names {
		if n.Class == asn1.ClassContextSpecific && n.Tag == 6 { // uniformResourceIdentifier
			s.points = append(s.points, string(n.Bytes))
		}
	}
	return s, nil
}

// by reports whether the authority signed the list. It remembers, because signatures are expensive.
func (l *list) by(issuer *x509.Certificate) bool {
	if !bytes.Equal(l.signed.RawIssuer, issuer.RawSubject) {
		return false
	}
	key := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	l.mu.Lock()
	good, known := l.signers[key]
	l.mu.Unlock()
	if known {
		return good
	}
	good = l.signed.CheckSignatureFrom(issuer) == nil
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.signers) < maxSigners {
		l.signers[key] = good
	}
	return good
}

func (l *list) has(cert *x509.Certificate) bool {
	_, ok := l.revoked[string(cert.SerialNumber.Bytes())]
	return ok
}

// covers reports whether the list would name the certificate if it were revoked.
func (l *list) covers(cert *x509.Certificate) bool {
	if cert.IsCA && l.scope.users || !cert.IsCA && l.scope.issuer {
		return false
	}
	if l.scope.points == nil {
		return true
	}
	return slices.ContainsFunc(cert.CRLDistributionPoints, func(p string) bool { return slices.Contains(l.scope.points, p) })
}

// current reports whether the list is the authority's word now. One that does not say when the next will come is.
func (l *list) current(now time.Time) bool {
	next := l.signed.NextUpdate
	return !now.Before(l.signed.ThisUpdate) && (next.IsZero() || now.Before(next))
}

// signed holds lists against the authorities of their names that are known. The list of an authority in between, which
// clients send along, can be held against it only then.
func signed(lists []*list, authorities []*x509.Certificate) error {
	for _, l := range lists {
		named := false
		good := slices.ContainsFunc(authorities, func(a *x509.Certificate) bool {
			named = named || bytes.Equal(l.signed.RawIssuer, a.RawSubject)
			return l.by(a)
		})
		if named && !good {
			return fmt.Errorf("the list claims to be of %s, which did not sign it", l.signed.Issuer)
		}
	}
	return nil
}
