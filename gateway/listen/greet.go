package listen

import (
	"context"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// Greeting is what a fresh connection goes through before a server carries it.
type Greeting struct {
	// Proxy reads the header of a load balancer in front and makes the client the one that it names; nil: there is none.
	Proxy Step
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
func (l *Listener) greet(c *sock.Conn, client exchange.Client, done func()) {
	g := l.greeting.Load()
	if g.Proxy == nil && g.TLS == nil {
		g.Server(&client).Serve(c, client, done)
		return
	}
	l.greets.Go(func() {
		for _, step := range [...]Step{g.Proxy, g.TLS} {
			if step == nil {
				continue
			}
			if step(c, &client) != nil {
				_ = c.Close() // the step has said what there was to say
				done()
				return
			}
		}
		g.Server(&client).Serve(c, client, done)
	})
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
