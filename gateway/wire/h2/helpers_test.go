package h2

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// carrier is a Handler made of a function.
type carrier func(x *exchange.Exchange)

// Serve implements Handler.
func (f carrier) Serve(x *exchange.Exchange) { f(x) }

// Refuse implements Handler as the engine does.
func (carrier) Refuse(x *exchange.Exchange) {
	x.Problem(x.Err.Code, x.Err.Detail)
	_ = x.Wire.Reply(x) // the client may be gone
}

// echo answers with what it was asked: the request's body, or its line and fields.
func echo(x *exchange.Exchange) {
	r := &x.Request
	if r.Path == "/length" {
		known := fmt.Sprintf("%d at hand: ", r.Body.Length)
		if n := r.Body.Reader.(interface{ Len() int }).Len(); int64(n) != r.Body.Length {
			known = "not at hand: "
		}
		r.Body.Reader = io.MultiReader(strings.NewReader(known), r.Body.Reader)
	}
	if !r.Body.None() {
		body, err := io.ReadAll(r.Body.Reader)
		if err != nil {
			fail(x, err)
			return
		}
		x.Answer(200, "text/plain", string(body)+listed(&r.Trailer))
	} else {
		path := r.Path
		if r.HasQuery {
			path += "?" + r.Query
		}
		x.Answer(200, "text/plain", r.Method+" "+r.Host+" "+path+"\n"+listed(&r.Header))
	}
	_ = x.Wire.Reply(x) // the client may be gone
}

func fail(x *exchange.Exchange, err error) {
	e, ok := err.(*exchange.Error)
	if !ok {
		e = &exchange.Error{Code: exchange.Internal, Cause: err}
	}
	x.Problem(e.Code, e.Detail)
	_ = x.Wire.Reply(x) // the client may be gone
}

func listed(h *exchange.Header) string {
	var b strings.Builder
	for name, value := range h.All() {
		b.WriteString(name + "=" + value + "\n")
	}
	return b.String()
}

// rig is a server under test.
type rig struct {
	*Server
	address  string
	registry *metric.Registry
	shut     func() // nobody comes in any more
	stop     func()
}

func limits() *h1.Limits {
	return &h1.Limits{
		Head: 16 << 10, Fields: 100, Target: 4 << 10, HeadTime: 10 * time.Second, IdleTime: 10 * time.Second, BodyTime: 10 * time.Second,
	}
}

// begin starts a server; it is drained and must leave nothing behind when the test ends.
func begin(t testing.TB, serve carrier, change func(l *h1.Limits)) *rig {
	t.Helper()
	l := limits()
	if change != nil {
		change(l)
	}
	sweeper := sock.NewSweeper()
	ctx, cancel := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { _ = sweeper.Run(ctx) })
	registry := metric.NewRegistry()
	s := &Server{Handler: serve, Sweeper: sweeper, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(registry)}
	s.Limits.Store(l)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Server: s, address: listener.Addr().String(), registry: registry}
	var accepts sync.WaitGroup
	r.shut = func() {
		_ = listener.Close()
		accepts.Wait()
	}
	accepts.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			r.take(t, nc)
		}
	})
	r.stop = sync.OnceFunc(func() {
		r.shut()
		s.Drain()
		ended, done := context.WithTimeout(context.Background(), 30*time.Second)
		defer done()
		s.Wait(ended)
		cancel()
		runs.Wait()
		if n := sweeper.Len(); n != 0 {
			t.Errorf("%d sockets are left", n)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) take(t testing.TB, nc net.Conn) {
	c, err := sock.New(nc, r.Sweeper, nil)
	if err != nil {
		t.Error(err)
		return
	}
	r.Serve(c, exchange.Client{Peer: netip.MustParseAddrPort(nc.RemoteAddr().String()), Addr: "127.0.0.1"}, func() {})
}

func (r *rig) counted(name, kind string) (n float64) {
	r.registry.Visit(func(f *metric.Family, s *metric.Series) {
		if f.Name != name {
			return
		}
		for _, l := range s.Labels {
			if l.Value == kind {
				n = float64(s.Counter.Value())
			}
		}
	}, nil)
	return n
}
