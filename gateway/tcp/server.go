// Package tcp carries the connections of listeners that speak no HTTP: bytes as they come, decrypted by the listener or
// passed on by the name that a TLS client asks for. Each connection is one exchange, so that it is recorded as a request is.
package tcp

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/tunnel"
	"headgate/internal/clock"
	"headgate/internal/counter"
	"headgate/internal/crowd"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// Handler finds out where a connection goes and records what became of it.
type Handler interface {
	// Connect opens the upstream's side of the connection; x.Request.Host is the name that was asked for. end must be called
	// when both sides have ended and x says what happened. The error is an *exchange.Error, and then nothing is to be called.
	Connect(x *exchange.Exchange) (c *sock.Conn, end func(), err error)
	// Refuse records a connection that was not acceptable; x.Err says why.
	Refuse(x *exchange.Exchange)
}

// Settings are what a document says about the connections of a listener. 0 is no limit.
type Settings struct {
	ByName    bool          // they are TLS, which is passed on by the name in its ClientHello
	HelloTime time.Duration // for that to be whole, from when the connection was accepted
	Idle      time.Duration // without a byte either way
	Lifetime  time.Duration
	Bytes     int64 // both ways together
	Bandwidth int64 // bytes per second, each way
	Rate      int   // new connections of one client address per second, and at once
}

// Server carries the connections of one listener.
type Server struct {
	Handler Handler
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics *metric.Registry

	current  atomic.Pointer[settings]
	rates    *counter.Local
	networks counter.Networks
	conns    crowd.Of[*conn]
	shards   atomic.Uint32
}

// settings are Settings with what is counted under the listener's name.
type settings struct {
	Settings
	rate  counter.Limiter // nil: any
	ended map[string]*metric.Counter
}

// otherReason is what connections that ended for none of the known reasons are counted by.
const otherReason = "other"

// reasons are those for which a connection ends: by itself or by a limit while it was carried, or before that.
func reasons() (all []string) {
	for _, r := range []tunnel.Reason{
		tunnel.ClientClosed, tunnel.UpstreamClosed, tunnel.ClientFailed, tunnel.UpstreamFailed, tunnel.Idle, tunnel.Lifetime, tunnel.Limit,
		tunnel.Drained,
	} {
		all = append(all, r.String())
	}
	for _, c := range []exchange.Code{
		exchange.ConnectionRate, exchange.NotTLS, exchange.NameNotServed, exchange.RequestTimeout, exchange.ClientGone,
		exchange.UpstreamUnreachable, exchange.UpstreamUnresolved, exchange.UpstreamUntrusted, exchange.NoTarget,
	} {
		all = append(all, c.Name)
	}
	return append(all, otherReason)
}

// New returns a server, which must be configured before it serves.
func New(h Handler, c clock.Clock, log *slog.Logger, m *metric.Registry) *Server {
	return &Server{Handler: h, Clock: c, Log: log, Metrics: m, rates: counter.NewLocal()}
}

// Configure makes the settings those of every connection from now on, which are counted under the listener's name. Open
// connections keep the settings that they began with. Clients keep what they have used of their rate.
func (s *Server) Configure(listener string, o Settings) {
	next := &settings{Settings: o, ended: map[string]*metric.Counter{}}
	if o.Rate > 0 {
		next.rate = s.rates.Limiter("connections", counter.Rate{Limit: int64(o.Rate), Per: time.Second, Burst: int64(o.Rate)})
	}
	for _, reason := range reasons() {
		next.ended[reason] = s.Metrics.Counter("headgate_tcp_connections_ended_total",
			"Connections of TCP listeners that have ended, by the reason: how it ended once both sides were there, "+
				"or the code of what prevented that.",
			metric.Label{Name: "listener", Value: listener}, metric.Label{Name: "reason", Value: reason})
	}
	s.current.Store(next)
}

// Serve carries one connection until it ends, on a goroutine of its own. done is called at the end.
func (s *Server) Serve(sc *sock.Conn, client exchange.Client, done func()) {
	c := &conn{Conn: sc, server: s, settings: s.current.Load()}
	c.x.Shard, c.x.Client, c.x.Cancel, c.x.Wire = s.shards.Add(1), client, &c.cancel, c
	s.conns.Go(c, func() {
		defer done()
		c.serve()
	})
}

// Announce does nothing: there is no way to tell the peer of a connection whose protocol we do not know.
func (s *Server) Announce() {}

// Drain does nothing: nobody but the peers knows when a connection is at rest. The door lets no new ones in.
func (s *Server) Drain() {}

// Wait returns when every connection has ended; those that have not when the context is done are cut off.
func (s *Server) Wait(ctx context.Context) (cut int) {
	return s.conns.Wait(ctx, (*conn).cut)
}
