// Package fields is about field sections in HTTP/2: reading decoded ones into requests, strictly, and writing replies' by HPACK.
package fields

import "headgate/gateway/exchange"

// Fault is what is wrong with a request. One with a code is answered; without one it is malformed, and the stream is reset
// (RFC 9113 section 8.1.1).
type Fault struct {
	Code   exchange.Code
	Reason string
}

func malformed(reason string) *Fault { return &Fault{Reason: reason} }

func bad(reason string) *Fault { return &Fault{exchange.BadRequest, reason} }

// What is wrong with a request. The texts of those with a code reach the client as the problem's detail.
var (
	errNameEmpty       = malformed("a field has no name")
	errName            = malformed("a field's name is not a lower-case token")
	errValue           = malformed("a field's value has a control character, or white space at its ends")
	errConnectionField = malformed("a field is about the connection")
	errTE              = malformed("TE says something else than trailers")
	errPseudoLate      = malformed("a pseudo-header field comes behind others")
	errPseudoRepeated  = malformed("a pseudo-header field is repeated")
	errPseudoUnknown   = malformed("a pseudo-header field is not known, or not one of requests")
	errPseudoMissing   = malformed(":method, :scheme or :path is missing")
	errPseudoTrailer   = malformed("a pseudo-header field is among the trailers")
	errPathEmpty       = malformed(":path is empty")
	errConnect         = malformed("CONNECT with :scheme or :path, or without :authority")
	errProtocol        = malformed(":protocol without CONNECT, or not a token")
	errMethod          = malformed(":method is not a token")
	errHostRepeated    = malformed("Host is repeated")
	errHostDisagrees   = malformed(":authority and Host name different hosts")
	errLengthRepeated  = malformed("Content-Length is repeated")
	errLength          = malformed("Content-Length is not a number that fits")
	errLengthWrong     = malformed("Content-Length is not the length of the body")
	errTrailerField    = malformed("a trailer field must not be one")

	errScheme        = bad("The scheme is not http or https.")
	errPath          = bad("The path is not valid.")
	errHost          = bad("The host is not valid.")
	errHostMissing   = bad("The request names no host.")
	errTargetTooLong = &Fault{exchange.TargetTooLong, ""}
	errHeadTooLarge  = &Fault{exchange.HeadTooLarge, ""}
	errTooManyFields = &Fault{exchange.HeadTooLarge, "There are too many header fields."}
	errExpectation   = &Fault{exchange.ExpectationFailed, ""}
	errBodyTooLarge  = &Fault{exchange.BodyTooLarge, ""}
)

// Malformed reports whether the stream is to be reset instead of answered.
func (f *Fault) Malformed() bool { return f.Code.Name == "" }

// Exchange returns the fault as the exchange's error.
func (f *Fault) Exchange() *exchange.Error {
	return &exchange.Error{Code: f.Code, Source: exchange.FromClient, Detail: f.Reason}
}

// Error implements error.
func (f *Fault) Error() string { return "h2: " + f.Reason }
