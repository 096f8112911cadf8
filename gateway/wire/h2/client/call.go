package client

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
)

// Plan is how a call is made: what the upstream and its document say.
type Plan struct {
	Scheme   string // "https" over TLS, else "http"
	Host     string // :authority instead of the request's host; "": the request's
	Target   string // :authority of a request that came without a host, as HTTP/1.0 allows
	Response time.Duration
	Idle     time.Duration // without progress, in either direction
}

// Call is one request on a stream of a connection, and its reply. The reply's body is read from it.
type Call struct {
	plan   *Plan
	conn   *Conn // that it is on, or was on last
	id     uint32
	in     arrival   // under the connection's lock while the call is on one
	out    departure // likewise
	read   reading   // the exchange's goroutine's
	pump   *pump
	upload time.Duration // see Uploaded
	cancel *exchange.Canceler
	method string
	host   string
	body   []byte // the whole of it, if it was at hand
	whole  bool
	tunnel bool // by extended CONNECT, if the target takes it
	denied bool // the target has not processed it
	spent  bool // what was sent of the body is not at hand any more
	here   bool // on a connection, as far as the exchange's goroutine knows

	news chan struct{} // something has arrived, or the call has ended
	room chan struct{} // more may be sent, or the call has ended
}

// arrival is what has come of the reply.
type arrival struct {
	active   bool // in the connection's list
	informed []informed
	informs  int // of them that ever came
	status   int // of the final reply; 0: it has not come
	header   exchange.Header
	trailer  exchange.Header
	size     int64 // Content-Length; -1: none
	left     int64 // of it that is still to come; -1: not known
	filled   []byte
	window   int64  // that the target may still send
	share    int64  // the stream's window when it is all open
	owed     int64  // taken from it and not yet given back
	ended    bool   // END_STREAM has come
	begun    bool   // anything has
	tunnel   bool   // an extended CONNECT that was taken
	err      error  // why the reply will not come to its end
	due      int64  // when the call is given up, on the connection's clock; 0: it is not
	steps    uint64 // departure's, when due was set
}

// informed is an informational reply on its way to the client.
type informed struct {
	status int
	header exchange.Header
}

// departure is how far sending has got.
type departure struct {
	window  int64
	ended   bool   // END_STREAM is on its way
	thirsty bool   // in the connection's list of those who wait for its window
	err     error  // why nothing more is sent
	due     int64  // as in arrival
	steps   uint64 // pieces of the body that were sent
}

// reading is where the reader of the reply's body stands.
type reading struct {
	held    []byte // what was handed out last, valid until the next piece
	rest    []byte // of held, what Read has not taken
	trailer *exchange.Header
	done    error // io.EOF, or why there is no more
}

// calls are kept with their channels.
var calls = sync.Pool{New: func() any { return &Call{news: make(chan struct{}, 1), room: make(chan struct{}, 1)} }}

// NewCall returns a call from the pool; Close gives it back.
func NewCall(plan *Plan) *Call {
	c := calls.Get().(*Call)
	c.plan = plan
	return c
}

// Prepare takes the request's body if it has arrived, so that the call can be repeated.
func (c *Call) Prepare(x *exchange.Exchange) {
	c.method = x.Request.Method
	c.host = cmp.Or(c.plan.Host, x.Request.Host, c.plan.Target)
	if c.tunnel = x.Request.Upgrade != ""; c.tunnel {
		c.whole = true
		return
	}
	c.body, c.whole = atHand(&x.Request.Body)
	if c.whole {
		x.Usage.RequestBytes += int64(len(c.body))
	}
}

// arrived is a body whose bytes may stand in memory already.
type arrived interface {
	// AtHand returns the whole rest of the body if it has come, taking it, or nil. It is valid until the body is read again.
	AtHand() []byte
}

// atHand returns the request's body if it can be had without waiting, and is short.
func atHand(b *exchange.Body) (p []byte, ok bool) {
	switch r := b.Reader.(type) {
	case nil:
		return nil, true
	case arrived:
		if b.Length > replayRoom {
			return nil, false
		}
		if p = r.AtHand(); p != nil {
			p = appendBuffer(nil, p) // it may have to be sent again
		}
		return p, p != nil
	case interface{ Len() int }: // in memory: made by a policy, held for one, or come whole
		n := r.Len()
		if n == 0 || n > replayRoom || b.Length >= 0 && int64(n) != b.Length {
			return nil, false
		}
		p = takeBuffer(n + 1)
		n, err := io.ReadFull(b.Reader, p) // up to the end, behind which trailers stand
		if errors.Is(err, io.ErrUnexpectedEOF) && n == len(p)-1 {
			return p[:n], true
		}
		b.Reader = io.MultiReader(bytes.NewReader(p[:n]), failing{err, b.Reader}) // not what it said
	}
	return nil, false
}

// failing is a reader that has failed, if it has.
type failing struct {
	err error
	io.Reader
}

// Read implements io.Reader.
func (f failing) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.Reader.Read(p)
}

