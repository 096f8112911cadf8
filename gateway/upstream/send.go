package upstream

import (
	"strconv"
	"time"

	"headgate/gateway/exchange"
)

// Call is a request that an upstream is answering. Close ends it, whether or not its reply was read to the end.
type Call interface{ Close() }

// Send asks a target and fills x.Reply up to its head; the body is read from it afterwards. Close the call at the end of
// the exchange. The error is an *exchange.Error or that of reading the request's body, and then there is no call; nor is there
// one when the upstream's fallback has answered by itself.
//
// Before its first attempt an exchange passes the gate: breaker, then limiter. Its place is given back with the head of the
// answer.
func (u *Upstream) Send(x *exchange.Exchange) (Call, error) {
	if u.config.Fallback != nil {
		return u.sendOrFallBack(x)
	}
	return u.send(x)
}

func (u *Upstream) send(x *exchange.Exchange) (Call, error) {
	now := u.env.Clock.Now()
	u.expire(x, now)
	pass, err := u.gate.Enter(x, now)
	if err != nil {
		x.Usage.UpstreamStart = u.env.Clock.Now().Sub(x.Start)
		return nil, err
	}
	defer pass.Abandon() // of an exchange that panics
	began := pass.Began()
	x.Usage.UpstreamStart = began.Sub(x.Start)
	u.tell(x, began)
	a := attempt{upstream: u, x: x, began: began}
	call, err := a.answer()
	if a.target != nil {
		x.Usage.Target = a.target.end.Address
	}
	x.Usage.UpstreamTime = a.took
	pass.Retried = a.number > 1
	pass.Leave(x, a.took, err)
	if err != nil {
		return nil, err
	}
	return call, nil
}

// Limit lets the time begin to count that the document allows for the whole exchange.
func (u *Upstream) Limit(x *exchange.Exchange) {
	if u.config.Timeouts.Total > 0 {
		u.expire(x, u.env.Clock.Now())
	}
}

func (u *Upstream) expire(x *exchange.Exchange, now time.Time) {
	if total := u.config.Timeouts.Total; total > 0 && x.Cancel != nil {
		x.Cancel.Expire(now, x.Start.Add(total))
	}
}

// Waiting is the share of the requests that lately had to wait for the upstream, or were refused because it is busy, in percent.
func (u *Upstream) Waiting(now time.Time) int { return u.gate.Pressure(now) }

// tell puts what the document wants the service to know into the request's head: how much time is left, and that it should do
// less because requests wait. What a client says in these fields is not the gateway's word, and does not get through.
func (u *Upstream) tell(x *exchange.Exchange, now time.Time) {
	if name := u.config.Timeouts.Header; name != "" {
		x.Request.Header.Del(name)
		if x.Cancel != nil {
			if until, ok := x.Cancel.Until(); ok {
				x.Request.Header.Set(name, strconv.FormatInt(max(until.Sub(now).Milliseconds(), 1), 10))
			}
		}
	}
	if name := u.config.Concurrency.BrownOut; name != "" {
		x.Request.Header.Del(name)
		if share := u.gate.Pressure(now); share > 0 {
			x.Request.Header.Set(name, strconv.Itoa(share))
		}
	}
}
