package upstream

import (
	"sync"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream/balance"
	"headgate/gateway/upstream/pool"
	"headgate/internal/sock"
)

// Raw reports whether the targets carry bytes and no HTTP (tcp:// and tls://): such an upstream is for TCP listeners only.
func (u *Upstream) Raw() bool { return u.raw }

// dial is Dial without the fallback.
func (u *Upstream) dial(x *exchange.Exchange) (c *sock.Conn, release func(), err error) {
	pass, err := u.gate.Enter(x, u.env.Clock.Now())
	if err != nil {
		return nil, nil, err
	}
	defer func() { pass.Leave(x, x.Usage.UpstreamTime, err) }() // once the connection stands, nothing more is known of it
	began := pass.Began()
	x.Usage.UpstreamStart = began.Sub(x.Start)
	var not balance.Tried
	for x.Usage.Attempts < maxAttempts {
		t, full := u.pick(x, &not)
		if t == nil && err == nil {
			err = noTarget(full)
		}
		if t == nil { // nobody is left to ask
			break
		}
		not.Add(t.load)
		x.Usage.Attempts++
		x.Usage.Target = t.end.Address
		var open pool.Opened
		open, err = t.pool.Load().Open(x.Context(), &x.Client)
		x.Usage.UpstreamTime = u.env.Clock.Now().Sub(began)
		if err == nil {
			t.judge(x, nil, false, x.Usage.UpstreamTime)
			shard := x.Shard
			return open.Conn, sync.OnceFunc(func() { t.load.Done(shard) }), nil
		}
		t.load.Done(x.Shard)
		err = pool.DialError(x, err)
		t.judge(x, err, false, x.Usage.UpstreamTime)
		if e, ok := err.(*exchange.Error); !ok || !e.Retry {
			break
		}
	}
	return nil, nil, err
}
