package upstream

import (
	"crypto/tls"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// pool is a target's connections under one TLS identity. When the identity changes, because a certificate file did, a new
// pool takes its place; what comes back to the old one is closed, so that no connection is ever shared between two.
type pool struct {
	target *target
	idle   idlePool
	owners []owner
	tls    *tls.Config // nil: in clear
	tlsH1  *tls.Config // for what HTTP/2 cannot carry: offers HTTP/1.1 alone
	mux    *mux        // connections over HTTP/2; nil: never any
}

// The protocols by their names in ALPN (RFC 7301, RFC 9113 section 3.2).
const (
	alpnH1 = "http/1.1"
	alpnH2 = "h2"
)

func newPool(t *target, id *identity) *pool {
	p := &pool{target: t}
	p.idle.init(t.upstream.config.Pool.IdlePerTarget)
	p.owners = make([]owner, len(p.idle.shards))
	for i := range p.owners {
		p.owners[i] = owner{p, uint32(i)}
	}
	if t.end.secure {
		p.tlsH1 = id.config(t.end, alpnH1)
		switch {
		case t.end.raw:
			p.tls = id.config(t.end)
		case t.version == versionAuto:
			p.tls = id.config(t.end, alpnH2, alpnH1)
		case t.version == versionH2:
			p.tls = id.config(t.end, alpnH2)
		default:
			p.tls = p.tlsH1
		}
	}
	if t.version != versionH1 {
		p.mux = newMux(p)
	}
	return p
}

// prune closes what has been idle since before oldest.
func (p *pool) prune(oldest time.Duration) {
	p.idle.prune(oldest)
	if p.mux != nil {
		p.mux.prune(oldest)
	}
}

// close closes what is idle; what is in use ends by itself.
func (p *pool) close() {
	p.idle.close()
	if p.mux != nil {
		p.mux.close()
	}
}

// owner takes connections back for the shard that they were used by. There is one for each shard, so that handing one
// to a call allocates nothing.
type owner struct {
	pool  *pool
	shard uint32
}

func (p *pool) ownerOf(shard uint32) *owner { return &p.owners[shard%uint32(len(p.owners))] }

// Free implements h1.Owner. A connection that told the target about one client is not used for another.
func (o *owner) Free(c *h1.Conn, reusable bool) {
	if !reusable {
		return
	}
	u := o.pool.target.upstream
	if u.proxied() {
		_ = c.Close() // its reply is complete
		return
	}
	c.Idle = u.env.Sweeper.Coarse()
	o.pool.idle.put(o.shard, c)
}

// dial opens a connection for HTTP/1.1. Where the target chooses and has chosen HTTP/2, the connection is given to the mux
// and there is none, nor an error.
func (p *pool) dial(x *exchange.Exchange) (*h1.Conn, error) {
	config := p.tls
	if x.Request.Upgrade != "" {
		config = p.tlsH1
	}
	o, err := p.open(x.Context(), &x.Client, config)
	if err == nil && p.mux != nil && o.alpn == alpnH2 {
		if p.target.upstream.proxied() {
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
		return nil, dialError(x, err)
	}
	return p.h1(o), nil
}

func (p *pool) h1(o opened) *h1.Conn {
	return &h1.Conn{Conn: o.Conn, Opened: p.target.upstream.env.Sweeper.Coarse()}
}
