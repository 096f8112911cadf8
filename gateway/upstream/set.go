package upstream

import (
	"math/rand/v2"
	"sync"
)

// set is the targets at one time, and how one of them is chosen. It is immutable: when targets come or go another one takes
// its place, in which those that stay are the same values, with their connections, their latency and their health.
type set struct {
	targets []*target
	balance balancer
}

func (u *Upstream) newSet(targets []*target) *set {
	return &set{targets, newBalancer(u.config.Balance.Algorithm, targets, rand.Uint64)}
}

// wanted is a target as it should be.
type wanted struct {
	end    endpoint
	weight int // 0: takes no new requests
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
	known := make(map[endpoint]*target, len(old.targets))
	for _, t := range old.targets {
		known[t.end] = t
	}
	next := make([]*target, 0, len(list))
	for _, w := range list {
		t := known[w.end]
		if t == nil {
			t = newTarget(u, w.weight, w.end)
			came++
			if u.watching {
				t.watch()
			}
		}
		delete(known, w.end)
		t.weight.Store(int64(w.weight))
		next = append(next, t)
	}
	u.set.Store(u.newSet(next))
	leaving := make([]*target, 0, len(known))
	for _, t := range known {
		t.gone.Store(true)
		leaving = append(leaving, t)
	}
	retire(leaving)
	return came, len(leaving)
}

// retire ends what targets do beside the requests that they answer.
func retire(targets []*target) {
	var probes sync.WaitGroup
	for _, t := range targets {
		if stop := t.unwatch; stop != nil {
			t.unwatch = nil
			probes.Go(stop)
		}
		t.pool.Load().close()
	}
	probes.Wait()
}
