package secure

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"time"
)

// files are the paths of a certificate and its key.
type files struct{ Cert, Key string }

// pair is a certificate that is kept up to date with its files. The keeper's lock guards it.
type pair struct {
	files
	users  int // terms that use it
	seen   [sha256.Size]byte
	served *served
	chain  []*x509.Certificate
	trouble
}

// trouble is why what stands in a file now is not used; the zero value: it is.
type trouble struct {
	fault *fault
	since time.Time
}

// served is one certificate as it is shown to clients. It is immutable.
type served struct {
	certificate *tls.Certificate
	serves      func(host string) bool // whether it covers a host; made once for all connections
}

func serve(c *tls.Certificate) *served {
	leaf := c.Leaf
	if leaf == nil && len(c.Certificate) > 0 {
		leaf, _ = x509.ParseCertificate(c.Certificate[0]) // a source breaks its promise; without a leaf nothing is covered
	}
	return &served{certificate: c, serves: func(host string) bool { return leaf != nil && covers(leaf, host) }}
}

// read looks at the files. Nothing changes when they have not, unless their trouble may have passed by itself.
func (p *pair) read(now time.Time) (changed bool) {
	cert, certErr := readFile(p.Cert)
	key, keyErr := readFile(p.Key)
	h := sha256.New()
	for _, part := range [][]byte{cert, {0}, key, {0}, message(certErr), {0}, message(keyErr)} {
		h.Write(part)
	}
	seen := [sha256.Size]byte(h.Sum(nil))
	if seen == p.seen && (p.fault == nil || !p.fault.passing) {
		return false
	}
	p.seen = seen
	switch {
	case certErr != nil:
		return p.fails(faulty(inCert, "%s", certErr), now)
	case keyErr != nil:
		return p.fails(faulty(inKey, "%s", keyErr), now)
	}
	c, _, f := parsePair(p.files, cert, key, now)
	if f == nil && p.served != nil && validity(p.served.certificate.Leaf, now) == "" {
		if when := validity(c.Leaf, now); when != "" { // the one in use is better
			f = &fault{part: inCert, message: p.Cert + ": " + when, passing: true}
		}
	}
	if f != nil {
		return p.fails(f, now)
	}
	p.chain = p.chain[:0:0]
	for _, der := range c.Certificate {
		if x, err := x509.ParseCertificate(der); err == nil { // they all have been parsed before
			p.chain = append(p.chain, x)
		}
	}
	p.served, p.trouble = serve(c), trouble{}
	return true
}

// fails notes why the old certificate stays in use. It reports whether that is news.
func (p *pair) fails(f *fault, now time.Time) (news bool) {
	if p.fault != nil && p.fault.message == f.message {
		return false
	}
	p.trouble = trouble{f, now}
	return true
}

func message(err error) []byte {
	if err == nil {
		return nil
	}
	return []byte(err.Error())
}

// status describes the certificate that is in use.
func (p *pair) status(now time.Time) Status {
	s := Status{Source: "file", Cert: p.Cert, Key: p.Key}
	describe(&s, p.chain[0], now)
	s.Warnings = warnings(p.chain, now)
	if p.fault != nil {
		since := p.since
		s.Error, s.ErrorAt = p.fault.message, &since
	}
	return s
}

// bundle is a file of authorities that is kept up to date. The keeper's lock guards it.
type bundle struct {
	path        string
	users       int
	seen        [sha256.Size]byte
	authorities []*x509.Certificate
	trouble
}

// read looks at the file.
func (b *bundle) read(now time.Time) (changed bool) {
	content, err := readFile(b.path)
	seen := sha256.Sum256(append(content, message(err)...))
	if seen == b.seen {
		return false
	}
	b.seen = seen
	var authorities []*x509.Certificate
	if err == nil {
		if authorities, err = parseCertificates(content); err != nil {
			err = faulty(inCert, "%s %s", b.path, err)
		}
	}
	if err != nil {
		b.trouble = trouble{faulty(inCert, "%s", err), now}
		return true
	}
	b.authorities, b.trouble = authorities, trouble{}
	return true
}
