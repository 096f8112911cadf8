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

// Dial opens a connection to a target for bytes that are not ours to understand, as TCP listeners do: chosen as for a
// request, with its PROXY header and its TLS handshake made, and told in x.Usage. A target that cannot be reached is
// counted as failing and another one is asked. x says who the client is and may be canceled meanwhile.
//
// The connection is the caller's to close; release must be called at its end, once or more. The error is always an
// *exchange.Error, and then there is neither.
func (u *Upstream) Dial(x *exchange.Exchange) (c *sock.Conn, release func(), err error) {
	began := u.env.Clock.Now()
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
