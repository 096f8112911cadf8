package proxyheader

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// balancer is a connection to a gate, from 127.0.0.1 as the gate sees it.
type balancer struct {
	t       *testing.T
	near    *net.TCPConn // the balancer's side
	far     *sock.Conn
	metrics *metric.Registry
	client  exchange.Client
}

func connect(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	far, err := sock.New(nc, sock.NewSweeper(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	b := &balancer{t: t, near: near.(*net.TCPConn), far: far, metrics: metric.NewRegistry()}
	b.client = exchange.Client{Peer: near.LocalAddr().(*net.TCPAddr).AddrPort(), Addr: "127.0.0.1"}
	return b
}

func (b *balancer) send(text string) {
	b.t.Helper()
	if _, err := b.near.Write([]byte(text)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *balancer) greet(from string, optional bool, timeout time.Duration) error {
	o := Options{From: []netip.Prefix{netip.MustParsePrefix(from)}, Optional: optional, Timeout: timeout}
	return New("main", o, b.metrics).Greet(b.far, &b.client)
}

func (b *balancer) counted(cause Cause) uint64 {
	return b.metrics.Counter("headgate_proxy_header_failures_total", "", metric.Label{Name: "listener", Value: "main"},
		metric.Label{Name: "cause", Value: string(cause)}).Value()
}

// rest ends the balancer's side and returns what a server would read.
func (b *balancer) rest() string {
	b.t.Helper()
	if err := b.near.CloseWrite(); err != nil {
		b.t.Fatal(err)
	}
	all, err := io.ReadAll(b.far)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(all)
}

const (
	balancers = "127.0.0.0/8"
	others    = "10.0.0.0/8"
	patience  = 30 * time.Second
	impatient = 20 * time.Millisecond
	line      = "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n"
)

func TestTheClientIsTheAnnouncedOneAndTheServerReadsWhatFollows(t *testing.T) {
	for _, header := range []string{line, v2(0x21, 0x11, inet)} {
		b := connect(t)
		b.send(header + "hello")
		if err := b.greet(balancers, false, patience); err != nil {
			t.Fatal(err)
		}
		if c := b.client; c.Peer.String() != "192.0.2.1:4711" || c.Local.String() != "10.0.0.1:443" || c.Addr != "192.0.2.1" {
			t.Errorf("%+v", c)
		}
		if got := b.rest(); got != "hello" {
			t.Errorf("a server reads %q", got)
		}
	}
}

func TestAHeaderMayComeByteByByte(t *testing.T) {
	b := connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for _, c := range []byte(line) {
			_, _ = b.near.Write([]byte{c})
			time.Sleep(100 * time.Microsecond) // so that they come one by one
		}
	}()
	if err := b.greet(balancers, false, patience); err != nil || b.client.Addr != "192.0.2.1" {
		t.Errorf("%v, %+v", err, b.client)
	}
	<-ctx.Done()
}

func TestABalancersOwnConnectionKeepsItsAddress(t *testing.T) {
	for _, header := range []string{"PROXY UNKNOWN\r\n", v2(0x20, 0, ""), v2(0x21, 0x31, strings.Repeat("u", 216))} {
		b := connect(t)
		b.send(header + "hello")
		peer := b.client.Peer
		if err := b.greet(balancers, false, patience); err != nil || b.client.Peer != peer || b.client.Addr != "127.0.0.1" {
			t.Errorf("%v, %+v", err, b.client)
		}
		if got := b.rest(); got != "hello" {
			t.Errorf("a server reads %q", got)
		}
	}
}

func TestAHeaderOfSomebodyElseIsNeverLookedAt(t *testing.T) {
	b := connect(t)
	b.send(line + "hello")
	if err := b.greet(others, false, patience); err != nil || b.client.Addr != "127.0.0.1" {
		t.Errorf("%v, %+v", err, b.client)
	}
	if got := b.rest(); got != line+"hello" {
		t.Errorf("a server reads %q", got)
	}
}

func TestABalancerWithoutAHeaderIsRefusedUnlessItMayLeaveItOut(t *testing.T) {
	b := connect(t)
	b.send("GET / HTTP/1.1\r\n")
	if err := b.greet(balancers, false, patience); err == nil || b.counted(Missing) != 1 {
		t.Errorf("%v, %d counted", err, b.counted(Missing))
	}
	for _, first := range []string{"GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "\r\n\r\nGET"} {
		b = connect(t)
		b.send(first)
		if err := b.greet(balancers, true, patience); err != nil || b.client.Addr != "127.0.0.1" {
			t.Errorf("%q: %v, %+v", first, err, b.client)
		}
		if got := b.rest(); got != first {
			t.Errorf("a server reads %q", got)
		}
	}
}

func TestASilentBalancerIsRefusedUnlessItMayLeaveTheHeaderOut(t *testing.T) {
	for _, first := range []string{"", "PRO"} {
		b := connect(t)
		b.send(first)
		if err := b.greet(balancers, false, impatient); err == nil || b.counted(Timeout) != 1 {
			t.Errorf("%q: %v, %d counted", first, err, b.counted(Timeout))
		}
		b = connect(t)
		b.send(first)
		if err := b.greet(balancers, true, impatient); err != nil {
			t.Errorf("%q: %v", first, err)
		}
		b.send("hello")
		if got := b.rest(); got != first+"hello" {
			t.Errorf("a server reads %q", got)
		}
	}
	b := connect(t)
	b.send("PROXY ")
	if err := b.greet(balancers, true, impatient); err == nil || b.counted(Timeout) != 1 {
		t.Errorf("half a header: %v", err)
	}
}

func TestAConnectionThatEndsInItsHeaderIsCountedAndOneThatOnlyLooksIsNot(t *testing.T) {
	b := connect(t)
	b.send("PROXY TCP4 192")
	_ = b.near.CloseWrite()
	if err := b.greet(balancers, false, patience); err == nil || b.counted(Closed) != 1 {
		t.Errorf("%v, %d counted", err, b.counted(Closed))
	}
	b = connect(t)
	_ = b.near.CloseWrite()
	if err := b.greet(balancers, false, patience); err == nil || b.counted(Closed) != 0 {
		t.Errorf("%v, %d counted", err, b.counted(Closed))
	}
}
