package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"headgate/config/model"
)

// Source is where certificates come from besides the files of the document: an authority that is asked by ACME, or the
// node's own. It must be safe for concurrent use and answer at once: a handshake waits for it.
type Source interface {
	// Kind names it for operators: "acme", "internal".
	Kind() string
	// Names are those that it has, or is going to have, certificates for: host names, *.example.com, or addresses. They do not
	// change; without certificates in files, the first is served to clients that ask for no name, or an unknown one.
	Names() []string
	// Certificate returns the certificate for hello.ServerName, which one of Names fits, with Leaf set. It may choose
	// between several by what the client supports. nil and no error: there is none yet.
	Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// Status describes the certificates that it has.
	Status() []Status
}

// Challenger is a Source by which an authority can prove control of a name in a handshake (RFC 8737): listeners with one
// speak acme-tls/1, and a client that speaks nothing else is shown what Challenge returns, for the name that it asks for.
type Challenger interface {
	Source
	Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
}

// ChallengeProtocol is the ALPN protocol of RFC 8737.
const ChallengeProtocol = "acme-tls/1"

// Extension is what other packages add to the terms of one listener. Every field may be nil.
type Extension struct {
	Sources []Source
	// Verify has the last word about a client's certificate, whose chains have been verified; it is asked at resumption,
	// too. It may wait no longer than the handshake. An error that is ErrRevoked is counted as such.
	Verify func(chains [][]*x509.Certificate) error
	Live   func()       // the document has become the live one: what runs in the background may begin
	Close  func() error // it is outdated, or was refused
}

// Extend makes the extension of a listener's terms while its document is compiled: nothing may run yet. Its error is a
// problem of the document; one made by decode.At points into listeners.NAME.tls. The paths in t can be opened as they are.
type Extend func(listener string, t *model.ListenerTLS) (Extension, error)

// ErrRevoked says that a client's certificate has been revoked.
var ErrRevoked = errors.New("the certificate has been revoked")

// Status is what operators see of one certificate.
type Status struct {
	Listeners []string   `json:"listeners,omitempty"`
	Source    string     `json:"source"` // "file", "acme", "internal"
	Cert      string     `json:"cert,omitempty"`
	Key       string     `json:"key,omitempty"`
	Names     []string   `json:"names"`
	Issuer    string     `json:"issuer,omitempty"`
	Serial    string     `json:"serial,omitempty"`    // hexadecimal
	Algorithm string     `json:"algorithm,omitempty"` // of the key: "ECDSA P-256"
	NotBefore time.Time  `json:"not_before,omitzero"`
	NotAfter  time.Time  `json:"not_after,omitzero"`
	Days      int        `json:"days_to_expiry"`     // whole ones, rounded down; negative: expired
	Warnings  []string   `json:"warnings,omitempty"` // about the certificate that is served
	Error     string     `json:"error,omitempty"`    // why a newer one is not
	ErrorAt   *time.Time `json:"error_at,omitempty"`
}

// Describe fills what a status says of a certificate: everything but where it comes from, warnings and errors.
func Describe(s *Status, leaf *x509.Certificate, now time.Time) { describe(s, leaf, now) }
