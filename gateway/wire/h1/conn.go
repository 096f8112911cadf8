package h1

import (
	"errors"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// conn is one client connection.
type conn struct {
	*sock.Conn
	server *Server
	shard  uint32
	client exchange.Client
	done   func() // called when the connection has ended
	in     sock.Reader
	cancel exchange.Canceler
	served int
	begun  bool        // an empty line before the request has been skipped
	woken  atomic.Bool // a read was interrupted for the exchange's sake
	state  atomic.Uint32
	next   step // what has to be done outside of Each

	*live // nil while idle
}

// live is what a connection needs while it carries an exchange, and only then.
type live struct {
	x      exchange.Exchange
	body   Body
	head   Head
	method string // as it came: a policy may ask the upstream with another one
	closes bool   // after this exchange
	broken bool   // nothing more can be read from the client
	reset  bool   // the reply broke off: the client must notice
}

// The states of a connection, for those who want it to end.
const (
	busy  uint32 = iota
	fresh        // waiting for the first request
	idle         // waiting for another one
	ending
)

// step is what comes next on a connection.
type step uint8

const (
	goOn        step = iota // wait for the next request
	readRequest             // its head has not all arrived
	carryOn                 // its head is parsed, and more may have to be read: its body, or what the connection becomes
	handOver                // the client speaks HTTP/2
	switchOver              // the connection becomes something else
	endGently               // the client gets to read its answer
	endNow
)

var lives = sync.Pool{New: func() any { return new(live) }}

// serve carries exchanges one after another, which also answers pipelined ones in order. Requests that have arrived
// whole, as most do, are carried from inside Each; the others need to read more and are carried here.
func (c *conn) serve() {
	defer c.end()
	for {
		c.next = goOn
		if !c.rest() {
			return
		}
		err := c.in.Each(c.arrived)
		if c.next == goOn {
			return // the connection has ended, by itself or by err, while it was idle
		}
		if err == nil && (c.next == readRequest || c.next == carryOn) {
			c.next = c.slow()
		}
		switch c.next {
		case handOver:
			c.toPrior()
			return
		case endGently:
			c.linger()
			return
		case switchOver, endNow:
			return
		}
	}
}

// end closes the connection, whatever happened.
func (c *conn) end() {
	if r := recover(); r != nil {
		c.server.Log.Error("a connection panicked", "panic", r, "stack", string(debug.Stack()))
	}
	if c.live != nil && c.reset {
		c.Conn.Reset()
	}
	c.in.Release()
	switch c.next {
	case switchOver:
		c.becomeTunnel() // to which the connection belongs from now on
		return
	case handOver:
		c.server.conns.Leave(c)
		return
	}
	_ = c.Conn.Close() // the peer has been told everything
	c.done()
	c.server.conns.Leave(c)
}

// rest makes the connection idle. It returns false when it shall end instead.
func (c *conn) rest() bool {
	c.Arm(sock.PhaseRead, c.server.Limits.Load().IdleTime)
	if c.served == 0 {
		c.state.Store(fresh)
		if c.server.draining.Load() {
			c.Arm(sock.PhaseRead, freshTime)
		}
		return true
	}
	c.state.Store(idle)
	return !c.server.draining.Load() || len(c.in.Buffered()) > 0
}

// drain ends the connection if it is idle. One that is fresh gets a moment: its first request is probably on its way.
func (c *conn) drain() {
	if c.state.CompareAndSwap(idle, ending) {
		c.Conn.Interrupt()
	} else if c.state.Load() == fresh {
		c.Arm(sock.PhaseRead, freshTime)
	}
}

// gone is called by the sweeper when the client has closed its side while it is being answered.
func (c *conn) gone() { c.cancel.Cancel() }

// Interrupt implements exchange.Wire.
func (c *conn) Interrupt() {
	c.woken.Store(true)
	c.Conn.WakeReader()
}

// Unhurried implements exchange.Patient. Nobody reads the body yet.
func (c *conn) Unhurried(idle time.Duration) { c.body.idle, c.body.leisure = idle, true }

// arrived carries the requests that have arrived. It is called by Each, inside of which nothing can be read or closed,
// and returns whether the connection waits for the next one.
func (c *conn) arrived() bool {
	if !c.state.CompareAndSwap(idle, busy) && !c.state.CompareAndSwap(fresh, busy) {
		c.next = endNow
		return false
	}
	for len(c.in.Buffered()) > 0 {
		if c.next = c.atHand(); c.next != goOn {
			return false
		}
	}
	return c.rest()
}

// atHand carries a request if all of it stands in the buffer.
func (c *conn) atHand() step {
	l := c.server.Limits.Load()
	b := c.skipEmptyLine()
	if len(b) == 0 {
		return goOn
	}
	end, err := findHead(b, 0)
	if err != nil || end == 0 {
		return readRequest // which meets the error again
	}
	if c.speaksH2(b) {
		return handOver
	}
	c.Disarm()
	c.wake()
	if err := c.parse(b, end, l); err != nil {
		return c.refuse(err)
	}
	if c.head.Chunked || c.head.Length > int64(len(c.in.Buffered())) || c.x.Request.Upgrade != "" {
		return carryOn
	}
	return c.carry(l)
}

// slow carries a request of which more must be read.
func (c *conn) slow() step {
	l := c.server.Limits.Load()
	c.state.Store(busy)
	if c.next == readRequest {
		c.wake()
		switch err := c.readHead(l); {
		case err == errPrior:
			return handOver
		case err != nil:
			return c.refuse(err)
		}
	}
	return c.carry(l)
}

// wake takes what an exchange needs.
func (c *conn) wake() {
	c.live = lives.Get().(*live)
	x := &c.x
	x.Shard, x.Cancel, x.Wire = c.shard, &c.cancel, c
	x.Client = c.client
}

// sleep gives it back.
func (c *conn) sleep() {
	l := c.live
	c.live = nil
	l.x.Reset()
	l.body, l.head, l.method, l.closes, l.broken, l.reset = Body{}, Head{}, "", false, false, false
	lives.Put(l)
}

// carry carries the exchange of a request whose head has been parsed.
func (c *conn) carry(l *Limits) step {
	x := &c.x
	c.served++
	c.closes = c.head.Close || (l.Requests > 0 && c.served >= l.Requests)
	x.Start = c.server.Clock.Now()
	x.Request.Scheme = "http"
	if c.client.TLS != nil {
		x.Request.Scheme, x.Client.Secure = "https", true
	}
	c.beginBody(l)
	if l.Body > 0 && c.head.Length > l.Body {
		return c.refuse(errBodyTooLarge)
	}
	c.Serving()
	c.server.Handler.Serve(x)
	c.Served()
	if x.Finish != nil {
		return switchOver
	}
	c.cancel.Rest()
	return c.finish()
}

// skipEmptyLine returns what is buffered without an empty line before the request line, of which one is ignored
// (RFC 9112 section 2.2).
func (c *conn) skipEmptyLine() []byte {
	b := c.in.Buffered()
	if !c.begun && len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		c.begun = true
		c.in.Discard(2)
		return b[2:]
	}
	return b
}

