package h2

import (
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h2/fields"
	"headgate/internal/sock"
)

// stream is one request and its reply. It is the wire of its exchange.
type stream struct {
	c        *conn
	id       uint32
	x        exchange.Exchange
	cancel   exchange.Canceler
	refusal  *fields.Fault // why it is refused instead of served
	bodiless bool          // the reply has no body, since the request is a HEAD
	extended bool          // the request is an extended CONNECT
	canWrite chan struct{}
	timer    *time.Timer
	body     body

	// Under the connection's lock:
	window int64 // for DATA to the client
	waits  bool  // among those who wait for the connection
	pins   int   // who still uses it besides its exchange
	over   bool  // the exchange has ended
	remote bool  // the client has sent everything
	local  bool  // and so have we
	reset  bool  // by either side
	left   bool  // by the client
	cutOff bool  // it was a tunnel, and has been interrupted
}

var streams = sync.Pool{New: func() any {
	s := &stream{canWrite: make(chan struct{}, 1)}
	s.body.s, s.body.canRead = s, make(chan struct{}, 1)
	return s
}}

// newStream returns a stream whose head has begun to arrive. Nobody else knows it yet.
func (c *conn) newStream(id uint32) *stream {
	s := streams.Get().(*stream)
	s.c, s.id = c, id
	x := &s.x
	x.Shard, x.Cancel, x.Wire = c.shard, &s.cancel, s
	x.Client = c.client
	x.Request.Proto, x.Request.Scheme = "HTTP/2.0", "http"
	if c.client.TLS != nil {
		x.Request.Scheme = "https"
	}
	return s
}

// recycle gives the stream's memory back.
func (s *stream) recycle() {
	s.cancel.Rest()
	s.body.recycle()
	select {
	case <-s.canWrite:
	default:
	}
	s.x.Reset()
	*s = stream{x: s.x, body: s.body, canWrite: s.canWrite, timer: s.timer}
	streams.Put(s)
}

// carry carries the stream's exchange from its beginning to its end.
func (s *stream) carry() {
	defer s.end()
	if s.refusal != nil {
		s.x.Err = s.refusal.Exchange()
		s.c.server.Handler.Refuse(&s.x)
		return
	}
	s.c.server.Handler.Serve(&s.x)
}

// end ends the stream with its exchange, whatever came of it.
func (s *stream) end() {
	c := s.c
	if r := recover(); r != nil {
		c.server.Log.Error("a stream panicked", slog.Any("panic", r), slog.String("stack", string(debug.Stack())))
	}
	c.mu.Lock()
	switch {
	case s.reset || c.dead:
	case !s.local: // the client must notice that the reply is not whole
		c.out.reset(s.id, http2.ErrCodeInternal)
		s.reset = true
	case !s.remote: // nobody wants the rest of the request (RFC 9113 section 8.1)
		c.out.reset(s.id, http2.ErrCodeNo)
		s.reset = true
	}
	if s.local {
		c.purse.replies++
	}
	free := c.forget(s)
	due := c.duty()
	c.mu.Unlock()
	if due {
		c.push(false)
	}
	if free {
		s.recycle()
	}
}

// forget takes the stream out of the connection's. It reports whether nobody else uses it.
func (c *conn) forget(s *stream) (free bool) {
	if !s.bothEnded() {
		c.seen.open--
	}
	if s.waits {
		c.out.waiters = slices.DeleteFunc(c.out.waiters, func(o *stream) bool { return o == s })
	}
	s.over = true
	delete(c.seen.streams, s.id)
	c.seen.remember(s.id, s.reset && !s.left)
	c.consumed(s.body.buffered)
	if len(c.seen.streams) == 0 {
		if c.deadline.kind == forNothing {
			c.deadline.set(c, forRequest)
		}
		c.settle()
	}
	return s.pins == 0
}

// bothEnded reports whether the stream is closed in peace, and so counts against maxStreams no more.
func (s *stream) bothEnded() bool { return s.remote && s.local && !s.reset }

// endLocal and endRemote note that one side has sent everything.
func (s *stream) endLocal() {
	s.local = true
	if s.bothEnded() {
		s.c.seen.open--
	}
}

func (s *stream) endRemote() {
	s.remote = true
	if s.bothEnded() {
		s.c.seen.open--
	}
}

// unpin is called by who has pinned the stream, when the connection's lock is free.
func (s *stream) unpin() {
	c := s.c
	c.mu.Lock()
	s.pins--
	free := s.pins == 0 && s.over
	c.mu.Unlock()
	if free {
		s.recycle()
	}
}

// resetByClient ends a stream that its client has given up (RFC 9113 section 6.4).
func (c *conn) resetByClient(id uint32) bool {
	s := c.seen.streams[id]
	if s == nil {
		if id > c.seen.last || id%2 == 0 {
			return c.fail(http2.ErrCodeProtocol, "RST_STREAM for a stream that was never opened")
		}
		return c.spend(emptyFlood) // it crossed the end of our reply
	}
	if s.reset {
		return c.spend(emptyFlood)
	}
	c.breakOff(s)
	s.left = true
	if s.local {
		return true
	}
	if m := c.server.Metrics; m != nil {
		m.resets.Inc(c.shard)
	}
	return c.spend(rapidReset)
}

// resetStream ends a stream, whether or not it is there, because of what the client did.
func (c *conn) resetStream(id uint32, code http2.ErrCode) bool {
	c.out.reset(id, code)
	if s := c.seen.streams[id]; s != nil && !s.reset {
		c.breakOff(s)
	}
	return c.spend(rapidReset)
}

// breakOff ends a stream's exchange early. It is called by the reader alone, which cancels when it holds no lock.
func (c *conn) breakOff(s *stream) {
	if s.bothEnded() {
		c.seen.open++ // it counts again until its exchange has ended
	}
	s.reset = true
	s.wake()
	s.pins++
	c.in.canceled = append(c.in.canceled, s)
}

// wake wakes everybody who waits for something of the stream.
func (s *stream) wake() {
	s.wakeWriter()
	s.body.wake()
}

func (s *stream) wakeWriter() {
	select {
	case s.canWrite <- struct{}{}:
	default:
	}
}

// Interrupt implements exchange.Wire.
func (s *stream) Interrupt() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.body.interrupted = true
	s.body.wake()
}

var (
	errReset   = errors.New("h2: the client has given the stream up")
	errDead    = errors.New("h2: the connection has ended")
	errStalled = errors.New("h2: the client does not take its reply")
	errShort   = io.ErrUnexpectedEOF // which the engine takes for the upstream's doing
)

// broken says why nothing can be sent any more.
func (s *stream) broken() error {
	switch {
	case s.reset:
		return errReset
	case s.c.dead:
		return errDead
	case s.cutOff:
		return sock.ErrInterrupted
	}
	return nil
}

var _ exchange.Wire = (*stream)(nil)

// settleBody makes what follows the head the request's body. It is called before the stream is carried, when everything
// has been looked at that came together with the head.
func (s *stream) settleBody() {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	r, b := &s.x.Request, &s.body
	switch {
	case s.extended || r.Method == "CONNECT": // what follows is no body
		return
	case b.ended && b.got == 0 && b.trailer.Len() == 0:
		b.err, r.Expect = io.EOF, false
		return
	case b.ended && b.trailer.Len() == 0 && b.err == nil:
		b.declared = b.got
	}
	r.Body.Reader, r.Body.Length = b, b.declared
	if b.trailer.Len() > 0 {
		r.Body.Length = -1 // so that the trailers have a place in HTTP/1.1
	}
}
