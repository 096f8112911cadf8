package exchange

import (
	"crypto/x509"
	"time"
)

// TLS is what a client's encrypted connection is like. It is immutable and shared by all its exchanges.
type TLS struct {
	Version     string // "TLS 1.3"
	Cipher      string // by its IANA name
	ServerName  string // asked for by SNI, lower case, without a dot at the end; "": none
	ALPN        string // "h2", "http/1.1", "h3"; "": none agreed
	Resumed     bool   // from a ticket
	Early       bool   // the request came as 0-RTT data and may be a replay (RFC 8470)
	Certificate *Certificate
	// Serves reports whether the certificate that the client was shown is for the host, too: a request for another one than
	// ServerName that it is not for is misdirected (RFC 9110 section 15.5.20). nil: every host.
	Serves func(host string) bool
}

// Certificate is a client's certificate whose chain has been verified.
type Certificate struct {
	Subject    string // distinguished name (RFC 2253)
	Issuer     string
	Serial     string // hexadecimal
	DNS        []string
	Emails     []string
	URIs       []string // such as spiffe://...
	IPs        []string
	Thumbprint string // SHA-256 of the DER, base64url without padding: x5t#S256 (RFC 8705 section 3.1)
	NotAfter   time.Time
	Chain      []*x509.Certificate // from the client's up to a trusted authority's
}
