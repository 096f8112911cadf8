package upstream

import (
	"errors"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
	"headgate/gateway/wire/h2/client"
)

// tryMux is try where the target speaks HTTP/2, or may.
func (a *attempt) tryMux(p *pool, fresh bool) (reused bool, err error) {
	before := a.took
	defer func() { a.learn(err, reused, before) }()
	for {
		reused, err = a.through(p, fresh)
		now := a.target.pool.Load()
		if now == p || !errors.Is(err, errClosed) {
			break
		}
		p = now // the identity has changed under way
	}
	return reused, err
}

// through makes the call over the version of HTTP that the target speaks.
func (a *attempt) through(p *pool, fresh bool) (reused bool, err error) {
	x, m := a.x, p.mux
	if m.spoken.Load() == spokenH1 || a.upgradesApart(p) {
		return a.onH1(p, fresh, opened{})
	}
	var g granted
	if a.upstream.proxied() {
		g = m.single(x)
	} else {
		g, reused = m.take(x, fresh)
	}
	switch {
	case g.err != nil:
		return false, dialError(x, g.err)
	case g.conn == nil:
		return a.onH1(p, fresh, g.h1)
	case x.Request.Upgrade != "" && !g.conn.Extended() && a.target.version == versionAuto:
		g.conn.Cancel()
		return a.onH1(p, fresh, opened{})
	}
	return a.onStream(g.conn, reused)
}

// upgradesApart reports whether what asks for another protocol goes over HTTP/1.1, because the target is known to take no
// extended CONNECT (RFC 8441) and can speak HTTP/1.1.
func (a *attempt) upgradesApart(p *pool) bool {
	if a.x.Request.Upgrade == "" || a.target.version != versionAuto {
		return false
	}
	for _, c := range *p.mux.conns.Load() {
		if !c.Extended() {
			return true
		}
	}
	return false
}

// errMoved is a request that was on its way in one version of HTTP when its target took to another one.
var errMoved = errors.New("the target has changed its version of HTTP, and the request's body has been read")

// onStream makes the call on a stream.
func (a *attempt) onStream(c *client.Conn, reused bool) (bool, error) {
	if a.call != nil && !a.rewound() {
		c.Cancel()
		return false, &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream, Cause: errMoved}
	}
	if a.shared == nil {
		a.shared = client.NewCall(&a.target.pool.Load().mux.plan)
		a.shared.Prepare(a.x)
	}
	a.overH2 = true
	err := a.shared.Do(a.x, c)
	return reused || a.shared.Unprocessed(), err
}

// onH1 makes the call on a connection of HTTP/1.1: the one given, an idle one, or a new one.
func (a *attempt) onH1(p *pool, fresh bool, o opened) (reused bool, err error) {
	var conn *h1.Conn
	if o.Conn != nil {
		conn = p.h1(o)
	} else if !fresh {
		conn = p.idle.take(a.x.Shard, a.upstream.env.Sweeper.Coarse()-a.upstream.config.Pool.IdleTimeout)
		reused = conn != nil
	}
	if conn == nil {
		conn, err = p.dial(a.x)
	}
	switch {
	case err != nil:
		return false, err
	case conn == nil: // it speaks HTTP/2 by now
		return a.through(p, fresh)
	case a.shared != nil && !a.rewound():
		_ = conn.Close() // not used for this
		return false, &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream, Cause: errMoved}
	}
	return reused, a.ask(p, conn)
}

// rewound reports whether the request has no body that the other version's call has taken.
func (a *attempt) rewound() bool {
	return a.x.Request.Body.Reader == nil
}
