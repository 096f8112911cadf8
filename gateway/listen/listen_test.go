package listen

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server keeps the connections that it is handed until the test ends them.
type server struct {
	mu    sync.Mutex
	conns []func()
}

func (s *server) Serve(c *sock.Conn, _ exchange.Client, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, func() { _ = c.Close(); done() })
}

func (s *server) served() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// end ends the connection that came first.
func (s *server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[0]()
	s.conns = s.conns[1:]
}

type house struct {
	t       *testing.T
	l       *Listener
	server  server
	metrics *metric.Registry
	ended   chan error

	greeting *Greeting
}

func (h *house) configure(name string, limits Limits) { h.l.Configure(name, limits, h.greeting) }

// open opens a door that is run when the test says so, and closed at its end.
func open(t *testing.T, limits Limits) *house { return openIn(t, limits, nil) }

// openIn is open for a door that shares places with others.
func openIn(t *testing.T, limits Limits, rooms Rooms) *house {
	t.Helper()
	h := &house{t: t, metrics: metric.NewRegistry(), ended: make(chan error, 1)}
	var err error
	h.l, err = Open("main", "127.0.0.1:0", Env{
		Sweeper: sock.NewSweeper(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: h.metrics, Rooms: rooms,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.greeting = &Greeting{Server: func(*exchange.Client) Server { return &h.server }}
	h.configure("main", limits)
	return h
}

func (h *house) run() *house {
	go func() { h.ended <- h.l.Run(context.Background()) }()
	h.t.Cleanup(func() {
		if err := h.l.Close(); err != nil {
			h.t.Error(err)
		}
		if err := <-h.ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
		for h.server.served() > 0 {
			h.server.end()
		}
		if n := h.l.OpenConnections(); n != 0 {
			h.t.Errorf("%d connections are still counted", n)
		}
	})
	return h
}

func (h *house) dial() net.Conn {
	h.t.Helper()
	c, err := net.Dial("tcp", h.l.Bound())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func (h *house) counted(name string) uint64 {
	return h.metrics.Counter(name, "", metric.Label{Name: "listener", Value: h.l.Name()}).Value()
}

func (h *house) until(what string, holds func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestConnectionsWaitUntilTheDoorRuns(t *testing.T) {
	h := open(t, Limits{})
	for range 3 {
		h.dial()
	}
	if h.l.OpenConnections() != 0 {
		t.Error("taken before Run")
	}
	h.run()
	h.until("all are served", func() bool { return h.server.served() == 3 && h.l.OpenConnections() == 3 })
	if h.counted("headgate_connections_accepted_total") != 3 {
		t.Error("not counted")
	}
}

func TestAboveItsLimitADoorLetsTheNextOneWait(t *testing.T) {
	h := open(t, Limits{Connections: 2}).run()
	for range 3 {
		h.dial()
	}
	h.until("the door pauses", func() bool { return h.counted("headgate_accept_pauses_total") == 1 })
	if h.server.served() != 2 {
		t.Fatalf("%d are served", h.server.served())
	}
	h.server.end()
	h.until("the third takes the place of the one that ended", func() bool { return h.server.served() == 2 && h.l.OpenConnections() == 2 })
	h.dial()
	h.configure("main", Limits{Connections: 3})
	h.until("a higher limit lets one more in", func() bool { return h.server.served() == 3 })
}

// places is what several doors share.
type places struct {
	mu      sync.Mutex
	free    int
	changed chan struct{}
}

func (p *places) Full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.free == 0
}

func (p *places) Enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == 0 {
		return false
	}
	p.free--
	return true
}

func (p *places) Leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free++
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *places) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func TestDoorsShareOneBudgetOfConnections(t *testing.T) {
	shared := &places{free: 2, changed: make(chan struct{})}
	a, b := openIn(t, Limits{}, shared).run(), openIn(t, Limits{}, shared).run()
	a.dial()
	a.until("the first is served", func() bool { return a.server.served() == 1 })
	b.dial()
	b.until("the second is served, at the other door", func() bool { return b.server.served() == 1 })
	a.dial()
	b.until("both doors pause", func() bool {
		return a.counted("headgate_accept_pauses_total") == 1 && b.counted("headgate_accept_pauses_total") == 1
	})
	if a.server.served() != 1 {
		t.Fatalf("%d are served at the first door", a.server.served())
	}
	b.server.end() // at the other door
	a.until("the third takes its place", func() bool { return a.server.served() == 2 })
	if shared.Enter() {
		t.Error("a place is left")
	}
}

func TestADoorThatClosesWhileItIsFullLetsGo(t *testing.T) {
	shared := &places{free: 0, changed: make(chan struct{})}
	h := openIn(t, Limits{}, shared).run() // whose end waits for Run
	h.dial()
	h.until("the door pauses", func() bool { return h.counted("headgate_accept_pauses_total") == 1 })
}

func TestWhoIsRefusedGivesHisPlaceBack(t *testing.T) {
	shared := &places{free: 2, changed: make(chan struct{})}
	h := openIn(t, Limits{PerClient: 1}, shared).run()
	h.dial()
	for range 5 {
		if answer, err := io.ReadAll(h.dial()); err != nil || len(answer) == 0 {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	h.until("one place is free", func() bool { return !shared.Full() && h.server.served() == 1 })
}

func TestAClientAboveItsLimitIsToldSo(t *testing.T) {
	h := open(t, Limits{PerClient: 2}).run()
	h.dial()
	h.dial()
	answer, err := io.ReadAll(h.dial())
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	for _, want := range []string{"HTTP/1.1 503 ", "Connection: close", "Retry-After: 1", "application/problem+json"} {
		if !strings.Contains(head, want) {
			t.Errorf("the head lacks %q:\n%s", want, head)
		}
	}
	if !strings.Contains(body, `"code":"too_many_connections"`) {
		t.Errorf("body %s", body)
	}
	h.until("two are served", func() bool { return h.server.served() == 2 })
	if h.counted("headgate_connections_refused_total") != 1 || h.l.OpenConnections() != 2 {
		t.Errorf("%d refused, %d open", h.counted("headgate_connections_refused_total"), h.l.OpenConnections())
	}
	h.server.end()
	h.dial()
	h.until("there is room again", func() bool { return h.server.served() == 2 })
}

func TestTheTableOfClientsHoldsOnlyThoseWithConnections(t *testing.T) {
	h := open(t, Limits{PerClient: 100}).run()
	for range 10 {
		h.dial()
	}
	h.until("all are served", func() bool { return h.server.served() == 10 })
	for range 10 {
		h.server.end()
	}
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	if len(h.l.clients) != 0 {
		t.Errorf("%v", h.l.clients)
	}
}

func TestClosingADoorEndsItsRunEvenWhileItIsFull(t *testing.T) {
	for _, limits := range []Limits{{}, {Connections: 1}} {
		h := open(t, limits)
		ran := make(chan error, 1)
		go func() { ran <- h.l.Run(context.Background()) }()
		h.dial()
		h.until("it is served", func() bool { return h.server.served() == 1 })
		if err := h.l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if h.l.OpenConnections() != 1 {
			t.Error("the connection that came through it did not go on")
		}
		if _, err := net.Dial("tcp", h.l.Bound()); err == nil {
			t.Error("it is still open")
		}
		h.server.end()
	}
}

func TestAFullDoorEndsWithItsContext(t *testing.T) {
	h := open(t, Limits{Connections: 1})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.l.Run(ctx) }()
	h.dial()
	h.until("the door pauses", func() bool { return h.counted("headgate_accept_pauses_total") == 1 })
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	h.server.end()
	if err := h.l.Close(); err != nil {
		t.Error(err)
	}
}

func TestAPortInUseIsNamedWithItsListener(t *testing.T) {
	h := open(t, Limits{}).run()
	_, err := Open("second", h.l.Bound(), Env{})
	if err == nil || !strings.Contains(err.Error(), "listeners.second: "+h.l.Bound()+" is in use") {
		t.Errorf("%v", err)
	}
	if _, err := Open("third", "256.0.0.1:80", Env{}); err == nil ||
		!strings.Contains(err.Error(), "listeners.third") {
		t.Errorf("%v", err)
	}
}

func TestWhatARefusedClientIsToldIsWholeHTTP(t *testing.T) {
	head, body, _ := bytes.Cut(busy, []byte("\r\n\r\n"))
	if !bytes.Contains(head, []byte("Content-Length: ")) || len(body) == 0 || !bytes.HasSuffix(busy, body) {
		t.Errorf("%s", busy)
	}
}

func TestWhoStandsBeforeADoorThatIsClosedIsLetIn(t *testing.T) {
	const crowd = 50
	h := open(t, Limits{Connections: 1})
	ran := make(chan error, 1)
	go func() { ran <- h.l.Run(context.Background()) }()
	h.dial()
	h.until("the first is served", func() bool { return h.server.served() == 1 })
	for range crowd {
		h.dial() // it waits in the kernel
	}
	h.l.limits.Store(&Limits{}) // there is room, which the door learns when it is told to close
	if err := h.l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	if n := h.server.served(); n != 1+crowd {
		t.Errorf("%d of %d are served", n, 1+crowd)
	}
	for h.server.served() > 0 {
		h.server.end()
	}
	if _, err := net.Dial("tcp", h.l.Bound()); err == nil {
		t.Error("it is still open")
	}
}
