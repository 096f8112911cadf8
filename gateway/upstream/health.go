package upstream

import (
	"math/rand/v2"
	"time"

	"headgate/gateway/upstream/gate"
	"headgate/gateway/upstream/health"
	"headgate/gateway/upstream/pool"
)

// coarse is the clock of the balancer and of health; without a sweeper, as where a document is only checked, it stands still.
func (u *Upstream) coarse() time.Duration {
	if u.env.Sweeper == nil {
		return 0
	}
	return u.env.Sweeper.Coarse()
}

// newHealth returns the health of an upstream of which no target is known.
func (u *Upstream) newHealth() (*health.Group, error) {
	return health.New(u.config.Health, u.config.Ejection, health.Env{
		Upstream: u.Name, Now: u.coarse, Clock: u.env.Clock, Random: rand.Uint64, Log: u.env.Log, Metrics: u.env.Metrics,
	})
}

// Inherit takes over what is known about targets from the upstream of that name that serves now: health, latency, what is
// under way, and for how long they have been there; and what its gate has found out. Targets that are new beside others begin
// slowly. It is called before Start; if that is never called, nothing has happened.
func (u *Upstream) Inherit(old *Upstream) {
	u.changing.Lock()
	defer u.changing.Unlock()
	u.health.Inherit(old.health)
	u.total = old.total
	u.gate = gate.After(old.gate, &u.config, u.env.Clock)
	s := u.set.Load()
	var fresh []*target
	for _, t := range s.targets {
		own := t.load
		if t.join(); t.load == own {
			t.load.CountIn(u.total)
			fresh = append(fresh, t)
		}
	}
	if len(fresh) < len(s.targets) { // beside others that were there
		for _, t := range fresh {
			t.load.Join(u.coarse())
		}
	}
	if s, err := u.newSet(s.targets, s.wanted); err == nil { // it has been one before
		u.adopt(s)
	}
}

// watch begins to ask every target at an interval whether it is well.
func (u *Upstream) watch() {
	u.changing.Lock()
	defer u.changing.Unlock()
	u.health.Live()
	if u.watching {
		return
	}
	u.watching = true
	for _, t := range u.set.Load().targets {
		t.watch()
	}
}

// watch begins to ask the target.
func (t *target) watch() {
	t.probes = t.upstream.health.Watch(t.health, t.plan.Host, func() *pool.Pool { return t.pool.Load() })
}

// members tells health which targets of a set take requests.
func (s *set) members() []*health.Record {
	list := make([]*health.Record, 0, len(s.targets))
	for i, t := range s.targets {
		if s.wanted[i].weight > 0 {
			list = append(list, t.health)
		}
	}
	return list
}
