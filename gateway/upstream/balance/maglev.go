package balance

import (
	"hash/fnv"
	"math"
	"slices"
	"strings"
)

// maglev gives every key a place (Eisenbud et al., "Maglev", NSDI 2016, section 3.4, with weights): when an endpoint leaves,
// its keys spread over all others and hardly any other key moves. An endpoint has at most Config.Bound times the average load
// ("Consistent hashing with bounded loads", Mirrokni et al. 2018): keys that are too much for their place go to their next
// one, which is the same each time. The average counts the endpoints that are there, not only those that are available, times
// their weights; so the bound errs towards spreading when some are out. Below leastBound nothing is spread.
type maglev struct {
	places []int32 // members
	bound  float64
	total  *Total
	weight int64
}

// tableSizes are primes. With a hundred places for each endpoint shares are even to one percent; the greatest of them is 4 %
// off for 5,000 endpoints, which the bounded load evens out.
func tableSizes() []int { return []int{1021, 8191, 65537, 131071} }

func newMaglev(b *Balancer, g *group) *maglev {
	size := 0
	for _, size = range tableSizes() {
		if size >= 100*len(g.members) {
			break
		}
	}
	a := &maglev{bound: b.c.Bound, total: b.c.Total, weight: g.weight, places: make([]int32, size)}
	for p := range a.places {
		a.places[p] = None
	}
	type walk struct {
		at, skip uint64
		turns    float64
	}
	walks, heaviest := make([]walk, len(g.members)), int64(0)
	for m, i := range g.members {
		h := fnv.New64a()
		_, _ = h.Write([]byte(b.ends[i].Key)) // never fails
		seed := mix(h.Sum64())
		walks[m] = walk{at: seed % uint64(size), skip: mix(seed)%uint64(size-1) + 1}
		heaviest = max(heaviest, b.ends[i].Weight)
	}
	order := make([]int, len(walks)) // by name: keys do not move when the document lists the same endpoints in another order
	for m := range order {
		order[m] = m
	}
	slices.SortFunc(order, func(x, y int) int { return strings.Compare(b.ends[g.members[x]].Key, b.ends[g.members[y]].Key) })
	for left := size; left > 0; {
		for _, m := range order {
			w := &walks[m]
			if w.turns += float64(b.ends[g.members[m]].Weight) / float64(heaviest); w.turns < 1 || left == 0 {
				continue
			}
			w.turns--
			for a.places[w.at] != None {
				w.at = (w.at + w.skip) % uint64(size)
			}
			a.places[w.at] = int32(m)
			left--
		}
	}
	return a
}

// maxWalk bounds how many places of a key are looked at before all members are: at most 1 / Config.Bound of them are at their
// bound, so with 1.25 one walk of 1,200 finds nobody.
const maxWalk = 32

func (a *maglev) pick(d draw) int {
	size := uint64(len(a.places))
	h := mix(d.q.Hash)
	at, step, coin := h%size, mix(h)%(size-1)+1, unit(mix(h^d.q.Hash))
	average := math.Inf(1)
	if a.total != nil {
		average = float64(a.total.Value()+1) / float64(a.weight)
	}
	for range maxWalk {
		m := int(a.places[at])
		at = (at + step) % size
		// A new endpoint takes keys in the order of their coins, so that each moves to it once.
		if d.accepts(m) && a.below(&d, m, average) && coin < d.b.fade(&d.b.ends[d.g.members[m]], d.q.Now) {
			return d.endpoint(m)
		}
	}
	n := len(d.g.members)
	for k := range n {
		if m := (int(at) + k) % n; d.accepts(m) && a.below(&d, m, average) {
			return d.endpoint(m)
		}
	}
	return d.endpoint(d.any())
}

// leastBound is how many requests an endpoint takes for the sake of affinity however small the average is. The bound alone,
// which is the ceiling of a share of all requests, is 1 while fewer are under way than there are endpoints, so any two of one
// key at one time would be torn apart: affinity would be worst where there is least to gain. (HAProxy and Envoy leave it at
// that.) It keeps a key from crushing its endpoint, which a few requests do not: with 4 none has more than three others
// beside it for the sake of affinity, and from an average of 4 / Config.Bound on the bound is that of the paper. Where even two
// are too many there is requests_per_target.
const leastBound = 4

// below reports whether a member takes one more request under the bound.
func (a *maglev) below(d *draw, m int, average float64) bool {
	e := &d.b.ends[d.g.members[m]]
	n := e.Load.InFlight()
	return n < leastBound || float64(n) < math.Ceil(a.bound*average*float64(e.Weight))
}
