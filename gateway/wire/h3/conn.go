package h3

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
)

// conn is one client connection.
type conn struct {
	server *Server
	quic   *quic.Conn
	shard  uint32
	visit  *visit
	known  atomic.Pointer[exchange.Client] // as of the last request: a client may move to another address

	mu        sync.Mutex
	control   *quic.SendStream
	active    int       // streams that are carried
	next      uint64    // the first stream that has not come yet
	served    int       // streams that were taken
	announced time.Time // when the client was told to ask no more here; zero: it was not
	last      bool      // streams from next on are rejected
	ended     bool
	rested    time.Time   // when active last became 0
	timer     *time.Timer // what happens next while nothing does: idle, departing or closing
	resets    int         // of the budget, used up
	refilled  time.Time
	odd       int            // streams of unknown types
	uni       [4]bool        // types of unidirectional streams that are there
	streams   sync.WaitGroup // and everything else that runs for the connection
}

// farthest is a stream that no client reaches: with it GOAWAY asks for no more requests without refusing those that are
// on their way (RFC 9114 section 5.2).
const farthest = 1<<62 - 4

func now() time.Time { return clock.System{}.Now() }

// serve carries the connection until it ends.
func (c *conn) serve() {
	defer c.end()
	ctx := c.quic.Context()
	if err := c.greet(); err != nil {
		c.close(http3.ErrCodeGeneralProtocolError, "no control stream")
		return
	}
	c.streams.Go(c.awaitHandshake)
	c.streams.Go(c.acceptUni)
	for {
		str, err := c.quic.AcceptStream(ctx)
		if err != nil {
			return
		}
		if !c.take(uint64(str.StreamID())) {
			str.CancelRead(streamCode(http3.ErrCodeRequestRejected))
			str.CancelWrite(streamCode(http3.ErrCodeRequestRejected))
			str.ReleaseStreamCredit()
			continue
		}
		c.streams.Go(func() { c.carry(str) })
	}
}

// greet opens the control stream.
func (c *conn) greet() error {
	str, err := c.quic.OpenUniStream()
	if err != nil {
		return err
	}
	settings := appendSetting(nil, settingMaxFieldSection, uint64(c.server.limits().Head))
	settings = appendSetting(settings, settingExtendedConnect, 1)
	b := quicvarint.Append(nil, streamControl)
	b = append(appendFrame(b, frameSettings, uint64(len(settings))), settings...)
	if err := str.TryWriteAll(b); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.control, c.rested = str, now()
	wait := c.server.limits().IdleTime
	if c.server.draining.Load() {
		wait = lastCall
	}
	c.timer = time.AfterFunc(wait, c.idle)
	return nil
}

// awaitHandshake lets the next client shake hands.
func (c *conn) awaitHandshake() {
	select {
	case <-c.quic.HandshakeComplete():
		c.visit.shaken(true)
	case <-c.quic.Context().Done():
	}
}

// end is the end of the connection, whatever happened.
func (c *conn) end() {
	if r := recover(); r != nil {
		c.server.Log.Error("a connection panicked", "panic", r, "stack", string(debug.Stack()))
		c.close(http3.ErrCodeInternalError, "")
	}
	c.mu.Lock()
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.streams.Wait()
}

// take lets a stream in, if it may still come.
func (c *conn) take(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last {
		return false
	}
	c.next = id + 4
	c.active++
	c.served++
	c.timer.Stop()
	switch most := c.server.limits().Requests; {
	case most > 0 && c.served >= most:
		c.depart()
	case c.server.draining.Load():
		c.announce()
	}
	return true
}

// done notes that a stream has ended, and whether the client gave it up.
func (c *conn) done(s *stream) {
	s.str.ReleaseStreamCredit()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget(s.gone.Load() && !s.closed)
	c.active--
	if c.active > 0 || c.ended {
		return
	}
	c.rested = now()
	c.timer.Reset(c.quiet())
}

// quiet returns how long a connection on which nothing is carried may stay. The lock is held.
func (c *conn) quiet() time.Duration {
	switch l := c.server.limits(); {
	case c.last:
		return lingerTime
	case !c.announced.IsZero():
		return min(l.IdleTime, max(lastCall-now().Sub(c.announced), 0))
	default:
		return l.IdleTime
	}
}

