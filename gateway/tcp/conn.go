package tcp

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/listen/hello"
	"headgate/gateway/wire/tunnel"
	"headgate/internal/sock"
)

// conn is one connection of a client.
type conn struct {
	*sock.Conn
	server   *Server
	settings *settings
	x        exchange.Exchange
	cancel   exchange.Canceler
	drained  atomic.Bool // it was cut off by a drain
	up       *sock.Conn  // the upstream's side; nil: not yet
	finish   func()      // records what became of it; nil: there is nothing to record, or it has been
}

// serve carries the connection from its first byte to its last.
func (c *conn) serve() {
	defer c.end()
	x := &c.x
	x.Start = c.server.Clock.Now()
	x.Request.Proto, x.Request.Scheme = "TCP", "tcp"
	if t := x.Client.TLS; t != nil {
		x.Request.Host = t.ServerName
	}
	if !c.withinRate() {
		c.refuse(&exchange.Error{Code: exchange.ConnectionRate, Source: exchange.FromClient})
		return
	}
	if c.settings.ByName && !c.readName() {
		return
	}
	up, finish, err := c.server.Handler.Connect(x)
	if err != nil {
		c.failed(err)
		return
	}
	c.up, c.finish = up, finish
	c.relay()
}

// withinRate reports whether the client may open one more connection now.
func (c *conn) withinRate() bool {
	if c.settings.rate == nil {
		return true
	}
	r, _, _ := c.settings.rate.Take(c.server.networks.Key(c.x.Client.Peer.Addr()), 1, c.x.Start, false) // always ready, never fails
	return r.Allowed
}

// readName reads whom the client asks for. It returns false when the connection has come to nothing.
func (c *conn) readName() bool {
	h, err := hello.Peek(c.Conn, c.settings.HelloTime)
	switch {
	case err == nil:
		c.x.Request.Host = h.ServerName
		return true
	case errors.Is(err, hello.ErrNotTLS):
		c.refuse(&exchange.Error{Code: exchange.NotTLS, Source: exchange.FromClient, Cause: err})
	case errors.Is(err, hello.ErrMalformed), errors.Is(err, hello.ErrTooLong):
		c.refuse(&exchange.Error{Code: exchange.NotTLS, Source: exchange.FromClient, Cause: err})
		c.alert(alertDecodeError)
	case errors.Is(err, hello.ErrTimeout):
		c.refuse(&exchange.Error{Code: exchange.RequestTimeout, Source: exchange.FromClient, Cause: err})
	case errors.Is(err, hello.ErrShort):
		c.refuse(&exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err})
	}
	return false // otherwise it ended without a byte, as those of load balancers do that look whether we live
}

// refuse records a connection that comes to nothing.
func (c *conn) refuse(e *exchange.Error) {
	c.x.Err = e
	c.count(e.Code.Name)
	c.server.Handler.Refuse(&c.x)
}

// failed is what becomes of a client for whom there is no upstream.
func (c *conn) failed(err error) {
	var e *exchange.Error
	if !errors.As(err, &e) {
		c.count(otherReason)
		return
	}
	c.count(e.Code.Name)
	if e.Code == exchange.NameNotServed && c.settings.ByName {
		c.alert(alertUnrecognizedName)
	}
}

// relay carries bytes both ways until the end.
func (c *conn) relay() {
	o := &c.settings.Settings
	if !c.cancel.Guard(c) { // it was cut off a moment ago
		c.Interrupt()
	}
	r := tunnel.Relay(c.Conn, c.up, tunnel.Options{Idle: o.Idle, Lifetime: o.Lifetime, Bytes: o.Bytes, Bandwidth: o.Bandwidth})
	c.cancel.Guard(nil)
	x := &c.x
	x.Usage.RequestBytes, x.Usage.ReplyBytes = r.Sent, r.Received
	ended := r.Ended
	if ended == tunnel.Cut && c.drained.Load() {
		ended = tunnel.Drained
	}
	x.Usage.Closed = ended.String()
	c.count(x.Usage.Closed)
	switch {
	case ended == tunnel.ClientFailed:
		x.Err = &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: r.Err}
	case ended == tunnel.UpstreamFailed:
		x.Err = &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream, Cause: r.Err}
	}
	switch ended {
	case tunnel.ClientClosed, tunnel.UpstreamClosed:
		x.Usage.Aborted = r.Err != nil || c.drained.Load()
	case tunnel.Idle: // nothing is under way
	default:
		x.Usage.Aborted = true
	}
}

// count counts the connection by the reason of its end.
func (c *conn) count(reason string) {
	n := c.settings.ended[reason]
	if n == nil {
		n = c.settings.ended[otherReason]
	}
	n.Inc(c.x.Shard)
}

// end closes both sides, whatever happened. Where bytes may be missing neither must take what came for the whole: a
// connection that is reset says so.
func (c *conn) end() {
	if r := recover(); r != nil {
		c.server.Log.Error("a connection panicked", "panic", r, "stack", string(debug.Stack()))
		c.x.Err = &exchange.Error{Code: exchange.Internal, Source: exchange.FromGateway, Cause: fmt.Errorf("panic: %v", r)}
		c.x.Usage.Aborted = true
		c.count(otherReason)
	}
	whole := c.up != nil && !c.x.Usage.Aborted
	for _, side := range [...]*sock.Conn{c.up, c.Conn} {
		switch {
		case side == nil:
		case whole:
			_ = side.Close() // it has been told that nothing more comes
		default:
			side.Reset()
		}
	}
	if c.finish != nil {
		c.finish()
	}
	c.cancel.Rest()
}

// cut ends the connection from outside, whatever it does.
func (c *conn) cut() {
	c.drained.Store(true)
	c.cancel.Cancel()  // what it waits for: its upstream, or bytes of either side
	c.Conn.Interrupt() // or its ClientHello
}

// Alerts of RFC 8446 section 6.2.
const (
	alertDecodeError      = 50
	alertUnrecognizedName = 112
)

const (
	// lingerTime and lingerBytes bound how long, and for how much of what it still sends, a client that gets an alert is
	// listened to: closing at once would reset the connection, and the alert would be lost.
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 10
)

// alert tells a TLS client why there is nobody for it: a record of its own, in clear as all are before a ServerHello. It
// waits until the client has read it and gone.
func (c *conn) alert(description byte) {
	const alertRecord, fatal = 21, 2
	c.Arm(sock.PhaseWrite, lingerTime)
	defer c.Disarm()
	if _, err := c.Write([]byte{alertRecord, 3, 3, 0, 2, fatal, description}); err != nil || c.CloseWrite() != nil {
		return
	}
	buf := sock.Get()
	defer sock.Put(buf)
	for total := 0; total < lingerBytes; {
		n, err := c.Read(*buf)
		if err != nil {
			return
		}
		total += n
	}
}

// Interrupt implements exchange.Wire, and exchange.Interrupter while bytes are carried: one direction may have ended already,
// and then only the upstream's side is waited for.
func (c *conn) Interrupt() {
	c.Conn.Interrupt()
	if c.up != nil {
		c.up.Interrupt()
	}
}

// Inform implements exchange.Wire: there is nothing to be informed of.
func (c *conn) Inform(*exchange.Exchange, int, *exchange.Header) error { return errNoHTTP }

// Reply implements exchange.Wire: there is no reply.
func (c *conn) Reply(*exchange.Exchange) error { return errNoHTTP }

var errNoHTTP = errors.New("tcp: the connection carries no HTTP")

var _ exchange.Wire = (*conn)(nil)
