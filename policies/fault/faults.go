package fault

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/clock"
	"headgate/internal/metric"
)

// field is the field of a reply to an exchange that was hit: a dictionary (RFC 9651 section 3.2) of what was done to it,
// where delay has the milliseconds.
const field = "Headgate-Fault"

// maxDelayed bounds the exchanges of one policy that are delayed at one time; more are not delayed. Without it a test with
// a long delay under full load would pile up requests until the gateway itself is the fault.
const maxDelayed = 1 << 14

// faults is the policy at work.
type faults struct {
	delay, abort, cut, slow chance

	length, jitter time.Duration // of a delay
	code           exchange.Code // of the problem, with the status of the document
	after          int64         // bytes of a reply that is cut off
	toward, back   int64         // bytes in a second, of requests and of replies; 0: no limit
	key            func(*exchange.Exchange) string
	random         func() uint64
	clock          clock.Clock
	rehearsed      bool // in shadow mode nobody is made to wait
	what           exchange.Slot[*hit]
	delayed        *metric.Gauge
}

// hit is what is done to one exchange.
type hit struct {
	delay            time.Duration
	abort, cut, slow bool
}

func newFaults(c Config, e policy.Env) (*faults, error) {
	f := &faults{
		random: e.Random, clock: e.Clock, rehearsed: e.Shadow, what: policy.Slot[*hit](e),
		delayed: e.Metrics.Gauge("headgate_faults_delayed", "Exchanges that the policy fault delays now.", e.Labels...),
	}
	if c.Key != "" {
		var err error
		if f.key, err = e.Expr.String(c.Key); err != nil {
			return nil, decode.At("key", "%w", err)
		}
	}
	if d := c.Delay; d != nil {
		f.delay, f.length, f.jitter = newChance(e, "delay", d.Percent), d.For, d.Jitter
	}
	if a := c.Abort; a != nil {
		f.abort, f.code = newChance(e, "abort", a.Percent), injected
		f.code.Status = a.Status
	}
	if c := c.Cut; c != nil {
		f.cut, f.after = newChance(e, "cut", c.Percent), int64(c.After)
	}
	if b := c.Bandwidth; b != nil {
		f.slow, f.toward, f.back = newChance(e, "bandwidth", b.Percent), int64(b.Request), int64(b.Reply)
	}
	return f, nil
}

// now decides what is done to an exchange. One that is not hit is left without a trace.
func (f *faults) now(x *exchange.Exchange) policy.Verdict {
	t := f.toss(x)
	h := hit{abort: t.hits(&f.abort), cut: t.hits(&f.cut), slow: t.hits(&f.slow)}
	if t.hits(&f.delay) && !f.rehearsed {
		h.delay = f.wait()
	}
	if h == (hit{}) {
		return policy.Continue
	}
	f.keep(x, h)
	if h.delay > 0 {
		return policy.Wait
	}
	return f.strike(x)
}

// keep remembers what is done to an exchange. It stands apart so that only those that are hit cost memory.
func (f *faults) keep(x *exchange.Exchange, h hit) { f.what.Set(x, &h) }

// struck returns what is done to an exchange; nil: nothing.
func (f *faults) struck(x *exchange.Exchange) *hit {
	h, _ := f.what.Get(x)
	return h
}

// wait draws the length of a delay.
func (f *faults) wait() time.Duration {
	if f.jitter == 0 {
		return f.length
	}
	return f.length - f.jitter + time.Duration(f.random()%uint64(2*f.jitter+1))
}

// later delays the exchange, unless it ends before.
func (f *faults) later(ctx context.Context, x *exchange.Exchange) policy.Verdict {
	h := f.struck(x)
	if f.delayed.Value() >= maxDelayed {
		h.delay = 0
		return f.strike(x)
	}
	f.delay.injected.Inc(x.Shard)
	f.delayed.Add(1)
	defer f.delayed.Add(-1)
	timer := time.NewTimer(h.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return f.strike(x)
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.Canceled) { // also at the exchange's own deadline, which the engine knows
		return policy.Refuse(x, exchange.ClientGone, "")
	}
	v := policy.Refuse(x, exchange.DeadlineExceeded, "")
	x.Err.Source = exchange.FromGateway
	return v
}

// strike does what is due when the exchange has waited.
func (f *faults) strike(x *exchange.Exchange) policy.Verdict {
	h := f.struck(x)
	if h.abort {
		h.cut, h.slow = false, false
		f.abort.injected.Inc(x.Shard)
		x.Problem(f.code, "")
		x.Err = &exchange.Error{Code: injected, Source: exchange.FromGateway}
		return policy.Answered
	}
	if h.slow {
		f.slow.injected.Inc(x.Shard)
	}
	return policy.Continue
}

// mark tells in the reply what was done, so that nobody looks for it elsewhere.
func (f *faults) mark(x *exchange.Exchange) policy.Verdict {
	h := f.struck(x)
	if h == nil {
		return policy.Continue
	}
	body := &x.Reply.Body
	h.cut = h.cut && x.Err == nil && !body.None() && (body.Length < 0 || body.Length > f.after)
	var b []byte
	if h.delay > 0 {
		b = strconv.AppendInt(append(b, "delay="...), h.delay.Milliseconds(), 10)
	}
	for _, done := range [...]struct {
		hit  bool
		name string
	}{{h.abort, "abort"}, {h.cut, "cut"}, {h.slow, "bandwidth"}} {
		if !done.hit {
			continue
		}
		if len(b) > 0 {
			b = append(b, ", "...)
		}
		b = append(b, done.name...)
	}
	if len(b) > 0 {
		x.Reply.Header.Set(field, string(b))
	}
	return policy.Continue
}

func (f *faults) requestBody(x *exchange.Exchange, body io.Reader) io.Reader {
	if h := f.struck(x); h == nil || !h.slow || body == nil {
		return body
	}
	return &stream{faults: f, x: x, from: body, ctx: x.Context(), rate: f.toward, left: -1}
}

func (f *faults) responseBody(x *exchange.Exchange, body io.Reader) io.Reader {
	h := f.struck(x)
	if h == nil || body == nil || !h.cut && (!h.slow || f.back == 0) {
		return body
	}
	s := &stream{faults: f, x: x, from: body, ctx: x.Context(), left: -1}
	if h.slow {
		s.rate = f.back
	}
	if h.cut {
		s.left = f.after
	}
	return s
}
