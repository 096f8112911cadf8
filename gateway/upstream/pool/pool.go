// Package pool is the connections to a target: how they are opened, over TLS with whose identity, which are kept for reuse,
// and how calls share those over HTTP/2.
package pool

import (
	"crypto/tls"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
	"headgate/gateway/wire/h2/client"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// Pool is a target's connections under one TLS identity. When the identity changes, because a certificate file did, a new
// pool takes its place; what comes back to the old one is closed, so that no connection is ever shared between two.
type Pool struct {
	settings *Settings
	end      Endpoint
	version  Version
	plan     *h1.Plan
	idle     idlePool
	owners   []owner
	tls      *tls.Config // nil: in clear
	tlsH1    *tls.Config // for what HTTP/2 cannot carry: offers HTTP/1.1 alone
	mux      *mux        // connections over HTTP/2; nil: never any
}

// Settings are what the pools of an upstream's targets have in common.
type Settings struct {
	Upstream string // its name, for metrics
	Sweeper  *sock.Sweeper
	Clock    clock.Clock
	Metrics  *metric.Registry

	Protocol string        // as in the document, as is Proxy
	Proxy    string        // the version of the PROXY protocol
	Connect  time.Duration // for everything that comes before the first byte of HTTP
	Pool     model.Pool
	HTTP2    model.HTTP2Out
}

// ALPNH1 and ALPNH2 are the protocols by their names in ALPN (RFC 7301, RFC 9113 section 3.2).
const (
	ALPNH1 = "http/1.1"
	ALPNH2 = "h2"
)

// New returns the empty pool of a target. plan says how calls to it are made.
func New(e Endpoint, plan *h1.Plan, s *Settings, id *Identity) *Pool {
	p := &Pool{settings: s, end: e, version: VersionOf(e, s.Protocol), plan: plan}
	p.idle.init(s.Pool.IdlePerTarget)
	p.owners = make([]owner, len(p.idle.shards))
	for i := range p.owners {
		p.owners[i] = owner{p, uint32(i)}
	}
	if e.Secure {
		p.tlsH1 = id.config(e, ALPNH1)
		switch {
		case e.Raw:
			p.tls = id.config(e)
		case p.version == Auto:
			p.tls = id.config(e, ALPNH2, ALPNH1)
		case p.version == H2:
			p.tls = id.config(e, ALPNH2)
		default:
			p.tls = p.tlsH1
		}
	}
	if p.version != H1 {
		p.mux = newMux(p)
	}
	return p
}

// Renewed returns an empty pool to the same target under another identity. The old one is the caller's to close.
func (p *Pool) Renewed(id *Identity) *Pool { return New(p.end, p.plan, p.settings, id) }

// oldest is since when a connection may have been idle at most.
func (p *Pool) oldest() time.Duration {
	return p.settings.Sweeper.Coarse() - p.settings.Pool.IdleTimeout
}

// Tidy closes what has been idle for too long; it is called every few seconds.
func (p *Pool) Tidy() {
	oldest := p.oldest()
	p.idle.prune(oldest)
	if p.mux != nil {
		p.mux.prune(oldest)
	}
}

// Close closes what is idle; what is in use ends by itself.
func (p *Pool) Close() {
	p.idle.close()
	if p.mux != nil {
		p.mux.close()
	}
}

// owner takes connections back for the shard that they were used by. There is one for each shard, so that handing one
// to a call allocates nothing.
type owner struct {
	pool  *Pool
	shard uint32
}

// Owner returns who takes back the connections of calls on a shard.
func (p *Pool) Owner(shard uint32) h1.Owner { return &p.owners[shard%uint32(len(p.owners))] }

// Free implements h1.Owner. A connection that told the target about one client is not used for another.
func (o *owner) Free(c *h1.Conn, reusable bool) {
	if !reusable {
		return
	}
	s := o.pool.settings
	if s.proxied() {
		_ = c.Close() // its reply is complete
		return
	}
	c.Idle = s.Sweeper.Coarse()
	o.pool.idle.put(o.shard, c)
}

// Take returns an idle connection over HTTP/1.1, or nil.
func (p *Pool) Take(shard uint32) *h1.Conn { return p.idle.take(shard, p.oldest()) }

// Dial opens a connection over HTTP/1.1. Where the target chooses and has chosen HTTP/2, the connection is kept for Stream,
// and there is none nor an error. The error is always an *exchange.Error.
func (p *Pool) Dial(x *exchange.Exchange) (*h1.Conn, error) {
	config := p.tls
	if x.Request.Upgrade != "" {
		config = p.tlsH1
	}
	o, err := p.open(x.Context(), &x.Client, config)
	if err == nil && p.mux != nil && o.ALPN == ALPNH2 {
		if p.settings.proxied() {
			o.Reset() // it has told about this client, and single will do so again
			p.mux.spoken.Store(spokenH2)
			return nil, nil
		}
		err = p.mux.adopt(x.Context(), o.Conn)
		if err == nil {
			return nil, nil
		}
	}
	if err != nil {
		return nil, DialError(x, err)
	}
	return p.h1(o), nil
}

func (p *Pool) h1(o Opened) *h1.Conn {
	return &h1.Conn{Conn: o.Conn, Opened: p.settings.Sweeper.Coarse()}
}

// Shares reports whether the target speaks HTTP/2, or may: calls then go through Stream.
func (p *Pool) Shares() bool { return p.mux != nil }

// Grant is what a call is made on: a connection over HTTP/2 with a place reserved, or one over HTTP/1.1. Without either,
// and without an error, the target speaks HTTP/1.1 and a connection is to be taken or dialed.
type Grant struct {
	Shared *client.Conn
	Alone  *h1.Conn
	Reused bool // the connection has carried calls before
	Err    error
}

// Stream returns what a call is made on where the target speaks HTTP/2, or may, waiting for a place if all are taken, but
// no longer than the connect timeout. fresh: not on a connection that has been used, as far as there is a choice.
func (p *Pool) Stream(x *exchange.Exchange, fresh bool) Grant {
	m := p.mux
	if m.spoken.Load() == spokenH1 || p.upgradesApart(x) {
		return Grant{}
	}
	var g granted
	var reused bool
	if p.settings.proxied() {
		g = m.single(x)
	} else {
		g, reused = m.take(x, fresh)
	}
	switch {
	case g.err != nil:
		return Grant{Err: g.err}
	case g.conn == nil && g.h1.Conn != nil:
		return Grant{Alone: p.h1(g.h1)}
	case g.conn != nil && x.Request.Upgrade != "" && !g.conn.Extended() && p.version == Auto:
		g.conn.Cancel()
		return Grant{}
	}
	return Grant{Shared: g.conn, Reused: reused}
}

// upgradesApart reports whether what asks for another protocol goes over HTTP/1.1, because the target is known to take no
// extended CONNECT (RFC 8441) and can speak HTTP/1.1.
func (p *Pool) upgradesApart(x *exchange.Exchange) bool {
	if x.Request.Upgrade == "" || p.version != Auto {
		return false
	}
	for _, c := range *p.mux.conns.Load() {
		if !c.Extended() {
			return true
		}
	}
	return false
}

// Endpoint returns the target's URL, read.
func (p *Pool) Endpoint() Endpoint { return p.end }

// Version returns the version of HTTP that the document asks for.
func (p *Pool) Version() Version { return p.version }

// TLS returns what handshakes take; nil: the target is in clear. It is not to be changed.
func (p *Pool) TLS() *tls.Config { return p.tls }

// Terms returns how connections over HTTP/2 are held, with StreamPlan; both are of no use unless Shares.
func (p *Pool) Terms() client.Terms {
	if p.mux == nil {
		return client.Terms{}
	}
	return p.mux.terms
}

// StreamPlan returns how calls over HTTP/2 are made; nil unless Shares. It is not to be changed.
func (p *Pool) StreamPlan() *client.Plan {
	if p.mux == nil {
		return nil
	}
	return &p.mux.plan
}

// Status is what operators see of a pool.
type Status struct {
	Idle      int    // connections over HTTP/1.1
	Protocol  string // h1, h2 or tcp; auto: not known yet
	H2Conns   int    // open
	H2Streams int    // requests on them
}

// Status describes the pool as it is now.
func (p *Pool) Status() Status {
	s := Status{Idle: p.idle.len(), Protocol: "h1"}
	switch {
	case p.end.Raw:
		s.Protocol = "tcp"
	case p.mux != nil:
		s.Protocol = [...]string{spokenUnknown: "auto", spokenH1: "h1", spokenH2: "h2"}[p.mux.spoken.Load()]
		s.H2Conns, s.H2Streams = p.mux.load()
	}
	return s
}
