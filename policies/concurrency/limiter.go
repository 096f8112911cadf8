package concurrency

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/counter"
	"headgate/internal/metric"
)

// limiter is the policy at work.
type limiter struct {
	places  *places // survives reloads
	bounds  bounds
	key     func(*exchange.Exchange) string // nil: nobody is counted but by address
	network counter.Networks
	taken   exchange.Slot[*place]
	pool    sync.Pool // of *place

	wait       time.Duration
	code       exchange.Code
	retryAfter string
	waiting    *metric.Gauge
	waited     *metric.Counter
}

// place is what an exchange holds while it runs.
type place struct {
	key     uint64
	counted bool // in the total
}

func newLimiter(c Config, e policy.Env) (*limiter, error) {
	l := &limiter{
		places: policy.Keep(e, "places", newPlaces),
		bounds: bounds{limit: int32(c.Limit), total: int32(c.Total), queue: c.Queue},
		taken:  policy.Slot[*place](e), wait: c.Wait, code: full,
		retryAfter: strconv.FormatInt(int64((c.RetryAfter+time.Second-1)/time.Second), 10),
		waiting:    e.Metrics.Gauge("headgate_concurrency_waiting", "Exchanges that wait for a place.", e.Labels...),
		waited:     e.Metrics.Counter("headgate_concurrency_waited_total", "Exchanges that had to wait for a place.", e.Labels...),
	}
	l.pool.New = func() any { return new(place) }
	if c.Status == exceeded.Status {
		l.code = exceeded
	}
	switch c.Key {
	case "", "consumer":
		l.key = consumerName
	case "client.ip":
	default:
		var err error
		if l.key, err = e.Expr.String(c.Key); err != nil {
			return nil, decode.At("key", "%w", err)
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

// who returns the hash of the caller. Keys and addresses have seeds of their own, so no key stands for an address.
func (l *limiter) who(x *exchange.Exchange) uint64 {
	if l.key != nil {
		if key := l.key(x); key != "" {
			return l.places.hashKey(key)
		}
	}
	return l.places.hashAddress(l.network.Key(x.Client.IP))
}

func (l *limiter) now(x *exchange.Exchange) policy.Verdict {
	key := l.who(x)
	if l.places.enter(key, &l.bounds) {
		l.took(x, key)
		return policy.Continue
	}
	if l.bounds.queue > 0 {
		return policy.Wait
	}
	return l.refuse(x)
}

func (l *limiter) later(ctx context.Context, x *exchange.Exchange) policy.Verdict {
	key := l.who(x)
	w, ok := l.places.join(key, &l.bounds)
	switch {
	case !ok:
		return l.refuse(x)
	case w == nil:
		l.took(x, key)
		return policy.Continue
	}
	l.waited.Inc(x.Shard)
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	patience := time.NewTimer(l.wait)
	defer patience.Stop()
	select {
	case <-w.granted:
		l.took(x, key)
		return policy.Continue
	case <-patience.C:
	case <-ctx.Done():
	}
	if l.places.leave(w) { // granted in the same moment
		l.took(x, key)
		if ctx.Err() == nil {
			return policy.Continue
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return policy.Refuse(x, exchange.ClientGone, "")
	}
	return l.refuse(x)
}

func (l *limiter) took(x *exchange.Exchange, key uint64) {
	p := l.pool.Get().(*place)
	*p = place{key, l.bounds.total > 0}
	l.taken.Set(x, p)
}

func (l *limiter) refuse(x *exchange.Exchange) policy.Verdict {
	v := policy.Refuse(x, l.code, "")
	x.Reply.Header.Add("Retry-After", l.retryAfter)
	return v
}

// done gives the exchange's place to the next. Emptying the slot first makes a second call harmless.
func (l *limiter) done(x *exchange.Exchange) {
	p, ok := l.taken.Get(x)
	if !ok || p == nil {
		return
	}
	l.taken.Set(x, nil)
	l.places.exit(*p)
	l.pool.Put(p)
}
