package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

// balancer chooses a target. avoid was tried just now without success, unless same asks for it again; it is chosen only
// when there is no other. nil: there is no target with a weight.
type balancer interface {
	pick(now time.Duration, avoid *target, same bool) *target
}

func newBalancer(name string, targets []*target, random func() uint64) balancer {
	switch {
	case len(targets) == 0:
		return none{}
	case len(targets) == 1:
		return single{targets[0]}
	case name == "round-robin":
		return newRoundRobin(targets)
	}
	return &leastLatency{candidates{targets}, random}
}

// none is an upstream whose targets are not known yet.
type none struct{}

func (none) pick(time.Duration, *target, bool) *target { return nil }

// single is an upstream of one target, which is asked whatever is known about it: an error of its own says more than
// ours would.
type single struct{ target *target }

func (s single) pick(time.Duration, *target, bool) *target {
	if s.target.weight.Load() == 0 {
		return nil
	}
	return s.target
}

// candidates chooses among targets that are available or, when none is, among all that have a weight (fail-open): a
// service whose targets all look bad is more likely to answer than nobody.
type candidates struct{ targets []*target }

// from returns the first usable target at or behind index i, in a circle.
func (c candidates) from(i int, now time.Duration, avoid *target) *target {
	n := len(c.targets)
	for k := range n {
		if t := c.targets[(i+k)%n]; t != avoid && t.available(now) {
			return t
		}
	}
	for k := range n {
		if t := c.targets[(i+k)%n]; t != avoid && t.weight.Load() > 0 {
			return t
		}
	}
	if avoid != nil && avoid.weight.Load() > 0 {
		return avoid
	}
	return nil
}

// leastLatency takes the better of two targets drawn at random ("power of two choices"), where good is a low product of
// remembered latency and requests in flight, for its weight.
type leastLatency struct {
	candidates
	random func() uint64
}

func (b *leastLatency) pick(now time.Duration, avoid *target, same bool) *target {
	if same && avoid != nil {
		return avoid
	}
	r, n := b.random(), uint64(len(b.targets))
	first := r % n
	second := (first + 1 + (r>>32)%(n-1)) % n
	x, y := b.from(int(first), now, avoid), b.from(int(second), now, avoid)
	if x == nil || y == nil || x == y {
		return x
	}
	if y.cost(now) < x.cost(now) {
		return y
	}
	return x
}

// firstGuess is what a target that has not answered yet counts as once it has been asked: without it one that never
// answers would look like the fastest and get every request.
const firstGuess = 1.0 // seconds

// cost is what one more request would meet. A target that was not asked for a while is forgiven step by step, until it
// is asked again.
func (t *target) cost(now time.Duration) float64 {
	latency, waiting := math.Float64frombits(t.latency.Load()), t.inFlight.Load()
	switch idle := float64(int64(now) - t.updated.Load()); {
	case waiting > 0 && latency == 0:
		latency = firstGuess
	case waiting == 0 && idle > float64(time.Second):
		latency *= math.Exp(-idle / float64(latencyMemory))
	}
	return (latency + float64(time.Microsecond)/float64(time.Second)) * float64(waiting+1) / float64(t.weight.Load())
}

// roundRobin goes through a circle in which each target stands as often as its weight, spread evenly (smooth weighted
// round robin, as in nginx), laid out once.
type roundRobin struct {
	candidates
	circle []int // indexes of targets
	next   atomic.Uint64
}

// maxCircle bounds the circle when weights have no common divisor.
const maxCircle = 10_000

func newRoundRobin(targets []*target) *roundRobin {
	b := &roundRobin{candidates: candidates{targets}}
	var total, divisor int64
	for _, t := range targets {
		total += t.weight.Load()
		divisor = gcd(divisor, t.weight.Load())
	}
	if total == 0 {
		return b
	}
	current := make([]int64, len(targets))
	for range min(total/divisor, maxCircle) {
		best := 0
		for i, t := range targets {
			current[i] += t.weight.Load()
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		b.circle = append(b.circle, best)
	}
	return b
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (b *roundRobin) pick(now time.Duration, avoid *target, same bool) *target {
	switch {
	case same && avoid != nil:
		return avoid
	case len(b.circle) == 0:
		return nil
	}
	return b.from(b.circle[(b.next.Add(1)-1)%uint64(len(b.circle))], now, avoid)
}
