package ratelimit

import (
	"context"
	"path"
	"strconv"
	"sync"
	"time"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/counter"
)

// limiter is the policy at work.
type limiter struct {
	rate counter.Rate

	key     func(*exchange.Exchange) string // nil: nobody is counted but by address
	keyed   counter.Limiter                 // by what key says
	clients counter.Limiter                 // by address: no key that somebody sends can stand for another's address
	network counter.Networks
	cost    func(*exchange.Exchange) string // nil: 1

	fields  fields // nothing to tell when the headers are off
	headers bool
	results sync.Pool // of *counter.Result
	result  exchange.Slot[*counter.Result]
}

func newLimiter(c Config, e policy.Env) (*limiter, error) {
	rate := counter.Rate{Limit: c.Limit, Per: c.Per, Burst: c.Burst}
	if rate.Burst == 0 {
		rate.Burst = rate.Limit
	}
	l := &limiter{rate: rate, headers: c.Headers, fields: newFields(path.Base(e.Instance), rate)}
	l.keyed, l.clients = e.Counters.Limiter(e.Instance+"#key", rate), e.Counters.Limiter(e.Instance+"#client", rate)
	l.results.New = func() any { return new(counter.Result) }
	if c.Headers {
		l.result = policy.Slot[*counter.Result](e)
	}
	var err error
	switch c.Key {
	case "", "consumer":
		l.key = consumerName
	case "client.ip":
	default:
		if l.key, err = e.Expr.String(c.Key); err != nil {
			return nil, decode.At("key", "%w", err)
		}
	}
	if c.Cost != "" {
		if l.cost, err = e.Expr.String(c.Cost); err != nil {
			return nil, decode.At("cost", "%w", err)
		}
	}
	return l, nil
}

func consumerName(x *exchange.Exchange) string {
	if x.Consumer == nil {
		return ""
	}
	return x.Consumer.Name
}

func (l *limiter) now(x *exchange.Exchange) policy.Verdict { return l.take(x, false) }

func (l *limiter) later(_ context.Context, x *exchange.Exchange) policy.Verdict {
	return l.take(x, true)
}

func (l *limiter) take(x *exchange.Exchange, wait bool) policy.Verdict {
	by, key := l.keyed, ""
	if l.key != nil {
		key = l.key(x)
	}
	if key == "" {
		by, key = l.clients, l.network.Key(x.Client.IP)
	}
	r, ready, err := by.Take(key, l.price(x), x.Start, wait)
	if err != nil {
		return policy.Fail(err)
	}
	if !ready {
		return policy.Wait
	}
	if l.headers {
		kept := l.results.Get().(*counter.Result)
		*kept = r
		l.result.Set(x, kept)
	}
	if r.Allowed {
		return policy.Continue
	}
	return l.refuse(x, r)
}

// price is what the request costs. What is not a price counts as one request, so that nobody asks for free by accident.
func (l *limiter) price(x *exchange.Exchange) int64 {
	if l.cost == nil {
		return 1
	}
	n, err := strconv.ParseInt(l.cost(x), 10, 64)
	if err != nil || n < 0 {
		return 1
	}
	return n
}

func (l *limiter) refuse(x *exchange.Exchange, r counter.Result) policy.Verdict {
	if r.RetryAfter < 0 {
		return policy.Refuse(x, exceeded, "This request alone costs more than may be spent at once; asking again will not help.")
	}
	v := policy.Refuse(x, exceeded, l.fields.detail)
	x.Reply.Header.Add("Retry-After", strconv.FormatInt(ceilSeconds(r.RetryAfter), 10))
	return v
}

// tell adds what is left to the reply, whoever made it.
func (l *limiter) tell(x *exchange.Exchange) policy.Verdict {
	if r, ok := l.result.Get(x); ok && r != nil {
		l.fields.add(&x.Reply.Header, *r)
	}
	return policy.Continue
}

func (l *limiter) done(x *exchange.Exchange) {
	if r, ok := l.result.Get(x); ok && r != nil {
		l.result.Set(x, nil)
		l.results.Put(r)
	}
}

// ceilSeconds rounds up to whole seconds, the unit of Retry-After (RFC 9110 section 10.2.3), and is at least one.
func ceilSeconds(d time.Duration) int64 { return max(int64((d+time.Second-1)/time.Second), 1) }