// failed takes the call off its connection and says what went wrong, in whose doing it was: the request's body may be the
// cause.
func (c *Call) failed(err error) error {
	c.denied = errors.Is(err, errRefused)
	begun := c.depart()
	if p := c.pump; p != nil && (!c.denied || !p.repeatable()) {
		c.pump, c.spent = nil, true
		if cause := p.stop(); cause != nil && p.clientFailed {
			return cause
		}
	}
	return failure(c.cancel, err, begun)
}

// Unprocessed reports whether the target has said that it did nothing about the call that failed: it may be made again
// whatever its method (RFC 9113 sections 6.8 and 8.7).
func (c *Call) Unprocessed() bool { return c.denied }

// Repeatable reports whether the whole request is still at hand.
func (c *Call) Repeatable() bool {
	switch {
	case c.spent:
		return false
	case c.pump != nil:
		return c.pump.repeatable()
	}
	return true // at hand, or not begun to be read
}

// Uploaded returns how long after the beginning of Do the last piece of the request's body came that was sent before the reply's
// head was here: up to then it was mostly the client who took the time. 0: the body was at hand.
func (c *Call) Uploaded() time.Duration { return c.upload }

// Begun reports whether anything of a reply had arrived when Do failed.
func (c *Call) Begun() bool { return c.in.begun }

// depart takes the call off its connection, where it may still be. What the target still sends is not wanted.
func (c *Call) depart() (begun bool) {
	conn := c.conn
	if !c.here {
		return false
	}
	c.here = false
	if c.cancel != nil {
		c.cancel.Guard(nil)
	}
	conn.mu.Lock()
	open := c.in.active
	if open {
		conn.drop(c)
	}
	begun = c.in.begun
	conn.state.grown -= max(c.in.share-startWindow, 0)
	c.in.share = 0
	conn.mu.Unlock()
	if open {
		if !conn.out.reset(c.id, http2.ErrCodeCancel) {
			conn.fail(errControl, http2.ErrCodeEnhanceYourCalm)
		}
		conn.vacate()
	}
	return begun
}

// Close ends the call, whether or not its reply was read to the end, and gives its memory back.
func (c *Call) Close() {
	c.Discard()
	putBuffer(c.body)
	c.plan, c.conn, c.cancel, c.body = nil, nil, nil, nil
	c.out = departure{}
	c.spent = false
	calls.Put(c)
}

// Discard gives up a reply that is not wanted, so that the prepared call can be made again on another connection.
func (c *Call) Discard() {
	if c.pump != nil {
		_ = c.pump.stop()               // its error was met, or no longer matters
		c.pump, c.spent = nil, !c.whole // and what it has sent of the body is gone
	}
	c.depart()
	putBuffer(c.in.filled)
	putBuffer(c.read.held)
	in := arrival{header: c.in.header, trailer: c.in.trailer}
	in.header.Reset("")
	in.trailer.Reset("")
	c.in, c.read, c.denied = in, reading{}, false
}

// Move makes x the exchange whose reply this is. Until then it was that of a copy of x, which is not used any more.
func (c *Call) Move(x *exchange.Exchange) { c.read.trailer = &x.Reply.Trailer }

// Interrupt implements exchange.Interrupter: the call is given up.
func (c *Call) Interrupt() { c.giveUp(nil) }

// giveUp ends the call because of what went wrong with its request; nil: because nobody wants the reply.
func (c *Call) giveUp(why error) {
	c.conn.mu.Lock()
	c.end(errors.Join(errCanceled, why))
	c.conn.mu.Unlock()
}

// end notes why the call will not come to its end. The connection's lock is held.
func (c *Call) end(err error) {
	if c.out.err == nil {
		c.out.err = err
	}
	if !c.in.ended && c.in.err == nil {
		c.in.err = err
	}
	c.inNews()
	c.outNews()
}

// expire ends the call if a deadline has passed, and returns the next one; 0: there is none. The lock is held.
func (c *Call) expire(now int64) int64 {
	next := int64(0)
	for _, at := range [...]int64{c.in.due, c.out.due} {
		switch {
		case at == 0:
		case at <= now && at == c.in.due && c.in.status != 0 && c.in.steps != c.out.steps: // the other direction goes on
			c.in.steps, c.in.due = c.out.steps, now+int64(c.plan.Idle)
			next = earlier(next, c.in.due)
		case at <= now:
			c.in.due, c.out.due = 0, 0
			c.end(errExpired)
			return 0
		default:
			next = earlier(next, at)
		}
	}
	return next
}

// earlier returns the earlier one of two times, of which a may be 0 for none.
func earlier(a, b int64) int64 {
	if a == 0 || b < a {
		return b
	}
	return a
}

func (c *Call) inNews() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *Call) outNews() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// relent takes away the time that the target has to ask for the body: from now on the client is waited for, if it has not sent all.
func (c *Call) relent() {
	conn := c.conn
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if c.in.status == 0 && !c.out.ended && !c.whole {
		c.in.due = 0
	}
}

// await starts the time that the target has for its reply, unless that has come already.
func (c *Call) await() {
	conn := c.conn
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if c.in.status == 0 && c.in.err == nil {
		now := conn.now()
		c.in.due = now + int64(c.plan.Response)
		conn.keep.expect(now, c.in.due)
	}
}
