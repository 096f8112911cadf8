package upstream

import (
	"errors"
	"math"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// target is one address of a service and everything known about it.
type target struct {
	upstream *Upstream
	end      endpoint
	version  version
	weight   atomic.Int64
	plan     h1.Plan
	pool     atomic.Pointer[pool]

	inFlight  atomic.Int64
	latency   atomic.Uint64 // bits of a float64: seconds, peak-sensitive moving average
	updated   atomic.Int64  // when, on the coarse clock
	failures  atomic.Int64  // in a row
	ejections atomic.Int64  // in a row
	until     atomic.Int64  // ejected until, on the coarse clock
	down      atomic.Bool   // its probes say so
	why       atomic.Pointer[string]
	gone      atomic.Bool // not in the set any more
	unwatch   func()      // stops its probe and waits; under Upstream.changing; nil: there is none
}

func newTarget(u *Upstream, weight int, e endpoint) *target {
	c := &u.config
	t := &target{upstream: u, end: e, version: versionOf(e, c.Protocol)}
	t.weight.Store(int64(weight))
	t.plan = h1.Plan{Limits: &replyLimits, Target: e.address, Response: c.Timeouts.Response, Idle: c.Timeouts.Idle}
	switch c.Host {
	case "pass":
	case "target":
		t.plan.Host = e.address
	default:
		t.plan.Host = c.Host
	}
	t.pool.Store(newPool(t, u.identity.Load()))
	return t
}

// judge learns from how a call went. A reused connection that had died says nothing about the target, and a client that
// went away or sent rubbish does not either.
func (t *target) judge(x *exchange.Exchange, err error, reused bool, took time.Duration) {
	if err != nil {
		var e *exchange.Error
		if errors.As(err, &e) && e.Source == exchange.FromUpstream && !(reused && e.Retry) {
			t.failed(took)
		}
		return
	}
	if x.Reply.Status >= 502 && x.Reply.Status <= 504 {
		t.failed(took)
		return
	}
	t.succeeded(took)
}

// succeeded forgives what was before.
func (t *target) succeeded(took time.Duration) {
	if t.failures.Load() != 0 {
		t.failures.Store(0)
	}
	if t.ejections.Load() != 0 {
		t.ejections.Store(0)
	}
	t.sample(took)
}

const (
	// latencyMemory is how long a slow answer is remembered: the moving average forgets with this time constant.
	latencyMemory = 10 * time.Second
	// failureCost is what a failure counts as, besides the time that it took, so that a target that fails fast does not
	// look like a fast one.
	failureCost = 2 * time.Second
	// maxEjectionFactor bounds how much longer each further ejection in a row lasts.
	maxEjectionFactor = 10
)

// sample feeds the moving average. It jumps to a peak at once and comes down slowly (peak EWMA, as in Finagle). Updates
// that race lose one of each other, which does no harm.
func (t *target) sample(took time.Duration) {
	if len(t.upstream.set.Load().targets) == 1 {
		return // nothing to choose from
	}
	now := int64(t.upstream.env.Sweeper.Coarse())
	seconds, average := took.Seconds(), math.Float64frombits(t.latency.Load())
	if seconds < average {
		age := float64(now-t.updated.Load()) + float64(time.Millisecond)
		keep := math.Exp(-age / float64(latencyMemory))
		seconds = average*keep + seconds*(1-keep)
	}
	t.latency.Store(math.Float64bits(seconds))
	t.updated.Store(now)
}

// failed counts a failure and ejects the target when there were too many in a row.
func (t *target) failed(took time.Duration) {
	t.sample(took + failureCost)
	c := t.upstream.config.Ejection
	n := t.failures.Add(1)
	if c.Failures == 0 || n < int64(c.Failures) || !t.upstream.mayEject() {
		return
	}
	now := t.upstream.env.Sweeper.Coarse()
	if now < time.Duration(t.until.Load()) {
		return
	}
	times := min(t.ejections.Add(1), maxEjectionFactor)
	pause := min(c.For<<(times-1), maxEjectionFactor*c.For)
	t.until.Store(int64(now + pause))
	t.failures.Store(0)
	t.upstream.env.Log.Warn("a target is ejected", "target", t.end.address, "failures", n, "for", pause)
}

// available reports whether the target takes new requests.
func (t *target) available(now time.Duration) bool {
	return t.weight.Load() > 0 && !t.down.Load() && now >= time.Duration(t.until.Load())
}

// mayEject holds ejections to the share that the document allows.
func (u *Upstream) mayEject() bool {
	now, out, targets := u.env.Sweeper.Coarse(), 1, u.set.Load().targets
	for _, t := range targets {
		if now < time.Duration(t.until.Load()) {
			out++
		}
	}
	return out*100 <= u.config.Ejection.MaxShare*len(targets)
}
