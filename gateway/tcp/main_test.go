package tcp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take that a test waits for.
const patience = 30 * time.Second

// house is a server between real connections. It is its own handler: there is one service behind it.
type house struct {
	*testing.T
	server  *Server
	clock   *clock.Manual
	metrics *metric.Registry
	sweeper *sock.Sweeper
	door    *net.TCPListener
	service *net.TCPListener
	log     bytes.Buffer
	news    chan struct{}
	closed  chan struct{} // when nobody is let in any more

	mu      sync.Mutex
	client  string                         // announced instead of the socket's; "": none
	connect func(*exchange.Exchange) error // says no, or nil
	ended   []exchange.Exchange            // what was recorded
}

// answer says who is let through.
func (h *house) answer(connect func(*exchange.Exchange) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.connect = connect
}

func newHouse(t *testing.T, o Settings) *house {
	h := &house{T: t, clock: clock.NewManual(time.Now()), metrics: metric.NewRegistry(), sweeper: sock.NewSweeper()}
	h.news, h.closed = make(chan struct{}, 64), make(chan struct{})
	h.door, h.service = listen(t), listen(t)
	h.server = New(h, h.clock, slog.New(slog.NewTextHandler(&h.log, nil)), h.metrics)
	h.server.Configure("main", o)
	ctx, stop := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { _ = h.sweeper.Run(ctx) })
	go h.accept()
	t.Cleanup(func() {
		h.close()
		cut, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		h.server.Wait(cut)
		stop()
		runs.Wait()
	})
	return h
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// close lets nobody in any more.
func (h *house) close() {
	_ = h.door.Close()
	<-h.closed
}

func (h *house) accept() {
	defer close(h.closed)
	for {
		nc, err := h.door.Accept()
		if err != nil {
			return
		}
		c, err := sock.New(nc, h.sweeper, nil)
		if err != nil {
			h.Error(err)
			return
		}
		client := exchange.Client{Peer: nc.RemoteAddr().(*net.TCPAddr).AddrPort()}
		h.mu.Lock()
		if h.client != "" {
			client.Peer = netip.MustParseAddrPort(h.client)
		}
		h.mu.Unlock()
		h.server.Serve(c, client, func() {})
	}
}

// Connect implements Handler.
func (h *house) Connect(x *exchange.Exchange) (*sock.Conn, func(), error) {
	h.mu.Lock()
	connect := h.connect
	h.mu.Unlock()
	if connect != nil {
		if err := connect(x); err != nil {
			errors.As(err, &x.Err)
			h.record(x)
			return nil, nil, err
		}
	}
	nc, err := net.Dial("tcp", h.service.Addr().String())
	if err != nil {
		h.Error(err)
		return nil, nil, err
	}
	c, err := sock.New(nc, h.sweeper, nil)
	return c, func() { h.record(x) }, err
}

// Refuse implements Handler.
func (h *house) Refuse(x *exchange.Exchange) { h.record(x) }

func (h *house) record(x *exchange.Exchange) {
	h.mu.Lock()
	defer h.mu.Unlock()
	request := exchange.Request{Host: x.Request.Host, Proto: x.Request.Proto}
	h.ended = append(h.ended, exchange.Exchange{Err: x.Err, Usage: x.Usage, Request: request})
	h.news <- struct{}{}
}

// recorded waits until one more connection has been recorded.
func (h *house) recorded() *exchange.Exchange {
	h.Helper()
	select {
	case <-h.news:
	case <-time.After(patience):
		h.Fatal("nothing is recorded")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	x := &h.ended[0]
	h.ended = h.ended[1:]
	return x
}

func (h *house) counted(reason string) uint64 {
	return h.metrics.Counter("headgate_tcp_connections_ended_total", "", metric.Label{Name: "listener", Value: "main"},
		metric.Label{Name: "reason", Value: reason}).Value()
}

// dial opens a connection to the door.
func (h *house) dial() *net.TCPConn {
	h.Helper()
	c, err := net.Dial("tcp", h.door.Addr().String())
	if err != nil {
		h.Fatal(err)
	}
	return h.hold(c)
}

// reset reports whether one more client is turned away with a reset.
func (h *house) reset() bool {
	h.Helper()
	c, err := net.Dial("tcp", h.door.Addr().String())
	if err == nil {
		_, err = h.hold(c).Read(make([]byte, 1))
	}
	return errors.Is(err, syscall.ECONNRESET)
}

// serve takes the connection that the service has got.
func (h *house) serve() *net.TCPConn {
	h.Helper()
	_ = h.service.SetDeadline(time.Now().Add(patience))
	c, err := h.service.Accept()
	if err != nil {
		h.Fatal(err)
	}
	return h.hold(c)
}

func (h *house) hold(c net.Conn) *net.TCPConn {
	_ = c.SetDeadline(time.Now().Add(patience))
	h.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// pair opens a connection and returns both far ends.
func (h *house) pair() (client, service *net.TCPConn) {
	h.Helper()
	client = h.dial()
	return client, h.serve()
}

func (h *house) write(c net.Conn, text string) {
	h.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		h.Fatal(err)
	}
}

// read reads exactly the text.
func (h *house) read(c net.Conn, text string) {
	h.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		h.Fatalf("read %q, %v; want %q", got, err, text)
	}
}
