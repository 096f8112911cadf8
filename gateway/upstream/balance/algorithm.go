package balance

import (
	"container/heap"
	"math"
	"sync/atomic"
)

// algorithm names a member that d accepts, as an index into the balancer's endpoints, or None.
type algorithm interface{ pick(d draw) int }

func newAlgorithm(b *Balancer, g *group) algorithm {
	switch b.c.Algorithm {
	case "round-robin":
		return newCircle(b, g)
	case "least-requests":
		return better{requests: true}
	case "random":
		return newAlias(b, g)
	case "consistent-hash":
		return newMaglev(b, g)
	}
	return better{}
}

// draw is one choice under way.
type draw struct {
	b      *Balancer
	g      *group
	q      Query
	random uint64
	anyway bool // health is not believed
}

// next returns a new uniform number.
func (d *draw) next() uint64 {
	d.random = mix(d.random)
	return d.random
}

// accepts reports whether the member at m is to be had.
func (d *draw) accepts(m int) bool {
	i := int(d.g.members[m])
	e := &d.b.ends[i]
	return !e.full() && !d.q.Not.Has(e.Load) && (d.anyway || e.Load.Available(d.q.Now))
}

// admits lets new endpoints have a share that grows: they refuse by a coin.
func (d *draw) admits(m int) bool {
	if d.b.c.SlowStart <= 0 {
		return true
	}
	f := d.b.fade(&d.b.ends[d.g.members[m]], d.q.Now)
	return f >= 1 || unit(d.next()) < f
}

// any returns a member that is to be had, from a place drawn at random, or None. Those that are available are found by the
// bitmap; the bitmap of the last census is not believed when health is not.
func (d *draw) any() int {
	n := len(d.g.members)
	from := int(d.next() % uint64(n))
	if d.anyway {
		for k := range n {
			if m := (from + k) % n; d.accepts(m) {
				return m
			}
		}
		return None
	}
	return d.g.after(from, d.accepts)
}

func (d *draw) endpoint(m int) int {
	if m == None {
		return None
	}
	return int(d.g.members[m])
}

// better takes the better of two members drawn at random ("the power of two choices", Mitzenmacher 2001), where good is few
// requests in flight, or a low product of them with the remembered latency and failures, for its weight.
type better struct{ requests bool }

func (a better) pick(d draw) int {
	n := uint64(len(d.g.members))
	x := d.uniform(0, n)
	if x == None || n == 1 {
		return d.endpoint(x)
	}
	if y := d.uniform(uint64(x)+1, n-1); y != None && a.cost(&d, y) < a.cost(&d, x) {
		x = y
	}
	return d.endpoint(x)
}

// uniform draws one that is to be had of the n members at and behind from, in a circle; if need be, of all.
func (d *draw) uniform(from, n uint64) int {
	for range maxDraws {
		m := int((from + d.next()%n) % uint64(len(d.g.members)))
		if d.accepts(m) && d.admits(m) {
			return m
		}
	}
	return d.any()
}

func (a better) cost(d *draw, m int) float64 {
	e := &d.b.ends[d.g.members[m]]
	waiting := e.Load.InFlight()
	if a.requests {
		return float64(waiting+1) / float64(e.Weight)
	}
	return e.Load.cost(d.q.Now, waiting) / float64(e.Weight)
}

// circle goes round a list in which each member stands as often as its weight, spread evenly: smooth weighted round robin.
// A member that is not to be had gives its turn to the next and costs the others nothing: the circle moves on for everybody,
// so no neighbour gets two turns. Each shard goes round by itself, from a place of its own.
type circle struct {
	turns []int32 // of members
	next  [totalShards]struct {
		n atomic.Uint64
		_ [56]byte
	}
}

// maxCircle bounds the circle when weights have no common divisor; shares are then right to one turn in as many.
const maxCircle = 1 << 16

// goldenRatio is the fraction whose multiples lie apart as evenly as any.
const goldenRatio = 0.6180339887498949

func newCircle(b *Balancer, g *group) *circle {
	var total, divisor int64
	for _, i := range g.members {
		w := b.ends[i].Weight
		total += w
		divisor = gcd(divisor, w)
	}
	h := make(turnHeap, len(g.members))
	length := min(total/divisor, max(maxCircle, int64(len(g.members))))
	for m, i := range g.members {
		// At least one turn: a small weight beside great ones still is a weight.
		every := max(float64(b.ends[i].Weight)/float64(total), 1/float64(length))
		// Where in its first round each begins is spread out, or all that are seldom due would be due together.
		phase := float64(m) * goldenRatio
		h[m] = turn{due: (phase - math.Floor(phase)) / every, every: 1 / every, member: int32(m)}
	}
	heap.Init(&h)
	c := &circle{turns: make([]int32, length)}
	for k := range c.turns {
		c.turns[k] = h[0].member
		h[0].due += h[0].every
		heap.Fix(&h, 0)
	}
	for s := range c.next {
		c.next[s].n.Store(uint64(s) * uint64(length) / totalShards)
	}
	return c
}

func (c *circle) pick(d draw) int {
	next, n := &c.next[d.q.Shard%totalShards].n, uint64(len(c.turns))
	for range maxDraws {
		if m := int(c.turns[(next.Add(1)-1)%n]); d.accepts(m) && d.admits(m) {
			return d.endpoint(m)
		}
	}
	return d.endpoint(d.any())
}

// turn is when a member is due in a circle: earliest deadline first.
type turn struct {
	due, every float64
	member     int32
}

type turnHeap []turn

func (h turnHeap) Len() int { return len(h) }
func (h turnHeap) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].member < h[j].member
}
func (h turnHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *turnHeap) Push(x any)   { *h = append(*h, x.(turn)) }
func (h *turnHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// alias draws by weight in constant time (Vose's alias method).
type alias struct {
	keep  []float64
	other []int32
}

func newAlias(b *Balancer, g *group) *alias {
	n := len(g.members)
	a := &alias{keep: make([]float64, n), other: make([]int32, n)}
	var small, large []int32
	for m, i := range g.members {
		a.keep[m] = float64(b.ends[i].Weight) * float64(n) / float64(g.weight)
		if a.keep[m] < 1 {
			small = append(small, int32(m))
		} else {
			large = append(large, int32(m))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.other[s] = l
		if a.keep[l] -= 1 - a.keep[s]; a.keep[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, m := range append(small, large...) { // what is left is 1, up to rounding
		a.keep[m] = 1
	}
	return a
}

func (a *alias) pick(d draw) int {
	for range maxDraws {
		m := int(d.next() % uint64(len(a.keep)))
		if unit(d.next()) >= a.keep[m] {
			m = int(a.other[m])
		}
		if d.accepts(m) && d.admits(m) {
			return d.endpoint(m)
		}
	}
	return d.endpoint(d.any())
}
