// Package client is HTTP/2 (RFC 9113) towards targets: connections that many calls share, over the framing and HPACK of
// golang.org/x/net/http2.
//
// A connection has two goroutines. One reads: it takes what comes into the call that it is for and never waits for
// anybody. One writes what calls and the reader have put into one buffer, many frames in one write. Each call is driven by
// the goroutine of its exchange; a request body that has not arrived yet has a pump of its own, as over HTTP/1.1.
package client

import (
	"errors"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h2/fields"
	"headgate/internal/clock"
)

// Terms are what the connections to a target have in common.
type Terms struct {
	Streams     int           // calls at one time on a connection, if the target allows as many
	Head        int           // bytes of a reply's fields, names and values with 32 for each (RFC 9113 section 6.5.2)
	Fields      int           // fields of a reply's head or trailers
	Idle        time.Duration // that the target may take nothing of what is written
	Ping        time.Duration // of silence with open calls, after which a sign of life is asked for; 0: never
	PingTimeout time.Duration // for that sign
	Clock       clock.Clock
}

const (
	// frameSize is the largest payload that is sent and taken: the least that every peer allows (RFC 9113 section 4.2). With
	// larger ones a single call would hold the others up.
	frameSize = 16 << 10
	// startWindow is the flow-control window that every stream and connection begins with (RFC 9113 section 6.9.2).
	startWindow = 65535
	// connWindow is how much may be on its way to us on a connection. It is given back at once, whoever the bytes are for, so
	// that a slow call never holds up the others.
	connWindow = 4 << 20
	// maxWindow is what the window of one stream grows to while its reader keeps up, so that a distant target can be fast.
	maxWindow = 1 << 20
	// maxGrown bounds what all streams of a connection have grown by, and with it the memory that a target can fill whose
	// clients have all become slow: at most maxGrown + Streams * startWindow.
	maxGrown = 8 << 20
	// maxPending is how many bytes may wait to be written before calls wait to add theirs. Heads and short bodies do not
	// wait: of these there are at most as many as streams.
	maxPending = 64 << 10
	// maxControl stops a target that makes us answer and does not read the answers: acknowledgements, resets, windows.
	maxControl = 64 << 10
	// maxStreamID is after how many streams a connection is replaced: identifiers have 31 bits and are never used again.
	maxStreamID = 1<<31 - 1
	// maxInformational stops a target that floods the client with 1xx replies.
	maxInformational = 16
	// maxContinuations stops a head that comes in endless pieces, each with nothing in it (CVE-2024-27316).
	maxContinuations = 16
	// maxBlockFactor is how many times Head a field section may have before it is decoded: one that is somewhat too large
	// ends its call alone, since the connection's HPACK state can follow; beyond that the connection is dropped.
	maxBlockFactor = 2
	// maxTable bounds the HPACK table that the target may use towards us, and that we use towards it whatever it allows.
	maxTable = fields.MaxTable
	// chatter is how many frames that carry nothing of a call a target may send ahead of those that do (PING, SETTINGS,
	// PRIORITY, empty DATA, frames of streams that have ended; CVE-2019-9512, -9515, -9518). Each frame with content on
	// either side earns chatterEarned more, and each second chatterPerSecond.
	chatter          = 2000
	chatterEarned    = 4
	chatterPerSecond = 200
	// replayRoom is how much of a request body that is still coming is kept, so that a call that the target has not
	// processed can be made again on another connection.
	replayRoom = 32 << 10
	// farewell is how long the last frames of a connection may take to be written.
	farewell = 2 * time.Second
	// keptBuffer is the largest buffer that a connection keeps while it has nothing to write.
	keptBuffer = 32 << 10
	// settleTime is how long a reply waits for the rest of its request where the client speaks HTTP/1.1, whose connection
	// can only be kept when the request has been read; see the pump of wire/h1.
	settleTime = 5 * time.Millisecond
)

// ErrLeft tells that the target said goodbye, and nothing worse, on a connection that was being opened: it takes its leave of
// connections by age or is about to stop.
var ErrLeft = errors.New("h2: the target said GOAWAY on a new connection")

// What ends a call or a connection. Those of calls reach the exchange as the cause of its error.
var (
	errRefused   = errors.New("h2: the target has not processed the stream")
	errExpired   = errors.New("h2: the target was silent for too long")
	errCanceled  = errors.New("h2: the call was given up")
	errSilent    = errors.New("h2: the target did not answer a PING in time")
	errStuck     = errors.New("h2: the target takes nothing")
	errEnded     = errors.New("h2: the connection has ended")
	errRetired   = errors.New("h2: the connection was closed by this side")
	errNoPreface = errors.New("h2: the target does not speak HTTP/2")
	errShortBody = errors.New("h2: the request body is not as long as announced")
	errNoConnect = errors.New("h2: the target does not take extended CONNECT (RFC 8441)")
)

// invalid is a reply, or a frame, that is not valid HTTP/2.
type invalid struct{ reason string }

// Error says what is wrong.
func (e *invalid) Error() string { return "h2: " + e.reason }

func bad(reason string) *invalid { return &invalid{reason} }

var (
	errName           = bad("a field's name is empty, not a token or not in lower case")
	errValue          = bad("a field's value contains a control character, or begins or ends with white space")
	errPseudo         = bad("a pseudo-header field is unknown, repeated or behind others")
	errStatus         = bad(":status is not three digits between 100 and 599")
	errNoStatus       = bad(":status is missing")
	errConnection     = bad("a field is about the connection, of which HTTP/2 has none (RFC 9113 section 8.2.2)")
	errLength         = bad("Content-Length is not one number that fits")
	errBodiless       = bad("a reply that cannot have a body has one")
	errLengthMismatch = bad("the body is not as long as Content-Length says")
	errHeadTooLarge   = bad("the reply's field section is larger than allowed")
	errTrailerOpen    = bad("a trailer section does not end the stream")
	errInformational  = bad("101, an informational reply that ends the stream, or too many of them")
	errDataEarly      = bad("DATA before the reply's head")
	errDataLate       = bad("DATA behind the end of the stream")
	errWindow         = bad("DATA beyond the window")
	errContinuations  = bad("a field section in too many or too large pieces")
	errFields         = bad("a field section that cannot be decoded")
	errStreamID       = bad("a frame for a stream that was never opened")
	errPush           = bad("a push, which we have switched off")
	errFlood          = bad("too many frames that carry nothing")
	errControl        = bad("the answers that it asks for are not read")
	errSettings       = bad("a setting has a value that it must not have")
	errWindowUpdate   = bad("a window beyond 2^31-1, or an update by nothing")
)

// failure turns what ended a call into the exchange's error. begun: a part of the reply had arrived.
func failure(cancel *exchange.Canceler, err error, begun bool) error {
	var malformed *invalid
	var known *exchange.Error
	e := &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream, Cause: err}
	switch {
	case errors.As(err, &known):
		return known
	case cancel != nil && cancel.Canceled(), errors.Is(err, errCanceled):
		e.Code, e.Source = exchange.ClientGone, exchange.FromClient
	case errors.Is(err, errExpired), errors.Is(err, errSilent), errors.Is(err, errStuck):
		e.Code = exchange.UpstreamTimeout
	case errors.Is(err, errNoConnect):
		e.Code, e.Source = exchange.UpstreamNoUpgrade, exchange.FromGateway // which asked for what the target has not offered
	case errors.As(err, &malformed):
		e.Code = exchange.UpstreamInvalid
	default:
		var reset *resetError
		e.Retry = !begun && !errors.As(err, &reset)
	}
	return e
}