// budget holds the client to letting most of what it asks for come to its end. The lock is held.
func (c *conn) budget(givenUp bool) {
	if !givenUp {
		c.resets = max(c.resets-1, 0)
		return
	}
	t := now()
	if refill := int(t.Sub(c.refilled).Seconds() * resetRefill); refill > 0 {
		c.resets, c.refilled = max(c.resets-refill, 0), t
	}
	if c.resets++; c.resets > resetBudget {
		go c.violated(errResets) // which waits for the connection to end, and so for this stream
	}
}

// idle is called when nothing has been carried for the time that quiet has said.
func (c *conn) idle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active > 0 || c.ended {
		return
	}
	if !c.last {
		c.depart()
	}
	if wait := lingerTime - now().Sub(c.rested); wait > 0 && c.served > 0 {
		c.timer.Reset(wait)
		return
	}
	go c.close(http3.ErrCodeNoError, "")
}

// announce asks the client for no more requests on this connection. The lock is held.
func (c *conn) announce() {
	if c.announced.IsZero() && !c.last {
		c.announced = now()
		c.goAway(farthest)
	}
}

// depart rejects every request that has not come yet, which the client may safely repeat elsewhere, and ends the
// connection when those that have come are answered. The lock is held.
func (c *conn) depart() {
	if c.last {
		return
	}
	c.last = true
	if c.announced.IsZero() {
		c.announced = now()
	}
	c.goAway(c.next)
	if c.active == 0 && !c.ended {
		c.timer.Reset(max(lingerTime-now().Sub(c.rested), 0))
	}
}

// goAway sends a GOAWAY frame (RFC 9114 section 7.2.6).
func (c *conn) goAway(id uint64) {
	b := appendFrame(nil, frameGoAway, uint64(quicvarint.Len(id)))
	if err := c.control.TryWriteAll(quicvarint.Append(b, id)); errors.Is(err, quic.ErrWouldBlock) {
		go c.violated(errControlFlood) // it leaves our control stream no room
	}
}

// announceServed is announce for a connection that has asked something already. Another one is told with its first
// request: a client that is told before would have to connect again for it.
func (c *conn) announceServed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.control != nil && !c.ended && c.served > 0 {
		c.announce()
	}
}

// drain ends the connection after what it carries.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.control == nil || c.ended:
		return
	case c.served == 0:
		c.timer.Reset(lastCall)
		return
	}
	c.announce()
	if c.active == 0 {
		c.timer.Reset(c.quiet())
		return
	}
	c.streams.Go(func() { // those on their way get a moment
		t := time.NewTimer(lastCall)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.quic.Context().Done():
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.depart()
	})
}

// violated ends the connection of a client that has broken the protocol or asks too much.
func (c *conn) violated(v *violation) {
	c.server.violation(v)
	c.close(v.code, v.reason)
}

// close ends the connection. It returns when the client has been told.
func (c *conn) close(code http3.ErrCode, reason string) {
	_ = c.quic.CloseWithError(quic.ApplicationErrorCode(code), reason) // it never fails
}

// client returns who is at the other end now.
func (c *conn) client() exchange.Client {
	addr, _ := c.quic.RemoteAddr().(*net.UDPAddr)
	early := false
	select {
	case <-c.quic.HandshakeComplete():
	default:
		early = true
	}
	old := c.known.Load()
	peer := peerOf(addr)
	if old != nil && old.Peer == peer && old.TLS.Early == early {
		return *old
	}
	fresh := exchange.Client{Peer: peer, Addr: peer.Addr().String(), Secure: true}
	if old != nil && old.TLS.Early == early {
		fresh.TLS = old.TLS
	} else {
		fresh.TLS = c.server.describe(c.state(early), early)
	}
	c.known.Store(&fresh)
	return fresh
}

// state returns the state of the handshake. As long as that goes on the library would wait for it.
func (c *conn) state(early bool) tls.ConnectionState {
	if !early {
		return c.quic.ConnectionState().TLS
	}
	s := tls.ConnectionState{Version: tls.VersionTLS13, NegotiatedProtocol: http3.NextProtoH3, DidResume: true}
	if name := c.visit.name.Load(); name != nil {
		s.ServerName = *name
	}
	return s
}

func peerOf(a *net.UDPAddr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// cut ends the connection in the middle of what it carries.
func (c *conn) cut() { c.close(http3.ErrCodeInternalError, "the gateway stops") }
