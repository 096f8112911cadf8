package upstream

import (
	"errors"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream/balance"
	"headgate/gateway/upstream/health"
	"headgate/gateway/upstream/pool"
	"headgate/gateway/wire/h1"
)

// target is one address of a service and everything known about it.
type target struct {
	upstream *Upstream
	end      pool.Endpoint
	plan     h1.Plan
	pool     atomic.Pointer[pool.Pool]

	health *health.Record
	load   *balance.Load // latency, requests under way, ejected or down; the record's
	gone   atomic.Bool   // not in the set any more
	probes *health.Watch // under Upstream.changing; nil: none run
}

func newTarget(u *Upstream, e pool.Endpoint) *target {
	c := &u.config
	t := &target{upstream: u, end: e}
	t.join()
	t.plan = h1.Plan{Limits: &replyLimits, Target: e.Address, Response: c.Timeouts.Response, Idle: c.Timeouts.Idle}
	if try := c.Retry.TryTimeout; try > 0 {
		t.plan.Response = min(try, t.plan.Response)
	}
	switch c.Host {
	case "pass":
	case "target":
		t.plan.Host = e.Address
	default:
		t.plan.Host = c.Host
	}
	t.pool.Store(u.pools.New(e, &t.plan, u.identity.Load(), t.ready))
	return t
}

// join takes what is known about the target, which may be much: it was there before a reload, or a moment ago.
func (t *target) join() {
	t.health = t.upstream.health.Join(t.end.String(), t.end.Address, func() *balance.Load { return balance.NewLoad(t.upstream.total) })
	t.load = t.health.Load()
}

// ready reports whether the target takes requests, so that connections may be opened ahead.
func (t *target) ready() bool {
	return t.load.Available(t.upstream.env.Sweeper.Coarse()) && !t.gone.Load()
}

// judge learns from how a call went. A reused connection that had died says nothing about the target, and a client that
// went away or sent rubbish does not either.
func (t *target) judge(x *exchange.Exchange, err error, reused bool, took time.Duration) {
	var failure health.Failure
	failed := false
	if err != nil {
		if e := (*exchange.Error)(nil); reused && errors.As(err, &e) && e.Retry {
			return
		}
		if failure, failed = health.FailureOf(err); !failed {
			return
		}
	} else {
		failure, failed = health.FailureOfStatus(x.Reply.Status)
	}
	u := t.upstream
	now := u.env.Sweeper.Coarse()
	if u.set.Load().only == nil { // there is a choice
		t.load.Learn(now, took, failed)
	}
	if failed {
		t.health.Failed(x.Shard, now, failure)
	} else {
		t.health.Succeeded(x.Shard, now, took)
	}
}
