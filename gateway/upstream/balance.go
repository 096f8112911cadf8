package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

// balancer chooses a target that this exchange has not tried yet. nil: there is none with a weight.
type balancer interface {
	pick(now time.Duration, not tried) *target
}

// tried is the targets that one exchange, or connection, was sent to in vain. It is handed on by value: a pointer through an
// interface would cost each request an allocation.
type tried struct {
	list [maxAttempts]*target
	n    int
}

func (t *tried) add(one *target) {
	if !t.has(one) && t.n < len(t.list) {
		t.list[t.n] = one
		t.n++
	}
}

func (t *tried) has(one *target) bool {
	for _, other := range t.list[:t.n] {
		if other == one {
			return true
		}
	}
	return false
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

func (none) pick(time.Duration, tried) *target { return nil }

// single is an upstream of one target, which is asked whatever is known about it: an error of its own says more than
// ours would.
type single struct{ target *target }

func (s single) pick(_ time.Duration, not tried) *target {
	if s.target.weight.Load() == 0 || not.has(s.target) {
		return nil
	}
	return s.target
}

// candidates chooses among targets that are available or, when none is, among all that have a weight (fail-open): a
// service whose targets all look bad is more likely to answer than nobody.
type candidates struct{ targets []*target }

// from returns the first usable target at or behind index i, in a circle.
func (c candidates) from(i int, now time.Duration, not tried) *target {
	n := len(c.targets)
	for k := range n {
		if t := c.targets[(i+k)%n]; t.available(now) && !not.has(t) {
			return t
		}
	}
	for k := range n {
		if t := c.targets[(i+k)%n]; t.weight.Load() > 0 && !not.has(t) {
			return t
		}
	}
	return nil
}

// leastLatency takes the better of two targets drawn at random ("power of two choices"), where good is a low product of
// remembered latency and requests in flight, for its weight.
type leastLatency struct {
	candidates
	random func() uint64
}

func (b *leastLatency) pick(now time.Duration, not tried) *target {
	r, n := b.random(), uint64(len(b.targets))
	first := r % n
	second := (first + 1 + (r>>32)%(n-1)) % n
	x, y := b.from(int(first), now, not), b.from(int(second), now, not)
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

func (b *roundRobin) pick(now time.Duration, not tried) *target {
	if len(b.circle) == 0 {
		return nil
	}
	return b.from(b.circle[(b.next.Add(1)-1)%uint64(len(b.circle))], now, not)
}
