package upstream

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"headgate/config/model"
)

// tick lets the coarse clock of a sweeper that does not run catch up.
func tick(t *testing.T, e Env) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for before := e.Sweeper.Coarse(); e.Sweeper.Coarse() == before; {
		if err := e.Sweeper.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// fewIdle asks targets over HTTP/2 in turn and keeps so many connections of all.
func fewIdle(total int) func(m *model.Upstream) {
	return func(m *model.Upstream) {
		overH2C(m)
		unlimited(m)
		m.Pool.IdleTotal, m.Balance.Algorithm = total, "round-robin"
	}
}

// Of four targets that are asked one after the other two may have an idle connection: those who were asked last.
func TestIdleConnectionsOverHTTP2CountAmongAll(t *testing.T) {
	var targets []string
	for range 4 {
		targets = append(targets, serveH2C(t, 0, hello))
	}
	e := env(io.Discard)
	u := build(t, e, config(fewIdle(2), targets...))
	at := map[string]int{}
	for i, a := range targets {
		at[a] = i
	}
	var asked []int
	for range targets {
		tick(t, e)
		x := ask("GET")
		if status, code := send(t, u, x); status != 200 {
			t.Fatal(status, code)
		}
		asked = append(asked, at[x.Usage.Target])
		until(t, "the surplus one has gone", func() bool { return e.Sweeper.Len() == min(len(asked), 2) })
	}
	for i, target := range asked {
		s, kept := connections(u, target), i >= 2
		if kept && (s.IdleH2 != 1 || s.Open != 1) || !kept && (s.IdleH2 != 0 || s.Open != 0 || s.Closed["surplus"] != 1) {
			t.Errorf("asked as number %d: %+v", i+1, s)
		}
	}
	if s := u.Status().Targets[asked[3]]; s.H2Conns != 1 || s.H2Idle != 1 {
		t.Errorf("%+v", s)
	}
	// Using them again costs no place, and what is there is used.
	for range 8 {
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Fatal(status, code)
		}
	}
	until(t, "two are left", func() bool { return e.Sweeper.Len() == 2 })
}

// Connections over both versions of HTTP share the places; the one over HTTP/2 makes room only among its like.
func TestBothVersionsOfHTTPShareThePlaces(t *testing.T) {
	one := serve(t, answers(ok, 0)).address()
	e := env(io.Discard)
	u := build(t, e, config(func(m *model.Upstream) {
		m.Targets = append(m.Targets, model.Target{URL: "h2c://" + serveH2C(t, 0, hello), Weight: 1})
		m.Pool.IdleTotal, m.Balance.Algorithm = 1, "round-robin"
	}, one))
	for range 8 {
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Fatal(status, code)
		}
		until(t, "one is kept, and no more", func() bool { return e.Sweeper.Len() == 1 })
	}
	first, second := connections(u, 0), connections(u, 1)
	if first.Idle+second.IdleH2 != 1 || first.Closed["surplus"]+second.Closed["surplus"] == 0 {
		t.Errorf("%+v and %+v", first, second)
	}
}

// A connection with a call is not idle, however few are kept; when it has none any more it goes, unless there is room.
func TestABusyConnectionOverHTTP2IsNotDismissed(t *testing.T) {
	release, inside := make(chan struct{}), atomic.Int32{}
	slow := func(http.ResponseWriter, *http.Request) { inside.Add(1); <-release }
	e := env(io.Discard)
	u := build(t, e, config(fewIdle(1), serveH2C(t, 0, slow), serveH2C(t, 0, slow), serveH2C(t, 0, slow)))
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() {
			if status, code := send(t, u, ask("GET")); status != 200 {
				t.Error(status, code)
			}
		})
	}
	until(t, "all are under way", func() bool { return inside.Load() == 3 })
	u.Tidy()
	u.Tidy()
	if n := e.Sweeper.Len(); n != 3 {
		t.Errorf("%d connections for 3 calls", n)
	}
	close(release)
	calls.Wait()
	until(t, "one is kept", func() bool { return e.Sweeper.Len() == 1 })
}

