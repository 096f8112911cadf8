package upstream

import (
	"sync"

	"headgate/gateway/upstream/balance"
	"headgate/gateway/upstream/pool"
)

// set is the targets at one time, and how one of them is chosen. It is immutable: when targets come or go another one takes
// its place, in which those that stay are the same values, with their connections, their latency and their health.
type set struct {
	targets  []*target
	wanted   []wanted // of each, what was asked for
	only     *target  // the one that there is; nil: nobody, or there is a choice
	balancer *balance.Balancer
	pins     func() map[uint64]int // index by Pin, made when first asked for
}

// wanted is a target as it should be.
type wanted struct {
	end      pool.Endpoint
	weight   int // 0: takes no new requests
	priority int
	zone     string
}

// newSet returns the set of targets, of which each is the one that is wanted at its place.
func (u *Upstream) newSet(targets []*target, list []wanted) (*set, error) {
	ends := make([]balance.Endpoint, len(list))
	for i, w := range list {
		ends[i] = balance.Endpoint{
			Key: w.end.Address, Weight: int64(w.weight), Zone: w.zone, Tier: w.priority,
			MaxRequests: int64(u.config.Pool.Requests), Load: targets[i].load,
		}
	}
	b, err := balance.New(ends, u.balancing())
	if err != nil {
		return nil, err
	}
	s := &set{targets: targets, wanted: list, balancer: b}
	if len(targets) == 1 {
		s.only = targets[0]
	}
	s.pins = sync.OnceValue(func() map[uint64]int {
		m := make(map[uint64]int, len(targets))
		for i, t := range targets {
			m[u.Pin(t.end.Address)] = i
		}
		return m
	})
	return s, nil
}

// replace makes the targets those that are wanted. Those that are not wanted any more drain: what they answer is finished,
// what is idle is closed, and they are asked nothing more, neither by requests nor by probes.
func (u *Upstream) replace(list []wanted) (came, went int) {
	u.changing.Lock()
	defer u.changing.Unlock()
	if u.closed {
		return 0, 0
	}
	old := u.set.Load()
	known := make(map[pool.Endpoint]*target, len(old.targets))
	for _, t := range old.targets {
		known[t.end] = t
	}
	var fresh []*target
	next := make([]*target, 0, len(list))
	for _, w := range list {
		t := known[w.end]
		if t == nil {
			t = newTarget(u, w.end)
			fresh = append(fresh, t)
		}
		delete(known, w.end)
		next = append(next, t)
	}
	s, err := u.newSet(next, list)
	if err != nil {
		u.env.Log.Error("the targets are not changed", "error", err)
		return 0, 0
	}
	u.welcome(fresh, len(old.targets) > 0)
	u.adopt(s)
	leaving := make([]*target, 0, len(known))
	for _, t := range known {
		t.gone.Store(true)
		leaving = append(leaving, t)
		u.health.Leave(t.health)
	}
	retire(leaving)
	return len(fresh), len(leaving)
}

// adopt makes a set the one that is used.
func (u *Upstream) adopt(s *set) {
	u.set.Store(s)
	u.health.Members(s.members())
}

// welcome prepares targets that are new: beside others they begin slowly.
func (u *Upstream) welcome(fresh []*target, others bool) {
	now := u.coarse()
	for _, t := range fresh {
		if others {
			t.load.Join(now)
		}
		if u.watching {
			t.watch()
		}
	}
}

// retire ends what targets do beside the requests that they answer.
func retire(targets []*target) {
	var probes sync.WaitGroup
	for _, t := range targets {
		if w := t.probes; w != nil {
			t.probes = nil
			probes.Go(w.Stop)
		}
		t.pool.Load().Close()
	}
	probes.Wait()
}
