package h2

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
	"headgate/internal/clock"
	"headgate/internal/crowd"
	"headgate/internal/sock"
)

// Server carries the HTTP/2 connections of one listener, encrypted or not.
type Server struct {
	Handler exchange.Handler
	// Limits are those of the listener. Head counts as RFC 9113 section 6.5.2 does: 32 bytes for each field, too.
	Limits  atomic.Pointer[h1.Limits]
	Sweeper *sock.Sweeper
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics *Metrics

	workers  workers
	conns    crowd.Of[*conn]
	shards   atomic.Uint32
	leaving  atomic.Bool // every connection has been said goodbye to, and new ones are with their first request
	drained  atomic.Bool // and nothing new is taken any more
	date     atomic.Pointer[dateValue]
	lastCall atomic.Pointer[time.Timer]
}

// Serve carries one connection until it ends. done is called at the end.
func (s *Server) Serve(sc *sock.Conn, client exchange.Client, done func()) {
	c := newConn(s, sc, client)
	s.conns.Go(c, func() {
		defer done()
		c.serve()
	})
}

// Announce tells every client that it should open another connection for its next requests (RFC 9113 section 6.8). Those
// that are on their way are still taken.
func (s *Server) Announce() {
	s.leaving.Store(true)
	for c := range s.conns.All() {
		c.goodbye()
	}
}

// Drain makes every connection end with its last stream. Requests that were on their way are taken for goodbyeTime, or
// until the client has confirmed that it knows.
func (s *Server) Drain() {
	s.Announce()
	s.drained.Store(true)
	s.lastCall.Store(time.AfterFunc(goodbyeTime, func() {
		for c := range s.conns.All() {
			c.lastCall()
		}
	}))
}

// Wait returns when every connection has ended; those that have not when the context is done are cut off. Nothing is
// served after it.
func (s *Server) Wait(ctx context.Context) (cut int) {
	defer s.workers.close()
	cut = s.conns.Wait(ctx, (*conn).cut)
	if t := s.lastCall.Load(); t != nil {
		t.Stop()
	}
	return cut
}

// dateValue is the Date field's value of one second.
type dateValue struct {
	second int64
	value  string
}

// dateOf returns a Date field's value (RFC 9110 section 6.6.1), rendered once for each second.
func (s *Server) dateOf(now time.Time) string {
	d := s.date.Load()
	if second := now.Unix(); d == nil || d.second != second {
		d = &dateValue{second, now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
		s.date.Store(d)
	}
	return d.value
}