// With idle_per_target a target of several connections keeps as many; with none, no connection outlives its calls.
func TestIdleConnectionsOverHTTP2OfOneTargetAreBounded(t *testing.T) {
	for _, limit := range []int{0, 1, 3} {
		release, inside := make(chan struct{}), atomic.Int32{}
		address := serveH2C(t, 0, func(http.ResponseWriter, *http.Request) { inside.Add(1); <-release })
		e := env(io.Discard)
		u := build(t, e, config(func(m *model.Upstream) {
			overH2C(m)
			unlimited(m)
			m.HTTP2.Streams, m.Pool.IdlePerTarget, m.Timeouts.Connect = 1, limit, time.Minute
		}, address))
		var calls sync.WaitGroup
		for range 5 {
			calls.Go(func() {
				if status, code := send(t, u, ask("GET")); status != 200 {
					t.Error(status, code)
				}
			})
		}
		until(t, "all are under way", func() bool { return inside.Load() == 5 })
		close(release)
		calls.Wait()
		until(t, "the others have gone", func() bool { return e.Sweeper.Len() == limit })
		if s := connections(u, 0); s.IdleH2 != limit || s.Closed["surplus"] != uint64(5-limit) {
			t.Errorf("%d allowed: %+v", limit, s)
		}
	}
}

// A crowd that makes connections come and go all the time loses no request, and at the end no place is missing.
func TestNoRequestIsLostWhileConnectionsOverHTTP2MakeRoomForOthers(t *testing.T) {
	var targets []string
	for range 6 {
		targets = append(targets, serveH2C(t, 2, hello))
	}
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(func(m *model.Upstream) {
		fewIdle(2)(m)
		m.HTTP2.Connections, m.Timeouts.Connect = 4, time.Minute
	}, targets...))
	var calls sync.WaitGroup
	for i := range 16 {
		calls.Go(func() {
			for range 100 {
				x := ask("GET")
				x.Shard = uint32(i)
				if status, code := send(t, u, x); status != 200 {
					t.Error(status, code)
				}
				if i == 0 {
					u.Tidy()
				}
			}
		})
	}
	calls.Wait()
	until(t, "no more are kept than allowed", func() bool { u.Tidy(); return e.Sweeper.Len() <= 2 })
	for range 6 { // each target again: the places that are free can be taken
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Error(status, code)
		}
	}
	until(t, "as many as allowed are kept", func() bool { return e.Sweeper.Len() == 2 })
}

// overheard is a listener that remembers what its connections have received.
type overheard struct {
	net.Listener
	mu    sync.Mutex
	conns []*ear
}

type ear struct {
	net.Conn
	of    *overheard
	heard bytes.Buffer
	ended bool
}

func (l *overheard) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	e := &ear{Conn: c, of: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, e)
	return e, nil
}

func (e *ear) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	e.of.mu.Lock()
	defer e.of.mu.Unlock()
	e.heard.Write(b[:n])
	e.ended = err != nil
	return n, err
}

// The target is told that a surplus connection ends, and that nothing went wrong (RFC 9113 section 6.8).
func TestASurplusConnectionOverHTTP2SaysGoodbye(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ears := &overheard{Listener: l}
	s := &http.Server{Handler: http.HandlerFunc(hello), Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ears) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	u := build(t, env(io.Discard), config(fewIdle(0), l.Addr().String()))
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Fatal(status, code)
	}
	until(t, "the connection has ended", func() bool {
		ears.mu.Lock()
		defer ears.mu.Unlock()
		return len(ears.conns) == 1 && ears.conns[0].ended
	})
	ears.mu.Lock()
	defer ears.mu.Unlock()
	heard := &ears.conns[0].heard
	heard.Next(len(http2.ClientPreface))
	var last http2.Frame
	for f := http2.NewFramer(nil, heard); ; {
		frame, err := f.ReadFrame()
		if err != nil {
			break
		}
		last = frame
	}
	if g, ok := last.(*http2.GoAwayFrame); !ok || g.ErrCode != http2.ErrCodeNo {
		t.Errorf("the last frame is %v", last)
	}
}