// parse parses the head that ends at b[end].
func (c *conn) parse(b []byte, end int, l *Limits) (err error) {
	if end > l.Head {
		return errHeadTooLarge
	}
	c.head, err = ParseRequest(b[:end], l, &c.x.Request)
	c.method, c.begun = c.x.Request.Method, false
	c.in.Discard(end)
	if err == nil && c.head.Scheme != "" && (c.head.Scheme == "https") != (c.client.TLS != nil) {
		return errMisdirected // the connection is not what the target says
	}
	return err
}

// readHead reads until a head is complete and parses it.
func (c *conn) readHead(l *Limits) error {
	for scanned := 0; ; {
		before := c.begun
		b := c.skipEmptyLine()
		if c.begun != before {
			scanned = 0
		}
		end, err := findHead(b, scanned)
		if err != nil {
			return err
		}
		if end > 0 {
			c.Disarm()
			if c.speaksH2(b) {
				return errPrior
			}
			return c.parse(b, end, l)
		}
		if err := c.moreHead(l, b, scanned); err != nil {
			return err
		}
		scanned = len(b)
	}
}

// moreHead reads more of a head. The time for it begins with its first bytes.
func (c *conn) moreHead(l *Limits, b []byte, scanned int) error {
	if scanned == 0 {
		if len(b) > 0 && !exchange.IsToken(b[0]) && b[0] != '\r' {
			return errMethod // TLS, or anything else that is not HTTP: it would never become a head
		}
		c.Arm(sock.PhaseRead, l.HeadTime)
	}
	err := c.in.Fill(l.Head)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sock.ErrFull):
		if indexCR(b) < 0 {
			return errTargetTooLong
		}
		return errHeadTooLarge
	case c.Expired():
		return errSlowHead
	case errors.Is(err, io.EOF):
		return errShortHead
	}
	return err
}

func indexCR(b []byte) int {
	for i, c := range b {
		if c == '\r' {
			return i
		}
	}
	return -1
}

func (c *conn) beginBody(l *Limits) {
	r := &c.x.Request
	kind := noBody
	switch {
	case c.head.Chunked:
		kind = byChunks
	case c.head.Length > 0:
		kind = byLength
	}
	c.body.begin(&c.in, &c.head, kind, &r.Trailer, l, l.BodyTime)
	r.Body = exchange.Body{}
	if kind == noBody {
		r.Expect = false
		return
	}
	c.body.meter(c.server.Sweeper)
	r.Body = exchange.Body{Reader: &c.body, Length: c.body.Size()}
}

// finish ends an exchange. What is left of the request's body is skipped if it has arrived already. An exchange that gave the
// body up may have done so when all of it had been read: then the next request can be read too.
func (c *conn) finish() step {
	for !c.broken && c.body.err == nil && c.body.Ready() {
		if _, err := c.body.Next(); err != nil {
			break
		}
	}
	if c.woken.Swap(false) {
		c.Rearm() // before looking whether it was woken for another reason, too
	}
	switch {
	case c.reset:
		return endNow
	case c.closes, c.broken, !c.body.Done(), c.Conn.Interrupted(), c.Expired():
		return endGently
	}
	c.sleep()
	return goOn
}

// refuse answers a request that is not acceptable and ends the connection.
func (c *conn) refuse(err error) step {
	var e *Error
	if !errors.As(err, &e) || e == errShortHead {
		return endNow // nobody to answer
	}
	x := &c.x
	x.Start = c.server.Clock.Now()
	c.closes, c.broken = true, true
	x.Err = &exchange.Error{Code: e.Code, Source: exchange.FromClient, Detail: e.Reason}
	c.server.Handler.Refuse(x)
	return endGently
}

var (
	_ exchange.Wire    = (*conn)(nil)
	_ exchange.Patient = (*conn)(nil)
)
