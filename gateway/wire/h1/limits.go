// Package h1 is HTTP/1.1 (RFC 9110, RFC 9112) for both sides: strict heads and framing parsed from byte slices, and the
// two drivers that feed them, a goroutine for each client connection (server.go) and calls on upstream connections
// (client.go).
package h1

import (
	"time"

	"headgate/gateway/exchange"
)

// Limits bound what one peer may cost. Those of a listener come from the document.
type Limits struct {
	Head        int           // bytes of a head, and of a trailer section
	Fields      int           // header fields in a head
	Target      int           // bytes of a request target
	Body        int64         // bytes of a request body; 0: any
	HeadTime    time.Duration // for a head, from its first byte (slowloris)
	IdleTime    time.Duration // between two requests
	BodyTime    time.Duration // without progress of a body, in either direction
	MinBodyRate int64         // bytes per second of a request body, on average after rateGrace
	Requests    int           // on one connection; 0: any
}

const (
	// maxChunkLine bounds a chunk-size line with its extensions, which nobody needs and floods are made of.
	maxChunkLine = 256
	// maxChunkDigits keeps a chunk size within 60 bits: larger ones are attempts at overflowing somebody's counter.
	maxChunkDigits = 15
	// maxLengthDigits does the same for Content-Length.
	maxLengthDigits = 18
	// maxInformational stops an upstream that floods the client with 1xx replies.
	maxInformational = 16
	// rateGrace is how long a request body may be slow before MinBodyRate holds.
	rateGrace = 8 * time.Second
	// lingerBytes and lingerTime bound what is read and thrown away from a client that is still sending when its answer
	// has been written, so that it gets to read the answer (RFC 9112 section 9.6) and yet cannot hold us.
	lingerBytes = 256 << 10
	lingerTime  = 2 * time.Second
	// freshTime is how long a connection that has just been opened may wait with its first request once a drain has begun.
	freshTime = time.Second
)

// Error is a message that is not acceptable: a code for the peer and why.
type Error struct {
	Code   exchange.Code
	Reason string
}

// Error returns the code and the reason.
func (e *Error) Error() string { return e.Code.Name + ": " + e.Reason }

func bad(reason string) *Error { return &Error{exchange.BadRequest, reason} }

// What is wrong with a message. The texts reach the client as the problem's detail.
var (
	errBareCR         = bad("A CR stands without LF.")
	errBareLF         = bad("A line ends with LF instead of CRLF.")
	errEmptyLine      = bad("The request begins with more than one empty line.")
	errMethod         = bad("The method is not a token.")
	errRequestLine    = bad("The request line is not: method SP target SP version.")
	errTarget         = bad("The request target is not valid.")
	errTargetForm     = bad("This form of request target does not go with this method.")
	errTargetScheme   = bad("The scheme of the request target is not http or https.")
	errVersion        = bad("The version is not HTTP/1.1 or HTTP/1.0.")
	errMajorVersion   = &Error{exchange.VersionNotSupported, "Only HTTP/1.1 and HTTP/1.0 are spoken on this connection."}
	errTargetTooLong  = &Error{exchange.TargetTooLong, ""}
	errHeadTooLarge   = &Error{exchange.HeadTooLarge, ""}
	errTooManyFields  = &Error{exchange.HeadTooLarge, "There are too many header fields."}
	errFold           = bad("A header line begins with white space (obs-fold).")
	errName           = bad("A header field's name is empty or not a token.")
	errNameSpace      = bad("White space stands before the colon of a header field.")
	errValue          = bad("A header field's value contains a control character.")
	errHostMissing    = bad("The Host header field is missing.")
	errHostRepeated   = bad("The Host header field is repeated.")
	errHost           = bad("The Host header field is not a valid host.")
	errHostDisagrees  = bad("The request target and the Host header field name different hosts.")
	errLength         = bad("Content-Length is not a number that fits.")
	errLengthRepeated = bad("Content-Length is repeated.")
	errCoding         = bad("Transfer-Encoding is not a single chunked.")
	errCodingRepeated = bad("Transfer-Encoding is repeated.")
	errCodingOld      = bad("Transfer-Encoding in an HTTP/1.0 message.")
	errBothFramings   = bad("Content-Length and Transfer-Encoding are both there.")
	errBodiless       = bad("A reply that cannot have a body (1xx, 204) announces one.")
	errUpgradeBody    = bad("A request to upgrade has a body.")
	errExpectation    = &Error{exchange.ExpectationFailed, ""}
	errChunkSize      = bad("A chunk size is not a hexadecimal number that fits.")
	errChunkLine      = bad("A chunk-size line is too long.")
	errChunkExt       = bad("A chunk extension is not valid.")
	errChunkEnd       = bad("A chunk does not end with CRLF.")
	errBodyTooLarge   = &Error{exchange.BodyTooLarge, ""}
	errSlowBody       = &Error{exchange.RequestTimeout, "The request body came too slowly."}
	errSlowHead       = &Error{exchange.RequestTimeout, "The request head came too slowly."}
	errShortBody      = bad("The connection ended before the request body did.")
	errMisdirected    = bad("The scheme of the target is not that of the connection: https is for TLS, http for connections in clear.")
	errShortHead      = bad("The connection ended before the request head did.")
	errStatusLine     = bad("The status line is not: version SP three digits SP reason.")
)
