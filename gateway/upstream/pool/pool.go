// Package pool is the connections to a target: how they are opened, over TLS with whose identity, which are kept for reuse,
// and how calls share those over HTTP/2.
package pool

import (
	"context"
	"crypto/tls"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
	"headgate/gateway/wire/h2/client"
)

// Pool is a target's connections under one TLS identity. When the identity changes, because a certificate file did, a new
// pool takes its place; what comes back to the old one is closed, so that no connection is ever shared between two.
type Pool struct {
	group   *Group
	record  *record
	end     Endpoint
	version Version
	plan    *h1.Plan
	idle    idlePool
	owners  []owner
	tls     *tls.Config // nil: in clear
	tlsH1   *tls.Config // for what HTTP/2 cannot carry: offers HTTP/1.1 alone
	mux     *mux        // connections over HTTP/2; nil: never any
	crew    crew
}

// ALPNH1 and ALPNH2 are the protocols by their names in ALPN (RFC 7301, RFC 9113 section 3.2).
const (
	ALPNH1 = "http/1.1"
	ALPNH2 = "h2"
)

func (g *Group) pool(e Endpoint, plan *h1.Plan, id *Identity, r *record) *Pool {
	p := &Pool{group: g, record: r, end: e, version: VersionOf(e, g.settings.Protocol), plan: plan}
	p.idle.init(g.settings.Pool.IdlePerTarget, &g.idle, p.dropped)
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
func (p *Pool) Renewed(id *Identity) *Pool { return p.group.pool(p.end, p.plan, id, p.record) }

// ages returns what may be used now.
func (p *Pool) ages() ages {
	now, limit := p.group.settings.Sweeper.Coarse(), p.record.idle.limit()
	if limit != p.record.idle.most { // the target's time runs while the coarse clock may be a second behind
		limit -= min(time.Second, limit/2)
	}
	return ages{now: now, oldest: now - limit}
}

// tightFactor is how much sooner idle connections are closed while there is no place left for others.
const tightFactor = 4

// Tidy closes what has been idle for too long, is too old, or has been closed by the target, and opens connections ahead to
// a target that is being asked; it is called every few seconds.
func (p *Pool) Tidy() {
	a := p.ages()
	if p.group.idle.tight.Load() {
		a.oldest = a.now - (a.now-a.oldest)/tightFactor
	}
	p.record.idle.tidy(a.now)
	p.idle.tidy(a)
	if p.mux != nil {
		p.mux.tidy(a)
	}
	if p.demand() {
		p.preconnect()
	}
}

// demand reports whether the target has been asked since the last look.
func (p *Pool) demand() bool {
	n := p.reused() + p.record.opened[outcomeOK].Load() - p.record.ahead.Load()
	return p.record.warm.asked.Swap(n) != n
}

// reused returns how many calls went over connections that were there already.
func (p *Pool) reused() uint64 {
	n := p.record.reused.Load() + p.idle.taken()
	if p.mux != nil {
		n += p.mux.reused()
	}
	return n
}

// Close closes what is idle; what is in use ends by itself.
func (p *Pool) Close() {
	p.crew.stop()
	p.idle.empty(maxTime, true, causeReplaced)
	p.record.reused.Add(p.idle.taken())
	if p.mux != nil {
		p.mux.close()
	}
}

// maxTime is behind every time on the coarse clock.
const maxTime = time.Duration(1<<63 - 1)

// dropped counts an idle connection that was closed. One that the target has closed says for how long it keeps them.
func (p *Pool) dropped(c *h1.Conn, why cause) {
	p.record.closed[why].Add(1)
	if why == causeDead {
		now := p.group.settings.Sweeper.Coarse()
		p.record.idle.died(now, now-c.Idle)
	}
}

// owner takes connections back for the shard that they were used by. There is one for each shard, so that handing one
// to a call allocates nothing.
type owner struct {
	pool  *Pool
	shard uint32
}

// Owner returns who takes back the connections of calls on a shard.
func (p *Pool) Owner(shard uint32) h1.Owner {
	return &p.owners[shard%uint32(len(p.owners))]
}

// Free implements h1.Owner. A connection that told the target about one client is not used for another.
func (o *owner) Free(c *h1.Conn, reusable bool) {
	p := o.pool
	s := &p.group.settings
	now := s.Sweeper.Coarse()
	if !reusable {
		if p.record.ended(c) {
			p.record.idle.died(now, now-c.Idle)
			p.doubt(now)
		}
		return
	}
	if c.Kept > 0 {
		p.record.idle.hear(c.Kept)
	}
	why := causeNone
	switch {
	case s.proxied():
		why = causeSurplus
	case s.Pool.MaxRequests > 0 && c.Calls >= s.Pool.MaxRequests:
		why = causeRequests
	case c.Until != 0 && now >= c.Until:
		why = causeAge
	}
	if why != causeNone {
		p.idle.drop(c, why) // its reply is complete
		return
	}
	c.Idle = now
	p.idle.put(o.shard, c)
}

// doubt looks at all idle connections, since one has died when it was used again. After a second one nothing is believed any
// more: the way to the target may be cut, so that nobody says that they are closed.
func (p *Pool) doubt(now time.Duration) {
	burst := p.record.burst(now)
	p.crew.run(func(context.Context) {
		if burst {
			p.idle.empty(now, false, causeDoubt)
		} else {
			p.idle.tidy(p.ages())
		}
	})
}

// Take returns an idle connection over HTTP/1.1, or nil.
func (p *Pool) Take(shard uint32) *h1.Conn {
	c := p.idle.take(shard, p.ages())
	if c != nil {
		c.Reused = c.Calls
	}
	return c
}

// Dial opens a connection over HTTP/1.1. Where the target chooses and has chosen HTTP/2, the connection is kept for Stream,
// and there is none nor an error. The error is always an *exchange.Error.
func (p *Pool) Dial(x *exchange.Exchange) (*h1.Conn, error) {
	p.preconnect()
	config := p.tls
	if x.Request.Upgrade != "" {
		config = p.tlsH1
	}
	o, err := p.open(x.Context(), &x.Client, config, pooled)
	if err == nil && p.mux != nil && o.ALPN == ALPNH2 {
		if p.group.settings.proxied() {
			o.Reset() // it has told about this client, and single will do so again
			p.mux.spoken.Store(spokenH2)
			return nil, nil
		}
		err = p.mux.adopt(x.Context(), o.Conn, false)
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
	now := p.group.settings.Sweeper.Coarse()
	return &h1.Conn{Conn: o.Conn, Opened: now, Until: p.group.settings.age(now), Reused: -1}
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
	if p.group.settings.proxied() {
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
	return Grant{Shared: g.conn.on(), Reused: reused}
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
