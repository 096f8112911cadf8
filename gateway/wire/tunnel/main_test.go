package tunnel

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen at once.
const patience = 30 * time.Second

// ends is a tunnel between two TCP connections, and the far ends of both.
type ends struct {
	client, upstream *net.TCPConn
	near             [2]*sock.Conn
	result           chan Result
}

// kind is how the tunnel's streams are made of sockets.
type kind func(*sock.Conn) exchange.Stream

func asSockets(c *sock.Conn) exchange.Stream { return c }

// plain hides the socket, as the stream of another version of HTTP would be.
type plain struct{ exchange.Stream }

func asStreams(c *sock.Conn) exchange.Stream { return plain{c} }

func sweeper(t *testing.T) *sock.Sweeper {
	s := sock.NewSweeper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return s
}

// pair returns both ends of a TCP connection, the near one as a sock.Conn.
func pair(t *testing.T, s *sock.Sweeper) (near *sock.Conn, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if near, err = sock.New(n, s, nil); err != nil {
		t.Fatal(err)
	}
	far = f.(*net.TCPConn)
	t.Cleanup(func() { far.Close(); near.Close() })
	_ = far.SetDeadline(time.Now().Add(patience))
	return near, far
}

// open opens a tunnel.
func open(t *testing.T, as kind, o Options) *ends {
	t.Helper()
	s := sweeper(t)
	e := &ends{result: make(chan Result, 1)}
	e.near[0], e.client = pair(t, s)
	e.near[1], e.upstream = pair(t, s)
	go func() {
		r := Relay(as(e.near[0]), as(e.near[1]), o)
		e.near[0].Close()
		e.near[1].Close()
		e.result <- r
	}()
	t.Cleanup(func() {
		e.client.Close()
		e.upstream.Close()
		select {
		case <-e.result:
		case <-time.After(patience):
			t.Error("the tunnel did not end with its connections")
		}
	})
	return e
}

// ended waits for the tunnel's end.
func (e *ends) ended(t *testing.T) Result {
	t.Helper()
	select {
	case r := <-e.result:
		e.result <- r
		return r
	case <-time.After(patience):
		t.Fatal("the tunnel did not end")
		return Result{}
	}
}

func send(t *testing.T, c *net.TCPConn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c *net.TCPConn, want string) {
	t.Helper()
	p := make([]byte, len(want))
	if n, err := io.ReadFull(c, p); err != nil || string(p) != want {
		t.Fatalf("got %q, %v; want %q", p[:n], err, want)
	}
}

func expectEnd(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if p, err := io.ReadAll(c); err != nil || len(p) > 0 {
		t.Fatalf("got %q, %v; want the end", p, err)
	}
}

func registry() *Registry { return NewRegistry(metric.NewRegistry()) }
