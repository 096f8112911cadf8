package h3

import (
	"errors"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/http3"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// body reads a request's body from its stream, pulled: piece by piece without a copy, or as an io.Reader.
type body struct {
	s       *stream
	left    uint64        // of the DATA frame
	got     int64         // bytes delivered
	length  int64         // Content-Length; -1: none
	err     error         // io.EOF once complete
	idle    int           // frames in a row that brought nothing
	closed  bool          // the trailer section has come
	free    bool          // no message at all: a tunnel's, whose limits are the tunnel's
	spoken  atomic.Bool   // the reply has begun: one side of a conversation, with no time limit
	leisure time.Duration // without a byte, of messages, instead of what the listener allows; 0: they are none
	asks    bool          // the first byte only comes after 100 (Continue), which is not the client's to hurry
	began   time.Duration
	seen    time.Duration
}

// begin prepares the body behind a head that has been read and returns what the exchange gets to see of it.
func (b *body) begin(s *stream, h *head) exchange.Body {
	*b = body{s: s, length: h.length, asks: h.expect}
	if b.free = s.x.Request.Upgrade != ""; b.free {
		b.length, b.asks = -1, false
		return exchange.Body{}
	}
	b.began = s.server.Sweeper.Coarse()
	b.seen = b.began
	b.atHand()
	whole := s.in.err != nil && errors.Is(s.in.err, io.EOF)
	switch {
	case whole && len(s.in.buffered()) == 0 && b.left == 0:
		if b.length > 0 {
			break // which reading finds out
		}
		b.err = io.EOF
		return exchange.Body{Length: max(b.length, 0)}
	case b.length == 0:
		b.err = io.EOF // what still comes is thrown away
		return exchange.Body{}
	case whole && uint64(len(s.in.buffered())) == b.left && b.length < 0:
		b.length = int64(b.left) // all of it is here
	}
	s.in.enlarge()
	return exchange.Body{Reader: b, Length: b.length}
}

// atHand takes the header of the first DATA frame if it has come.
func (b *body) atHand() {
	in := &b.s.in
	p := in.buffered()
	if len(p) < 2 || p[0] != frameData || len(p) < 1+1<<(p[1]>>6) {
		return
	}
	_, n, err := in.frame() // from the buffer alone
	if err == nil {
		b.left = n
	}
}

// Done reports whether the body has been read to its end.
func (b *body) Done() bool { return b.err == io.EOF }

// Len returns how many bytes are to come if all of them have arrived; if not, more than anybody has room for.
func (b *body) Len() int {
	in := &b.s.in
	if b.err == nil && b.left > 0 && errors.Is(in.err, io.EOF) && uint64(len(in.buffered())) == b.left {
		return int(b.left)
	}
	if b.err == io.EOF {
		return 0
	}
	return math.MaxInt
}

// Next returns the next piece, valid until the following call, and io.EOF at the end.
func (b *body) Next() ([]byte, error) {
	p, err := b.peek()
	if err != nil {
		return nil, err
	}
	return p, b.take(len(p))
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	piece, err := b.peek()
	if err != nil {
		return 0, err
	}
	n := copy(p, piece)
	return n, b.take(n)
}

// peek is Next without taking.
func (b *body) peek() ([]byte, error) {
	in := &b.s.in
	for b.err == nil {
		switch p := in.buffered(); {
		case b.left > 0 && len(p) > 0:
			return p[:min(uint64(len(p)), b.left)], nil
		case b.left > 0:
			b.fail(b.fill(in.more))
		case len(p) == 0 && in.err == nil:
			if err := b.fill(in.fill); !errors.Is(err, io.EOF) {
				b.fail(err)
			}
		default:
			b.fail(b.fill(b.frame))
		}
	}
	return nil, b.err
}

// take consumes n of the bytes that peek has shown.
func (b *body) take(n int) error {
	b.s.in.r += n
	b.left -= uint64(n)
	b.got += int64(n)
	limit := b.s.limits.Body
	switch {
	case b.length >= 0 && b.got > b.length:
		b.fail(errLengthDiffers)
	case limit > 0 && b.got > limit && !b.free:
		b.fail(errBodyTooLarge)
	default:
		return nil
	}
	return b.err
}

// frame takes frames up to the next data, or the end of the stream.
func (b *body) frame() error {
	in := &b.s.in
	kind, n, err := in.frame()
	switch {
	case errors.Is(err, io.EOF):
		if b.length >= 0 && b.got != b.length {
			return errLengthDiffers
		}
		return io.EOF
	case err != nil:
		return err
	case kind == frameData && !b.closed:
		if b.left = n; n > 0 {
			b.idle = 0
			return nil
		}
	case kind == frameHeaders && !b.closed && !b.free:
		return b.trailer(n)
	case known(kind):
		return errFrameUnexpected
	default:
		if err := in.skip(n); err != nil {
			return err
		}
	}
	if b.idle++; b.idle > maxIdleFrames {
		return errFrameFlood
	}
	return nil
}

func (b *body) trailer(n uint64) error {
	b.closed = true
	if n > uint64(b.s.limits.Head) {
		return errHeadTooLarge
	}
	block, err := b.s.in.payload(int(n))
	if err != nil {
		return err
	}
	return parseTrailer(block, &b.s.limits.Limits, &b.s.x.Request.Trailer)
}

// fill does something that may wait for the client, with a deadline. Only the time spent here counts against the client:
// whoever is not read from cannot send.
func (b *body) fill(wait func() error) error {
	if b.free {
		return wait()
	}
	sweeper := b.s.server.Sweeper
	b.began += sweeper.Coarse() - b.seen
	if !b.spoken.Load() {
		b.s.patience(b.patience())
	}
	if b.spoken.Load() { // maybe since a moment ago
		b.s.patience(0)
	}
	err := wait()
	b.seen = sweeper.Coarse()
	if b.asks {
		b.asks, b.began = false, b.seen
	}
	if err == nil {
		return b.tooSlow()
	}
	return err
}

// converse makes the body one side of a conversation: the reply has begun, and how long each side is silent is theirs to say,
// and timeouts.idle of the upstream.
func (b *body) converse() {
	b.spoken.Store(true)
	b.s.patience(0)
}

// patience returns how long the next byte may take: until the body has made no progress for too long, or until it is
// slower than the least rate, whichever comes first.
func (b *body) patience() time.Duration {
	l := &b.s.limits.Limits
	if b.leisure > 0 {
		return b.leisure
	}
	if l.MinBodyRate == 0 || b.asks {
		return l.BodyTime
	}
	elapsed := b.s.server.Sweeper.Coarse() - b.began
	due := max(rateGrace.Seconds(), float64(b.got)/float64(l.MinBodyRate)) - elapsed.Seconds()
	if due >= l.BodyTime.Seconds() {
		return l.BodyTime
	}
	return max(time.Duration(due*float64(time.Second)), time.Millisecond)
}

func (b *body) tooSlow() error {
	rate := b.s.limits.MinBodyRate
	elapsed := b.s.server.Sweeper.Coarse() - b.began
	if rate > 0 && b.leisure == 0 && !b.spoken.Load() && elapsed > rateGrace && b.got < int64(elapsed.Seconds()*float64(rate)) {
		return errSlowBody
	}
	return nil
}

// fail notes why the body ends. A client that has broken the protocol, or gone, is told in the language of QUIC; what is
// wrong with the body alone is told by the reply.
func (b *body) fail(err error) {
	if err == nil || b.err != nil {
		return
	}
	var broken *violation
	var refused *exchange.Error
	switch {
	case err == io.EOF:
		b.s.in.release()
	case errors.As(err, &broken):
		b.s.conn.violated(broken)
		err = &exchange.Error{Code: exchange.BadRequest, Source: exchange.FromClient, Detail: broken.reason, Cause: broken}
	case errors.As(err, &refused):
		b.s.stop = stopCode(refused)
	case isDeadline(err) && !b.s.interrupted.Load():
		err = errSlowBody
	case isDeadline(err):
		err = sock.ErrInterrupted
	default:
		b.s.lost()
		err = &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
	}
	b.err = err
}

// stopCode is what a client is told whose request is not read to its end.
func stopCode(e *exchange.Error) http3.ErrCode {
	if e.Code == exchange.BadRequest {
		return http3.ErrCodeMessageError
	}
	return http3.ErrCodeNoError // the reply says it all (RFC 9114 section 4.1.1)
}

var _ exchange.Piecewise = (*body)(nil)
