package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func terms() *Terms {
	return &Terms{
		Streams: 100, Head: 64 << 10, Fields: 250, Idle: patience, Ping: time.Minute, PingTimeout: patience, Clock: clock.System{},
	}
}

// watcher is an Owner that counts.
type watcher struct {
	free    atomic.Int32
	leaving chan *Conn
}

func newWatcher() *watcher { return &watcher{leaving: make(chan *Conn, 8)} }

func (w *watcher) Free(*Conn)      { w.free.Add(1) }
func (w *watcher) Leaving(c *Conn) { w.leaving <- c }

// sweeper runs until the end of the test.
func sweeper(t *testing.T) *sock.Sweeper {
	t.Helper()
	s := sock.NewSweeper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return s
}

// dial opens a connection to an address.
func dial(t *testing.T, s *sock.Sweeper, address string, terms *Terms, owner Owner) (*Conn, error) {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	sc, err := sock.New(nc, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return Open(ctx, sc, terms, owner)
}

// connect is dial that works, with a connection that ends with the test.
func connect(t *testing.T, address string, terms *Terms) (*Conn, *watcher) {
	t.Helper()
	w := newWatcher()
	c, err := dial(t, sweeper(t), address, terms, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Retire(); c.Wait() })
	return c, w
}

// serveH2C serves a handler over HTTP/2 in clear and returns its address.
func serveH2C(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

// informs is a client's wire that notes informational replies.
type informs struct {
	mu   sync.Mutex
	got  []int
	link string
	cut  func()
	idle time.Duration // that messages may take
}

func (w *informs) Inform(_ *exchange.Exchange, status int, h *exchange.Header) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, status)
	w.link = h.Get("Link")
	return nil
}
func (*informs) Reply(*exchange.Exchange) error { return errors.New("nobody there") }
func (w *informs) Unhurried(idle time.Duration) { w.idle = idle }
func (w *informs) Interrupt() {
	if w.cut != nil {
		w.cut()
	}
}

var plan = &Plan{Scheme: "http", Response: patience, Idle: patience}

func ask(method, path string) *exchange.Exchange {
	x := &exchange.Exchange{Start: time.Now(), Wire: &informs{}, Cancel: new(exchange.Canceler)}
	x.Request = exchange.Request{Method: method, Path: path, Host: "shop.example", Scheme: "http"}
	return x
}

// do makes a call and returns it with the reply's head.
func do(t *testing.T, c *Conn, x *exchange.Exchange, p *Plan) (*Call, error) {
	t.Helper()
	if !c.Reserve() {
		t.Fatal("no place")
	}
	call := NewCall(p)
	call.Prepare(x)
	if err := call.Do(x, c); err != nil {
		return call, err
	}
	return call, nil
}

// fetch makes a call and returns the reply's body.
func fetch(t *testing.T, c *Conn, x *exchange.Exchange) (string, error) {
	t.Helper()
	call, err := do(t, c, x, plan)
	if err != nil {
		call.Close()
		return "", err
	}
	defer call.Close()
	return body(x)
}

func body(x *exchange.Exchange) (string, error) {
	if x.Reply.Body.Reader == nil {
		return "", nil
	}
	b, err := io.ReadAll(x.Reply.Body.Reader)
	return string(b), err
}

// code is the code of an exchange's error.
func code(t *testing.T, err error) string {
	t.Helper()
	var e *exchange.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T: %v", err, err)
	}
	return e.Code.Name
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// slowly is a body that comes in pieces whose ends nobody knows.
func slowly(pieces ...string) exchange.Body {
	readers := make([]io.Reader, len(pieces))
	for i, p := range pieces {
		readers[i] = strings.NewReader(p)
	}
	return exchange.Body{Reader: io.MultiReader(readers...), Length: -1}
}

// echo answers with what it was sent, as it comes.
func echo(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex()
	_, _ = io.Copy(w, r.Body)
}
