package pool

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
)

// Identity is whom we believe and who we are towards targets over TLS, read from the document and the files that it
// names. It is immutable: when a file changes, a new one takes its place, and with it new pools and a new session cache.
type Identity struct {
	model    *model.UpstreamTLS
	base     *tls.Config // of every target, without its name and protocols
	name     string      // asked for and verified instead of the target's host; "": that
	insecure bool
	own      *x509.Certificate // ours; nil: there is none
	problem  string            // why a newer version of its files is not used; "": it is
	stamps   []stamp
}

const (
	// maxSessions bounds the sessions kept for resumption: one for each name that targets are asked by is enough.
	maxSessions = 64
	// maxPEM bounds a file with certificates, so that a wrong path does not fill the memory.
	maxPEM = 8 << 20
)

// stamp is what a file looked like when it was read.
type stamp struct {
	path     string
	modified time.Time
	size     int64
}

// files reads files and remembers what they looked like.
type files struct{ stamps []stamp }

// read returns a file's content. It is stamped before it is read: a change in between is noticed the next time.
func (f *files) read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	f.stamps = append(f.stamps, stampOf(path, info))
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	case info.Size() > maxPEM:
		return nil, fmt.Errorf("%s has %d bytes, which is no PEM file of certificates; at most %d", path, info.Size(), maxPEM)
	}
	return os.ReadFile(path)
}

func stampOf(path string, info os.FileInfo) stamp {
	if info == nil {
		return stamp{path: path}
	}
	return stamp{path, info.ModTime(), info.Size()}
}

// changed reports whether a file looks different from when it was read.
func (id *Identity) changed() bool {
	for _, s := range id.stamps {
		info, err := os.Stat(s.path)
		if err != nil {
			info = nil
		}
		if now := stampOf(s.path, info); now.size != s.size || !now.modified.Equal(s.modified) {
			return true
		}
	}
	return false
}

// ReadIdentity reads the document's tls section; m may be nil. Errors point into the upstream's document. The stamps are
// there even when it fails, so that whoever waits for a file to become right learns when to look again.
func ReadIdentity(m *model.UpstreamTLS) (*Identity, error) {
	if m == nil {
		m = new(model.UpstreamTLS)
	}
	var f files
	var errs []error
	id := &Identity{model: m, name: m.ServerName, insecure: m.Insecure}
	id.base = &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: m.Insecure, ClientSessionCache: tls.NewLRUClientSessionCache(maxSessions),
	}
	if len(m.CA) > 0 {
		id.base.RootCAs = x509.NewCertPool()
		for i, path := range m.CA {
			if err := addAuthorities(id.base.RootCAs, &f, path); err != nil {
				errs = append(errs, decode.At(fmt.Sprintf("tls.ca.%d", i), "%w; name a PEM file of certificates", err))
			}
		}
	}
	if c := m.Certificate; c != nil {
		own, err := readCertificate(&f, c)
		if err != nil {
			errs = append(errs, err)
		} else {
			id.base.Certificates, id.own = []tls.Certificate{own}, own.Leaf
		}
	}
	if len(m.Pins) > 0 {
		pins, err := readPins(m.Pins)
		errs = append(errs, err)
		id.base.VerifyConnection = pins.verify
	}
	id.stamps = f.stamps
	return id, errors.Join(errs...)
}

func addAuthorities(pool *x509.CertPool, f *files, path string) error {
	text, err := f.read(path)
	if err == nil && !pool.AppendCertsFromPEM(text) {
		err = fmt.Errorf("%s holds no certificate", path)
	}
	return err
}

// readCertificate reads our own certificate and its key. Errors name the file and its place, never what is in it.
func readCertificate(f *files, c *model.Certificate) (tls.Certificate, error) {
	chain, err := f.read(c.Cert)
	if err != nil {
		return tls.Certificate{}, decode.At("tls.certificate.cert", "%w; name a PEM file: the certificate, then its intermediates", err)
	}
	key, err := f.read(c.Key)
	if err != nil {
		return tls.Certificate{}, decode.At("tls.certificate.key", "%w; name a PEM file of the private key", err)
	}
	own, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return own, decode.At("tls.certificate", "%s and %s do not go together: %w", c.Cert, c.Key, err)
	}
	return own, nil
}

// pins are SHA-256 hashes of public keys (SubjectPublicKeyInfo), as in RFC 7469.
type pins map[[sha256.Size]byte]bool

func readPins(list []string) (pins, error) {
	p := pins{}
	var errs []error
	for i, s := range list {
		hash, err := base64.StdEncoding.DecodeString(string(bytes.TrimPrefix([]byte(s), []byte("sha256/"))))
		if err != nil || len(hash) != sha256.Size {
			errs = append(errs, decode.At(fmt.Sprintf("tls.pins.%d", i), "%q is not sha256/ and the base64 of 32 bytes", s))
			continue
		}
		p[[sha256.Size]byte(hash)] = true
	}
	return p, errors.Join(errs...)
}

// errPin says that a target's chain is in order and yet none of its keys is one that the document names.
var errPin = errors.New("no public key of the certificate's chain is among the pins")

// verify wants a pinned key in the chain that was verified. Where nothing is verified, only the target's own certificate
// counts: it has proven to have that key, while anybody can send the rest of a chain.
func (p pins) verify(state tls.ConnectionState) error {
	chains := state.VerifiedChains
	if len(chains) == 0 && len(state.PeerCertificates) > 0 {
		chains = [][]*x509.Certificate{state.PeerCertificates[:1]}
	}
	for _, chain := range chains {
		for _, c := range chain {
			if p[sha256.Sum256(c.RawSubjectPublicKeyInfo)] {
				return nil
			}
		}
	}
	return errPin
}

// config returns what a handshake with a target takes. offer are the protocols by their ALPN names (RFC 7301).
func (id *Identity) config(e Endpoint, offer ...string) *tls.Config {
	c := id.base.Clone()
	c.ServerName, c.NextProtos = e.Host, offer
	if id.name != "" {
		c.ServerName = id.name
	}
	return c
}

// Insecure reports whether certificates of targets are not verified.
func (id *Identity) Insecure() bool { return id.insecure }

// Problem says why a newer version of the identity's files is not used; "": it is.
func (id *Identity) Problem() string { return id.problem }

// Renewed reads the files again if they look different; nil: they do not. With an error one of them is wrong, and the
// identity is what it was, except that it knows the problem and when to look again.
func (id *Identity) Renewed() (*Identity, error) {
	if !id.changed() {
		return nil, nil
	}
	next, err := ReadIdentity(id.model)
	if err == nil {
		return next, nil
	}
	kept := *id
	kept.stamps, kept.problem = next.stamps, explain(err)
	return &kept, err
}

// explain puts the problems into one line.
func explain(err error) (s string) {
	for _, e := range decode.Flatten(err) {
		if s != "" {
			s += "; "
		}
		s += e.Error()
	}
	return s
}

// CertificateStatus is what operators see of the certificate that an upstream shows to its targets.
type CertificateStatus struct {
	Subject  string    `json:"subject,omitempty"`
	NotAfter time.Time `json:"not_after"`
	Days     int       `json:"days_left"` // negative: it has expired
}

// Certificate describes our own certificate; nil: there is none.
func (id *Identity) Certificate(now time.Time) *CertificateStatus {
	own := id.own
	if own == nil {
		return nil
	}
	return &CertificateStatus{
		Subject: own.Subject.String(), NotAfter: own.NotAfter,
		Days: int(own.NotAfter.Sub(now).Hours() / 24),
	}
}
