// Package proxyheader reads the PROXY protocol, versions 1 and 2, by which a load balancer in front tells whose connection
// it passes on (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, below "the document").
package proxyheader

import (
	"bytes"
	"net/netip"
)

// Header is what stands in front of a connection.
type Header struct {
	Version     uint8 // 1 or 2
	Source      netip.AddrPort
	Destination netip.AddrPort
	// Own says that the header names nobody: it is the balancer's own connection (LOCAL), or the addresses are of a kind
	// that it cannot tell (UNKNOWN, UNSPEC) or that is no address of a network (AF_UNIX). Those of the socket stand.
	Own bool

	Authority string // the name that the client asked the balancer for by SNI; "": not told
	ALPN      string // what they agreed on; "": not told
	UniqueID  string // opaque, at most 128 bytes; "": none
}

const (
	// maxV1 is the longest header of version 1 with its CRLF: the document's own bound, section 2.1. A sender that goes on
	// without a line end is stopped there.
	maxV1 = 107
	// MaxHeader is the longest header of version 2 that is read, fixed part, addresses and TLVs together: without a bound a
	// sender could announce 64 KiB and make every connection hold them. What balancers send is below 1 KiB.
	MaxHeader = 4 << 10
	// maxUniqueID is the document's bound, section 2.2.5.
	maxUniqueID = 128

	v1Prefix    = "PROXY "
	v2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	v2Fixed     = len(v2Signature) + 4
)

// Cause names what is wrong with a header, in metrics and logs.
type Cause string

// The causes for which a connection is closed.
const (
	Missing     Cause = "missing"     // something else came first
	Malformed   Cause = "malformed"   // it begins like a header and is none
	TooLong     Cause = "too_long"    // beyond 107 bytes of version 1, or MaxHeader of version 2
	Unsupported Cause = "unsupported" // a version, command or transport that a listener of TCP has no use for
	Checksum    Cause = "checksum"    // its CRC32C TLV does not fit
	Timeout     Cause = "timeout"     // it did not come in time
	Closed      Cause = "closed"      // the connection ended inside it
)

// Error says why a header is not acceptable.
type Error struct {
	Cause Cause
	Text  string // for the operator
}

// Error returns the cause and what was found.
func (e *Error) Error() string { return "PROXY header " + string(e.Cause) + ": " + e.Text }

func fault(cause Cause, text string) error { return &Error{cause, text} }

// Parse reads the header at the beginning of b. n is how many bytes it takes; 0 with a nil error: it goes on behind b. The
// error is an *Error; with cause Missing what stands there is something else. Strings of the Header are copies.
func Parse(b []byte) (h Header, n int, err error) {
	switch {
	case begins(b, v2Signature):
		if len(b) < len(v2Signature) {
			return Header{}, 0, nil
		}
		return parseV2(b)
	case begins(b, v1Prefix):
		if len(b) < len(v1Prefix) {
			return Header{}, 0, nil
		}
		return parseV1(b)
	}
	return Header{}, 0, fault(Missing, "the connection begins with something else")
}

// Begun reports whether b, which is the beginning of a header as far as it goes, cannot be anything else any more.
func Begun(b []byte) bool {
	return bytes.HasPrefix(b, []byte(v1Prefix)) || bytes.HasPrefix(b, []byte(v2Signature))
}

// begins reports whether b begins with the prefix, or is a piece of it.
func begins(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}
