package listen

import (
	"context"
	"errors"
	"net"
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
	if c := <-greeted; c.Addr != "192.0.2.1" || c.TLS == nil || c.TLS.ALPN != "h2" || !c.Peer.IsValid() {
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
