package h1

import (
	"context"
	"log/slog"
	"sync/atomic"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/crowd"
	"headgate/internal/sock"
)

// Server carries the connections of one listener.
type Server struct {
	Handler exchange.Handler
	Limits  atomic.Pointer[Limits]
	// Prior carries a connection on which a client speaks HTTP/2 because it knows that it can (RFC 9113 section 3.3). It
	// gets all bytes that came. Empty: such a client is refused.
	Prior   atomic.Pointer[Prior]
	Sweeper *sock.Sweeper
	Clock   clock.Clock
	Log     *slog.Logger

	conns    crowd.Of[*conn]
	shards   atomic.Uint32
	draining atomic.Bool
	date     atomic.Pointer[dateLine]
}

// Serve carries one connection until it ends. done is called at the end.
func (s *Server) Serve(sc *sock.Conn, client exchange.Client, done func()) {
	c := &conn{Conn: sc, server: s, client: client, shard: s.shards.Add(1), done: done}
	c.in.Conn = sc
	sc.Watch(c.gone)
	s.conns.Join(c)
	go c.serve()
}

// Announce makes every reply from now on the last one of its connection, which it says.
func (s *Server) Announce() { s.draining.Store(true) }

// Drain makes every connection end after the exchange that it carries, idle ones at once.
func (s *Server) Drain() {
	s.Announce()
	for c := range s.conns.All() {
		c.drain()
	}
}

// Wait returns when every connection has ended; those that have not when the context is done are cut off.
func (s *Server) Wait(ctx context.Context) (cut int) {
	return s.conns.Wait(ctx, func(c *conn) {
		c.Conn.Interrupt()
		c.gone()
	})
}
