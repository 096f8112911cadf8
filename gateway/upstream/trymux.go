package upstream

import (
	"errors"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream/pool"
	"headgate/gateway/wire/h1"
	"headgate/gateway/wire/h2/client"
)

// tryMux is try where the target speaks HTTP/2, or may.
func (a *attempt) tryMux(p *pool.Pool, fresh bool) (reused bool, err error) {
	before := a.took
	defer func() { a.learn(err, reused, before) }()
	for {
		reused, err = a.through(p, fresh)
		now := a.target.pool.Load()
		if now == p || !errors.Is(err, pool.ErrClosed) {
			break
		}
		p = now // the identity has changed under way
	}
	return reused, err
}

// through makes the call over the version of HTTP that the target speaks.
func (a *attempt) through(p *pool.Pool, fresh bool) (reused bool, err error) {
	g := p.Stream(a.x, fresh)
	switch {
	case g.Err != nil:
		return false, pool.DialError(a.x, g.Err)
	case g.Shared == nil:
		return a.onH1(p, fresh, g.Alone)
	}
	return a.onStream(g.Shared, g.Reused)
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
		a.shared = client.NewCall(a.target.pool.Load().StreamPlan())
		a.shared.Prepare(a.x)
	}
	a.overH2 = true
	err := a.shared.Do(a.x, c)
	return reused || a.shared.Unprocessed(), err
}

// onH1 makes the call on a connection of HTTP/1.1: the one given, an idle one, or a new one.
func (a *attempt) onH1(p *pool.Pool, fresh bool, conn *h1.Conn) (reused bool, err error) {
	if conn == nil && !fresh {
		conn = p.Take(a.x.Shard)
		reused = conn != nil
	}
	if conn == nil {
		conn, err = p.Dial(a.x)
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
	return reused, a.onConn(p, conn)
}

// rewound reports whether the request has no body that the other version's call has taken.
func (a *attempt) rewound() bool {
	return a.x.Request.Body.Reader == nil
}
