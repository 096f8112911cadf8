package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is a log that may be written and read at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func env(w io.Writer) Env {
	return Env{Sweeper: sock.NewSweeper(), Clock: clock.System{}, Log: slog.New(slog.NewTextHandler(w, nil)), Metrics: metric.NewRegistry()}
}

// config returns the defaults with targets at the addresses, changed by change.
func config(change func(*model.Upstream), addresses ...string) model.Upstream {
	var m model.Upstream
	m.SetDefaults()
	for _, a := range addresses {
		m.Targets = append(m.Targets, model.Target{URL: "http://" + a, Weight: 1})
	}
	if change != nil {
		change(&m)
	}
	return m
}

func build(t *testing.T, e Env, m model.Upstream) *Upstream {
	t.Helper()
	u, err := New("shop", m, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// sweep runs the sweeper until the end of the test.
func sweep(t *testing.T, s *sock.Sweeper) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
}

// origin is a service that does on every connection, in order of arrival, what the test says; the last script is for
// all further ones.
type origin struct {
	net.Listener
	mu    sync.Mutex
	heard []string
	runs  sync.WaitGroup
}

type script func(o *origin, c net.Conn)

func serve(t *testing.T, scripts ...script) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{Listener: l}
	o.runs.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.runs.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				scripts[min(n, len(scripts)-1)](o, c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); o.runs.Wait() })
	return o
}

func (o *origin) address() string { return o.Addr().String() }

// requests returns how often the service was asked.
func (o *origin) requests() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.heard)
}

// hear reads one request; false: there is none.
func (o *origin) hear(c net.Conn) bool {
	var got []byte
	for b := make([]byte, 1); !bytes.HasSuffix(got, []byte("\r\n\r\n")); {
		if _, err := io.ReadFull(c, b); err != nil {
			return false
		}
		got = append(got, b...)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard = append(o.heard, string(got))
	return true
}

// answers answers each request with the reply; n: then it closes, 0: never.
func answers(reply string, n int) script {
	return func(o *origin, c net.Conn) {
		for i := 0; (n == 0 || i < n) && o.hear(c); i++ {
			if _, err := io.WriteString(c, reply); err != nil {
				return
			}
		}
	}
}

// drops hears a request and closes without a byte of a reply.
func drops(o *origin, c net.Conn) { o.hear(c) }

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// answersThenDrops answers n requests and closes at the next one.
func answersThenDrops(n int) script {
	return func(o *origin, c net.Conn) {
		answers(ok, n)(o, c)
		drops(o, c)
	}
}

func ask(method string) *exchange.Exchange {
	x := &exchange.Exchange{Start: time.Now(), Wire: noWire{}, Cancel: new(exchange.Canceler)}
	x.Request = exchange.Request{Method: method, Path: "/", Host: "shop.example", Scheme: "http"}
	return x
}

type noWire struct{}

func (noWire) Inform(*exchange.Exchange, int, *exchange.Header) error { return nil }
func (noWire) Reply(*exchange.Exchange) error                         { return errors.New("nobody there") }
func (noWire) Interrupt()                                             {}

// send sends x, reads the reply to its end and returns its status; 0 and the problem's code when there is none.
func send(t *testing.T, u *Upstream, x *exchange.Exchange) (int, string) {
	t.Helper()
	call, err := u.Send(x)
	if err != nil {
		var e *exchange.Error
		if !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		return 0, e.Code.Name
	}
	defer call.Close()
	if x.Reply.Body.Reader != nil {
		if _, err := io.Copy(io.Discard, x.Reply.Body.Reader); err != nil {
			t.Error(err)
		}
	}
	return x.Reply.Status, ""
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
