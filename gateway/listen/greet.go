package listen

import (
	"context"
	"net/netip"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// Greeting is what a fresh connection goes through before a server carries it.
type Greeting struct {
	// Proxy reads the header of a load balancer in front and makes the client the one that it names; nil: there is none.
	Proxy Step
	// Balancer reports whether connections from the address are a load balancer's. They are counted by the client that
	// Proxy finds out, and not as the balancer's own, which would soon be too many. nil: nobody's are.
	Balancer func(netip.Addr) bool
	// Wordless says that clients do not expect HTTP in clear: one that is refused is told nothing.
	Wordless bool
	// TLS makes the handshake and describes it in the client; nil: the door is in clear.
	TLS Step
	// Server carries the connection; the client says what was agreed on.
	Server func(*exchange.Client) Server
}

// Step is one step of a greeting. It may wait, within a time of its own. After an error the connection is closed; the
// step has told the peer and counted what there was to tell and to count.
type Step func(c *sock.Conn, client *exchange.Client) error

// greet leads a connection to its server. What may wait does so on a goroutine of its own, whose stack, deep from a
// handshake, does not stay with the connection.
func (v *visit) greet(c *sock.Conn, client exchange.Client, g *Greeting) {
	if g.Proxy == nil && g.TLS == nil {
		g.Server(&client).Serve(c, client, v.end)
		return
	}
	v.door.greets.Go(func() {
		if !v.ready(c, &client, g) {
			_ = c.Close() // whoever found out that it is of no use has said what there was to say
			v.end()
			return
		}
		g.Server(&client).Serve(c, client, v.end)
	})
}

// ready takes the steps of the greeting. It reports whether the connection may be served.
func (v *visit) ready(c *sock.Conn, client *exchange.Client, g *Greeting) bool {
	if g.Proxy != nil {
		balancer := client.Peer
		if g.Proxy(c, client) != nil {
			return false
		}
		if v.uncounted && client.Peer != balancer && !v.count(client.Peer.Addr()) {
			v.door.refuse(c, g)
			return false
		}
	}
	return g.TLS == nil || g.TLS(c, client) == nil
}

// Settle returns when every connection that was accepted has come to its server or has been closed, or the context is
// done. It is for doors that are closed.
func (l *Listener) Settle(ctx context.Context) {
	settled := make(chan struct{})
	go func() {
		l.greets.Wait()
		close(settled)
	}()
	select {
	case <-settled:
	case <-ctx.Done():
	}
}
