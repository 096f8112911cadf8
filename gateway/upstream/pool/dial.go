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

// use is what a connection is opened for.
type use uint8

const (
	pooled  use = iota // calls, one after another or many at a time
	lent               // a tunnel, whose end is not the pool's to see
	probing            // a probe of ours, which no limit of the document may stop
)

// ErrBusy says that a target has as many connections as the document allows.
var ErrBusy = errors.New("the target has as many connections as pool.connections_per_target allows")

// Open opens a connection for whoever calls; it does not come back to the pool. client is told to targets that want to know
// (proxy_protocol); nil: the connection is a probe. It takes no longer than the connect timeout, and ctx.
func (p *Pool) Open(ctx context.Context, client *exchange.Client) (Opened, error) {
	if client == nil {
		return p.open(ctx, nil, p.tls, probing)
	}
	return p.open(ctx, client, p.tls, lent)
}

// open takes a place among the target's connections and opens one. What became of it is counted.
func (p *Pool) open(ctx context.Context, client *exchange.Client, config *tls.Config, purpose use) (o Opened, err error) {
	limit := p.group.settings.Pool.Connections
	if purpose == probing {
		limit = 0
	}
	entered := p.record.enter(limit)
	if !entered && purpose == pooled && p.idle.spare() { // one that is not to be used for this call
		entered = p.record.enter(limit)
	}
	if !entered {
		err = ErrBusy
	} else {
		o, err = p.make(ctx, client, config, purpose)
	}
	p.record.opened[outcomeOf(err)].Add(1)
	return o, err
}

// make dials, tells who the client is where the document wants that, and shakes hands where the target is over TLS,
// all within the connect timeout. config is nil for a target in clear.
func (p *Pool) make(ctx context.Context, client *exchange.Client, config *tls.Config, purpose use) (Opened, error) {
	s := &p.group.settings
	ctx, cancel := context.WithTimeout(ctx, s.Connect)
	defer cancel()
	began := s.Clock.Now()
	nc, err := p.reach(ctx)
	if err != nil {
		p.record.leave()
		return Opened{}, err
	}
	p.group.connects().Observe(0, s.Clock.Now().Sub(began).Seconds())
	sc, err := sock.New(nc, s.Sweeper, nil)
	if err != nil {
		p.record.leave()
		return Opened{}, errors.Join(err, nc.Close())
	}
	sc.AckWithin(max(s.Connect, leastAckTime))
	sc.OnClose(func() {
		p.record.leave()
		if purpose != pooled {
			p.record.closed[causeLent].Add(1)
		}
	})
	c := Opened{Conn: sc}
	if err := p.greet(ctx, &c, client, config); err != nil {
		sc.Reset() // nothing of worth was said on it
		return Opened{}, err
	}
	return c, nil
}

// greet says what comes before the protocol itself.
func (p *Pool) greet(ctx context.Context, c *Opened, client *exchange.Client, config *tls.Config) error {
	proxied := p.group.settings.proxied()
	if config == nil && !proxied {
		return nil
	}
	stop := context.AfterFunc(ctx, c.Interrupt)
	if proxied {
		if _, err := c.Write(p.group.settings.appendProxyHeader(nil, client, c.Conn)); err != nil {
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
	s := &p.group.settings
	began := s.Clock.Now()
	layer := tls.Client(c.Below(), config)
	err := layer.Handshake()
	if err == nil {
		p.group.handshakes().Observe(0, s.Clock.Now().Sub(began).Seconds())
		c.Over(layer)
		c.ALPN = layer.ConnectionState().NegotiatedProtocol
		return nil
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	e := &handshakeError{cause: handshakeCause(err), err: err}
	s.handshakeFailed(p.end.Address, e.cause)
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
// The address is the target's, whatever is asked for.
func (p *Pool) DialPlain(ctx context.Context, _, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.group.settings.Connect)
	defer cancel()
	c, err := p.reach(ctx)
	if err != nil || !p.group.settings.proxied() {
		return c, err
	}
	if _, err := c.Write(p.group.settings.appendProxyHeader(nil, nil, nil)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
