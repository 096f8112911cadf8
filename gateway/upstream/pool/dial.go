package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// leastAckTime is the least that an open connection's target may take to acknowledge what it was sent, however little it may
// take to open one: a burst of lost packets must not end what is under way.
const leastAckTime = 2 * time.Second

// Opened is an open connection to a target, ready for the first byte of its protocol.
type Opened struct {
	*sock.Conn
	ALPN string // agreed by TLS (RFC 7301); "": none
}

// Open opens a connection for whoever calls: it is not counted among those of the pool and does not come back to it.
// client is told to targets that want to know (proxy_protocol); nil: the connection is our own. It takes no longer than
// the connect timeout, and ctx.
func (p *Pool) Open(ctx context.Context, client *exchange.Client) (Opened, error) {
	return p.open(ctx, client, p.tls)
}

// open dials, tells who the client is where the document wants that, and shakes hands where the target is over TLS,
// all within the connect timeout. config is nil for a target in clear.
func (p *Pool) open(ctx context.Context, client *exchange.Client, config *tls.Config) (Opened, error) {
	ctx, cancel := context.WithTimeout(ctx, p.settings.Connect)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", p.end.Address)
	if err != nil {
		return Opened{}, err
	}
	sc, err := sock.New(nc, p.settings.Sweeper, nil)
	if err != nil {
		return Opened{}, errors.Join(err, nc.Close())
	}
	sc.AckWithin(max(p.settings.Connect, leastAckTime))
	c := Opened{Conn: sc}
	if err := p.greet(ctx, &c, client, config); err != nil {
		sc.Reset() // nothing of worth was said on it
		return Opened{}, err
	}
	return c, nil
}

// greet says what comes before the protocol itself.
func (p *Pool) greet(ctx context.Context, c *Opened, client *exchange.Client, config *tls.Config) error {
	proxied := p.settings.proxied()
	if config == nil && !proxied {
		return nil
	}
	stop := context.AfterFunc(ctx, c.Interrupt)
	if proxied {
		if _, err := c.Write(p.settings.appendProxyHeader(nil, client, c.Conn)); err != nil {
			stop()
			return err
		}
	}
	var err error
	if config != nil {
		err = p.shake(ctx, c, config)
	}
	if !stop() && err == nil { // interrupted at the last moment: it is of no use any more
		err = context.Cause(ctx)
	}
	return err
}

// shake makes the connection one over TLS.
func (p *Pool) shake(ctx context.Context, c *Opened, config *tls.Config) error {
	layer := tls.Client(c.Below(), config)
	err := layer.Handshake()
	if err == nil {
		c.Over(layer)
		c.ALPN = layer.ConnectionState().NegotiatedProtocol
		return nil
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	e := &handshakeError{cause: handshakeCause(err), err: err}
	p.settings.handshakeFailed(p.end.Address, e.cause)
	return e
}

// handshakeFailed counts a TLS handshake that failed.
func (s *Settings) handshakeFailed(target, cause string) {
	s.Metrics.Counter("headgate_upstream_handshake_failures_total",
		"TLS handshakes with targets that failed, by cause: certificate_expired, unknown_authority, wrong_name, not_pinned, "+
			"certificate_invalid, refused_by_target, not_tls, timeout, closed.",
		metric.Label{Name: "upstream", Value: s.Upstream}, metric.Label{Name: "target", Value: target},
		metric.Label{Name: "cause", Value: cause}).Inc(0)
}

// DialPlain opens a connection of our own, which is no client's, without TLS: for a net/http.Transport, which does its own.
func (p *Pool) DialPlain(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: p.settings.Connect}).DialContext(ctx, network, address)
	if err != nil || !p.settings.proxied() {
		return c, err
	}
	if _, err := c.Write(p.settings.appendProxyHeader(nil, nil, nil)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
