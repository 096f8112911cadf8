// Package h3 is HTTP/3 (RFC 9114) for clients. QUIC and its handshake are quic-go's and field sections are read and written
// with its qpack; what stands between the two, frames on streams, is done here, because its http3 package offers either
// GOAWAY or the hold on a stream that limits on slow heads need, and hands out fields as a map without order.
package h3

import (
	"errors"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// Limits bound what one client may cost. Those of a listener come from the document.
type Limits struct {
	h1.Limits                   // of requests; Head also counts 32 bytes for each field (RFC 9114 section 4.2.2)
	Connections   int           // open at one time; 0: any
	PerClient     int           // open at one time of one address, or of one /64 of IPv6; 0: any
	Handshakes    int           // at one time; 0: any
	HandshakeTime time.Duration // for one handshake; 0: what the library gives it
	EarlyData     bool          // take 0-RTT requests of safe methods
}

const (
	// maxStreams bounds what one connection may ask at one time; a stream counts until its exchange has ended, also when
	// the client has given it up (rapid reset).
	maxStreams = 100
	// maxUniStreams is what a client needs (control and the two of QPACK) and some for extensions that it greases with.
	maxUniStreams = 8
	// maxOddStreams stops a client that opens streams of unknown types one after another.
	maxOddStreams = 64
	// resetBudget is how many exchanges in a row a client may give up before their end; each one that it lets end, and a
	// tenth of a second, give one back. More cost us more than the client (rapid reset).
	resetBudget = 200
	resetRefill = 10 // a second
	// maxIdleFrames stops floods of frames that bring nothing: empty DATA and frames of unknown types, in a row on a stream.
	maxIdleFrames = 128
	// maxUnknownFrame bounds what is read and thrown away of one frame of an unknown type.
	maxUnknownFrame = 64 << 10
	// maxControlFrames stops floods on the control stream, which no reply ever slows down.
	maxControlFrames = 1024
	// maxSettings bounds the SETTINGS frame.
	maxSettings = 4 << 10
	// maxQPACKBytes bounds the instructions on the QPACK streams, which have nothing to say without a dynamic table but
	// that a stream was canceled.
	maxQPACKBytes = 64 << 10
	// maxClients bounds the table of client addresses that connections are counted by.
	maxClients = 1 << 20

	// The windows bound what a client may send before anybody reads it. They grow, for clients far away, only while
	// the bodies are read promptly.
	streamWindow, maxStreamWindow         = 256 << 10, 2 << 20
	connectionWindow, maxConnectionWindow = 512 << 10, 6 << 20

	// retryShare is the part of the handshakes, or of a client's connections, from which on a client must show that it
	// receives what is sent to its address (RFC 9000 section 8.1.2): forged addresses fill no more than this.
	retryShare = 2
	// leastIdle keeps short idle times from cutting connections whose packets are merely late: QUIC's own idle time
	// only finds clients that are dead, and ours those that have nothing to ask.
	leastIdle = 30 * time.Second
	// leastReadRate, in bytes per second, stops a client that takes a byte of its reply now and then.
	leastReadRate = 240
	// rateGrace is how long a request body may be slow before MinBodyRate holds.
	rateGrace = 8 * time.Second
	// lastCall is how long requests that were on their way when a drain began are still taken (RFC 9114 section 5.2).
	lastCall = time.Second
	// lingerTime is how long a connection that has nothing to do any more waits for the client to acknowledge its last
	// reply and to close it; closing at once would throw away what has not been acknowledged.
	lingerTime = 2 * time.Second
	// headBuffer is what a slow head costs; bodies are read through larger buffers.
	headBuffer = 4 << 10
	// controlBuffer is enough for streams that hardly ever say anything.
	controlBuffer = 64
)

// What is wrong with a request. The texts reach the client as the problem's detail.
var (
	errHeadTooLarge   = refusal(exchange.HeadTooLarge, "")
	errTooManyFields  = refusal(exchange.HeadTooLarge, "There are too many header fields.")
	errTargetTooLong  = refusal(exchange.TargetTooLong, "")
	errBodyTooLarge   = refusal(exchange.BodyTooLarge, "")
	errExpectation    = refusal(exchange.ExpectationFailed, "")
	errSlowHead       = refusal(exchange.RequestTimeout, "The request head came too slowly.")
	errSlowBody       = refusal(exchange.RequestTimeout, "The request body came too slowly.")
	errPseudoUnknown  = bad("There is an unknown pseudo-header field.")
	errPseudoRepeated = bad("A pseudo-header field is repeated.")
	errPseudoLate     = bad("A pseudo-header field stands behind a header field.")
	errPseudoMissing  = bad("A pseudo-header field is missing.")
	errPseudoExcess   = bad("There is a pseudo-header field that does not go with this method.")
	errMethod         = bad("The method is not a token.")
	errScheme         = bad("The scheme is not https.")
	errHost           = bad("The authority is not a valid host.")
	errHostRepeated   = bad("The Host header field is repeated.")
	errHostDisagrees  = bad("The authority and the Host header field name different hosts.")
	errName           = bad("A header field's name is empty, not a token or not in lower case.")
	errValue          = bad("A header field's value contains a control character, or white space at its ends.")
	errConnection     = bad("A header field belongs to a connection of HTTP/1.1.")
	errTE             = bad("TE is not trailers.")
	errLengthRepeated = bad("Content-Length is repeated.")
	errLengthDiffers  = bad("The body is not as long as Content-Length says.")
	errProtocol       = bad("The protocol to switch to is not a token.")
	errTrailerPseudo  = bad("There is a pseudo-header field in the trailer section.")
)

func refusal(code exchange.Code, detail string) *exchange.Error {
	return &exchange.Error{Code: code, Source: exchange.FromClient, Detail: detail}
}

func bad(detail string) *exchange.Error { return refusal(exchange.BadRequest, detail) }

// violation is a breach of the protocol that ends the connection.
type violation struct {
	code   http3.ErrCode
	reason string
}

// Error returns the code and the reason.
func (v *violation) Error() string { return v.code.String() + ": " + v.reason }

// The error codes of RFC 9204 section 6 that the library does not name.
const (
	errCodeEncoderStream http3.ErrCode = 0x201
	errCodeDecoderStream http3.ErrCode = 0x202
)

// Violations.
var (
	errFrameTruncated  = &violation{http3.ErrCodeFrameError, "a frame ends with the stream"}
	errFrameUnexpected = &violation{http3.ErrCodeFrameUnexpected, "a frame that has no place here"}
	errFieldSection    = &violation{http3.ErrCodeQPACKDecompressionFailed, "a field section cannot be read"}
	errFrameFlood      = &violation{http3.ErrCodeExcessiveLoad, "too many frames that bring nothing"}
	errFrameSize       = &violation{http3.ErrCodeExcessiveLoad, "a frame of an unknown type is too large"}
	errResets          = &violation{http3.ErrCodeExcessiveLoad, "too many requests are given up"}
	errOddStreams      = &violation{http3.ErrCodeExcessiveLoad, "too many streams of unknown types"}
	errControlFlood    = &violation{http3.ErrCodeExcessiveLoad, "too many control frames"}
	errStreamTwice     = &violation{http3.ErrCodeStreamCreationError, "a stream of this type is there already"}
	errPushStream      = &violation{http3.ErrCodeStreamCreationError, "clients do not push"}
	errCritical        = &violation{http3.ErrCodeClosedCriticalStream, "a stream that has to stay is closed"}
	errNoSettings      = &violation{http3.ErrCodeMissingSettings, "the control stream does not begin with SETTINGS"}
	errSettings        = &violation{http3.ErrCodeSettingsError, "a setting is repeated, reserved or out of range"}
	errFrameForm       = &violation{http3.ErrCodeFrameError, "a frame is not what its length says"}
	errID              = &violation{http3.ErrCodeIDError, "an identifier that cannot be"}
	errEncoder         = &violation{errCodeEncoderStream, "there is no dynamic table"}
	errDecoder         = &violation{errCodeDecoderStream, "there is no dynamic table"}
)

// errIncomplete ends a stream without anybody to tell.
var errIncomplete = errors.New("h3: the request ended before its head did")

func streamCode(c http3.ErrCode) quic.StreamErrorCode { return quic.StreamErrorCode(c) }
