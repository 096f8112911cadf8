package upstream

import (
	"errors"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream/balance"
	"headgate/gateway/upstream/pool"
	"headgate/gateway/wire/h1"
)

// target is one address of a service and everything known about it.
type target struct {
	upstream *Upstream
	end      pool.Endpoint
	plan     h1.Plan
	pool     atomic.Pointer[pool.Pool]

	load      *balance.Load // latency, requests under way, ejected or down
	failures  atomic.Int64  // in a row
	ejections atomic.Int64  // in a row
	why       atomic.Pointer[string]
	gone      atomic.Bool // not in the set any more
	unwatch   func()      // stops its probe and waits; under Upstream.changing; nil: there is none
}

func newTarget(u *Upstream, e pool.Endpoint) *target {
	c := &u.config
	t := &target{upstream: u, end: e, load: balance.NewLoad(u.total)}
	t.plan = h1.Plan{Limits: &replyLimits, Target: e.Address, Response: c.Timeouts.Response, Idle: c.Timeouts.Idle}
	switch c.Host {
	case "pass":
	case "target":
		t.plan.Host = e.Address
	default:
		t.plan.Host = c.Host
	}
	t.pool.Store(pool.New(e, &t.plan, &u.settings, u.identity.Load()))
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
	t.sample(took, false)
}

// sample feeds what the balancer knows with how a request went.
func (t *target) sample(took time.Duration, failed bool) {
	u := t.upstream
	if u.set.Load().only == nil { // there is a choice
		t.load.Learn(u.env.Sweeper.Coarse(), took, failed)
	}
}

const maxEjectionFactor = 10

// failed counts a failure and ejects the target when there were too many in a row.
func (t *target) failed(took time.Duration) {
	t.sample(took, true)
	c := t.upstream.config.Ejection
	n := t.failures.Add(1)
	if c.Failures == 0 || n < int64(c.Failures) || !t.upstream.mayEject() {
		return
	}
	now := t.upstream.env.Sweeper.Coarse()
	if now < t.load.EjectedUntil() {
		return
	}
	times := min(t.ejections.Add(1), maxEjectionFactor)
	pause := min(c.For<<(times-1), maxEjectionFactor*c.For)
	t.load.Eject(now + pause)
	t.failures.Store(0)
	t.upstream.env.Log.Warn("a target is ejected", "target", t.end.Address, "failures", n, "for", pause)
}

// mayEject holds ejections to the share that the document allows.
func (u *Upstream) mayEject() bool {
	now, out, targets := u.env.Sweeper.Coarse(), 1, u.set.Load().targets
	for _, t := range targets {
		if now < t.load.EjectedUntil() {
			out++
		}
	}
	return out*100 <= u.config.Ejection.MaxShare*len(targets)
}
