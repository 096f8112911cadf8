package listen

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

func TestAGreetingTellsWhoTheClientIsBeforeAServerGetsTheConnection(t *testing.T) {
	h := open(t, Limits{})
	greeted := make(chan exchange.Client, 1)
	h.greeting = &Greeting{
		Proxy: func(_ *sock.Conn, c *exchange.Client) error { c.Addr = "192.0.2.1"; return nil },
		TLS:   func(_ *sock.Conn, c *exchange.Client) error { c.TLS = &exchange.TLS{ALPN: "h2"}; return nil },
		Server: func(c *exchange.Client) Server {
			greeted <- *c
			return &h.server
		},
	}
	h.configure("main", Limits{})
	h.run()
	dial(t, h.l.Bound())
	if c := <-greeted; c.Addr != "192.0.2.1" || c.TLS == nil || c.TLS.ALPN != "h2" || !c.Peer.IsValid() || c.Local.String() != h.l.Bound() {
		t.Errorf("%+v", c)
	}
	h.l.Settle(context.Background())
	if h.server.served() != 1 {
		t.Error("not served")
	}
}

func TestAConnectionWhoseGreetingFailsIsClosedAndNoLongerCounted(t *testing.T) {
	h := open(t, Limits{})
	h.greeting.TLS = func(*sock.Conn, *exchange.Client) error { return errors.New("no handshake") }
	h.configure("main", Limits{})
	h.run()
	c := dial(t, h.l.Bound())
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it is open")
	}
	h.l.Settle(context.Background())
	if h.server.served() != 0 || h.l.OpenConnections() != 0 {
		t.Error("served, or still counted")
	}
}

func TestSettleWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Listener
		hold := make(chan struct{})
		l.greets.Go(func() { <-hold })
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		l.Settle(ctx)
		close(hold)
		l.Settle(context.Background())
	})
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestConnectionsOfABalancerAreCountedByTheClientThatItNames(t *testing.T) {
	h := open(t, Limits{})
	var names atomic.Value // whom the balancer names
	h.greeting.Balancer = func(a netip.Addr) bool { return a.IsLoopback() }
	h.greeting.Proxy = func(_ *sock.Conn, c *exchange.Client) error {
		if name, ok := names.Load().(string); ok && name != "" {
			c.Peer = netip.MustParseAddrPort(name)
		}
		return nil
	}
	h.configure("main", Limits{PerClient: 1})
	h.run()
	served := 0
	greet := func(name string) {
		names.Store(name)
		h.dial()
		served++
		h.until(name+" is served", func() bool { return h.server.served() == served })
	}
	greet("192.0.2.1:1")
	greet("192.0.2.2:1")
	greet("") // the balancer's own connections are not limited
	greet("")
	names.Store("192.0.2.1:2")
	c := h.dial()
	if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
		t.Errorf("%q, %v", answer, err)
	}
	if n := h.counted("headgate_connections_refused_total"); n != 1 {
		t.Errorf("%d refused", n)
	}
	wordless := *h.greeting
	wordless.Wordless = true
	h.greeting = &wordless
	h.configure("main", Limits{PerClient: 1})
	if answer, err := io.ReadAll(h.dial()); err != nil || len(answer) > 0 {
		t.Errorf("who expects no HTTP is told %q, %v", answer, err)
	}
	for range served {
		h.server.end()
	}
	h.until("all are gone", func() bool { return h.l.OpenConnections() == 0 })
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	if n := len(h.l.clients); n != 0 {
		t.Errorf("%d clients are remembered", n)
	}
}
