package h1

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/sock"
)

// Handler carries one exchange from its request to the end of its reply, which it sends through x.Wire.
type Handler interface {
	Serve(x *exchange.Exchange)
	// Refuse answers and records a request that is not acceptable; x.Err says why.
	Refuse(x *exchange.Exchange)
}

// Server carries the connections of one listener.
type Server struct {
	Handler Handler
	Limits  atomic.Pointer[Limits]
	Sweeper *sock.Sweeper
	Clock   clock.Clock
	Log     *slog.Logger

	conns    sync.Map // *conn -> struct{}
	open     sync.WaitGroup
	shards   atomic.Uint32
	draining atomic.Bool
}

// Serve carries one connection until it ends. done is called at the end.
func (s *Server) Serve(nc net.Conn, done func()) {
	c := &conn{server: s, shard: s.shards.Add(1)}
	sc, err := sock.New(nc, s.Sweeper, c.gone)
	if err != nil {
		s.Log.Error("a connection could not be taken over", "error", err)
		_ = nc.Close() // the connection is of no use; its error was the one before
		done()
		return
	}
	c.Conn, c.in.Conn = sc, sc
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		c.peer = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		c.addr = c.peer.Addr().String()
	}
	s.open.Add(1)
	s.conns.Store(c, struct{}{})
	go func() {
		defer done()
		defer s.open.Done()
		defer s.conns.Delete(c)
		c.serve()
	}()
}

// Drain makes every connection end after the exchange that it carries, idle ones at once.
func (s *Server) Drain() {
	s.draining.Store(true)
	for c := range s.all() {
		c.drain()
	}
}

// Wait returns when every connection has ended; those that have not when the context is done are cut off.
func (s *Server) Wait(ctx context.Context) (cut int) {
	ended := make(chan struct{})
	go func() {
		s.open.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return 0
	case <-ctx.Done():
	}
	for c := range s.all() {
		cut++
		c.gone()
		c.Conn.Interrupt()
	}
	<-ended
	return cut
}

func (s *Server) all() func(func(*conn) bool) {
	return func(yield func(*conn) bool) {
		s.conns.Range(func(k, _ any) bool {
			c, ok := k.(*conn)
			return ok && yield(c)
		})
	}
}

// conn is one client connection.
type conn struct {
	*sock.Conn
	server *Server
	shard  uint32
	peer   netip.AddrPort
	addr   string
	in     sock.Reader
	cancel exchange.Canceler
	served int

	mu   sync.Mutex
	idle bool // waiting for a request; under mu with draining

	*live // nil while idle
}

// live is what a connection needs while it carries an exchange, and only then.
type live struct {
	x      exchange.Exchange
	body   Body
	head   Head
	closes bool // after this exchange
	broken bool // nothing more can be read from the client
}

var lives = sync.Pool{New: func() any { return new(live) }}

// serve carries exchanges one after another, which also answers pipelined ones in order.
func (c *conn) serve() {
	defer func() {
		if r := recover(); r != nil {
			c.server.Log.Error("a connection panicked", "panic", r, "stack", string(debug.Stack()))
		}
		c.in.Release()
		_ = c.Conn.Close() // the peer has been told everything
	}()
	for c.await() {
		l := c.server.Limits.Load()
		c.live = lives.Get().(*live)
		goOn := c.exchange(l)
		c.live.x.Reset()
		*c.live = live{x: c.live.x}
		lives.Put(c.live)
		c.live = nil
		if !goOn {
			return
		}
		c.in.ReleaseEmpty()
	}
}

// await waits for the first bytes of a request.
func (c *conn) await() bool {
	if len(c.in.Buffered()) > 0 {
		return true
	}
	c.mu.Lock()
	c.idle = true
	drained := c.server.draining.Load()
	c.mu.Unlock()
	if drained {
		return false
	}
	c.Arm(sock.PhaseRead, c.server.Limits.Load().IdleTime)
	err := c.in.Await()
	c.mu.Lock()
	c.idle = false
	c.mu.Unlock()
	return err == nil
}

// drain ends the connection if it is idle.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle {
		c.Conn.Interrupt()
	}
}

// gone is called by the sweeper when the client has closed its side while it is being answered.
func (c *conn) gone() { c.cancel.Cancel() }

// exchange carries one request and its reply, and reports whether the connection goes on.
func (c *conn) exchange(l *Limits) bool {
	x := &c.x
	x.Shard, x.Cancel, x.Wire = c.shard, &c.cancel, c
	x.Client.Peer, x.Client.Addr = c.peer, c.addr
	if err := c.readHead(l); err != nil {
		return c.refuse(l, err)
	}
	c.served++
	c.closes = c.head.Close || (l.Requests > 0 && c.served >= l.Requests)
	x.Start = c.server.Clock.Now()
	x.Request.Scheme = "http"
	c.beginBody(l)
	if l.Body > 0 && c.head.Length > l.Body {
		return c.refuse(l, errBodyTooLarge)
	}
	c.Serving()
	c.server.Handler.Serve(x)
	c.Served()
	c.cancel.Rest()
	return c.finish()
}

// readHead reads until a head is complete and parses it.
func (c *conn) readHead(l *Limits) error {
	if b := c.in.Buffered(); len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		c.in.Discard(2) // RFC 9112 section 2.2: one empty line before the request line is ignored
	}
	for scanned := 0; ; {
		b := c.in.Buffered()
		end, err := findHead(b, scanned)
		if err != nil {
			return err
		}
		if end > l.Head {
			return errHeadTooLarge
		}
		if end > 0 {
			c.Disarm()
			c.head, err = ParseRequest(b[:end], l, &c.x.Request)
			c.in.Discard(end)
			return err
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
		if i := span(b, inPath|inQuery|inHost); i == len(b) || len(b) > 0 && indexCR(b) < 0 {
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

// finish reports whether the connection can carry another exchange. What is left of the request's body is read if it
// has arrived already; a client that is still sending gets a moment to read its answer, and then the end.
func (c *conn) finish() bool {
	for !c.broken && !c.body.Done() && len(c.in.Buffered()) > 0 && c.body.err == nil {
		if _, err := c.body.Next(); err != nil {
			break
		}
	}
	if c.closes || c.broken || !c.body.Done() || c.Conn.Interrupted() || c.Expired() {
		c.linger()
		return false
	}
	return true
}

// linger closes the sending side and throws away what still comes, within bounds: closing at once would reset the
// connection, and the client would lose the answer (RFC 9112 section 9.6).
func (c *conn) linger() {
	if c.Conn.CloseWrite() != nil {
		return
	}
	c.Conn.Rearm()
	c.Arm(sock.PhaseRead, lingerTime)
	c.in.Release()
	buf := sock.Get()
	defer sock.Put(buf)
	for total := 0; total < lingerBytes; {
		n, err := c.Conn.Read(*buf)
		if err != nil {
			return
		}
		total += n
	}
}

// refuse answers a request that is not acceptable and ends the connection.
func (c *conn) refuse(l *Limits, err error) bool {
	var e *Error
	if !errors.As(err, &e) || e == errShortHead {
		return false // nobody to answer
	}
	x := &c.x
	x.Start = c.server.Clock.Now()
	c.closes, c.broken = true, true
	x.Err = &exchange.Error{Code: e.Code, Source: exchange.FromClient, Detail: e.Reason}
	c.server.Handler.Refuse(x)
	c.linger()
	return false
}

// Interrupt implements exchange.Wire.
func (c *conn) Interrupt() {
	c.Conn.WakeReader()
}

var _ exchange.Wire = (*conn)(nil)
