package balance

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// overprovision is how much more than its share of available weight a tier can carry: losing a few targets of many moves
	// no request to the next tier (Envoy's overprovisioning factor).
	overprovision = 1.4
	// censusEvery is how old the counts of available endpoints may be. One pick in that time counts all of them again.
	censusEvery = 100 * time.Millisecond
)

// tier is the endpoints of one priority. Requests go to the first tier as far as its available weight, with some to spare,
// carries them; what it cannot carry goes to the next. When all tiers together cannot carry everything, they share it in
// proportion, and in a tier with less available than Config.Panic health is not believed any more: what is left would be
// crushed, and a service whose targets all look bad is more likely to answer than nobody.
type tier struct {
	all   group
	local group // of the gateway's own zone; empty: nobody is preferred
	next  *tier
	share atomic.Uint64 // of all requests, in units of 2^-32, that go to this tier or one before it
}

// group is endpoints among which one algorithm chooses.
type group struct {
	members   []int32 // indexes into Balancer.ends, those with a weight
	weight    int64   // of all members
	algorithm algorithm
	free      []atomic.Uint64 // bitmap of the available members, as of the last census
	available atomic.Int64    // their weight
	counted   atomic.Int64    // when the last census was, plus 1; 0: never
}

func (b *Balancer) layTiers() {
	var numbers []int
	for i := range b.ends {
		if b.ends[i].Weight > 0 {
			numbers = append(numbers, b.ends[i].Tier)
		}
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	b.tiers = make([]tier, len(numbers))
	for n, number := range numbers {
		t := &b.tiers[n]
		for i := range b.ends {
			e := &b.ends[i]
			if e.Weight == 0 || e.Tier != number {
				continue
			}
			t.all.add(int32(i), e.Weight)
			if b.c.Zone != "" && e.Zone == b.c.Zone {
				t.local.add(int32(i), e.Weight)
			}
		}
		if len(t.local.members) == len(t.all.members) {
			t.local.members = nil
		}
		t.all.lay(b)
		t.local.lay(b)
		if n > 0 {
			b.tiers[n-1].next = t
		}
	}
}

func (g *group) add(i int32, weight int64) {
	g.members = append(g.members, i)
	g.weight += weight
}

func (g *group) lay(b *Balancer) {
	if len(g.members) > 0 {
		g.free = make([]atomic.Uint64, (len(g.members)+63)/64)
		g.algorithm = newAlgorithm(b, g)
	}
}

// census counts the available members again when the last count is old. One of those who notice does it; the others go on
// with what was.
func (g *group) census(b *Balancer, now time.Duration) {
	last := g.counted.Load()
	if last != 0 && int64(now)+1-last < int64(censusEvery) || !g.counted.CompareAndSwap(last, int64(now)+1) {
		return
	}
	var word uint64
	var sum int64
	for m, i := range g.members {
		if e := &b.ends[i]; e.Load.Available(now) {
			word |= 1 << (m % 64)
			sum += e.Weight
		}
		if m%64 == 63 || m == len(g.members)-1 {
			if w := &g.free[m/64]; w.Load() != word {
				w.Store(word)
			}
			word = 0
		}
	}
	g.available.Store(sum)
}

// chooseTier returns the tier for a coin, and whether its health is not to be believed.
func (b *Balancer) chooseTier(now time.Duration, coin uint64) (*tier, bool) {
	b.census(now)
	t := &b.tiers[0]
	for toss := coin >> 32; t.next != nil && toss >= t.share.Load(); {
		t = t.next
	}
	if available := t.all.available.Load(); available == 0 {
		return t, !b.c.Strict
	} else if float64(available) >= b.c.Panic*float64(t.all.weight) {
		return t, false
	}
	return t, b.crushed()
}

// crushed reports whether all tiers together cannot carry everything.
func (b *Balancer) crushed() bool {
	carry := 0.0
	for i := range b.tiers {
		carry += overprovision * float64(b.tiers[i].all.available.Load()) / float64(b.tiers[i].all.weight)
	}
	return len(b.tiers) == 1 || carry < 1
}

// census brings every group up to date and deals the requests to the tiers.
func (b *Balancer) census(now time.Duration) {
	carried := 0.0
	for i := range b.tiers {
		t := &b.tiers[i]
		t.all.census(b, now)
		if len(t.local.members) > 0 {
			t.local.census(b, now)
		}
		carried += min(1, overprovision*float64(t.all.available.Load())/float64(t.all.weight))
	}
	if len(b.tiers) == 1 {
		return
	}
	scale, sum := 1.0, 0.0
	if carried < 1 && carried > 0 {
		scale = 1 / carried
	}
	for i := range b.tiers {
		t := &b.tiers[i]
		sum += scale * min(1, overprovision*float64(t.all.available.Load())/float64(t.all.weight))
		share := uint64(min(1, sum) * (1 << 32))
		if carried == 0 {
			share = 1 << 32
		}
		if t.share.Load() != share {
			t.share.Store(share)
		}
	}
}

// choose returns the own zone's group or all: of the requests as many stay as the zone's available weight is of the floor.
func (t *tier) choose(b *Balancer, coin uint64, panicking bool) *group {
	g := &t.local
	if len(g.members) == 0 || panicking {
		return &t.all
	}
	here := float64(g.available.Load()) / float64(g.weight)
	if here > 0 && (here >= b.c.LocalFloor || unit(coin) < here/b.c.LocalFloor) {
		return g
	}
	return &t.all
}

// after returns the next member in the bitmap at or behind m, in a circle, that d accepts, or None. accept may refuse those
// that are full.
func (g *group) after(m int, accept func(m int) bool) int {
	words := len(g.free)
	first := m / 64
	for k := range words + 1 {
		w := (first + k) % words
		word := g.free[w].Load()
		switch {
		case k == 0:
			word &= ^uint64(0) << (m % 64)
		case k == words:
			word &= 1<<(m%64) - 1
		}
		for ; word != 0; word &= word - 1 {
			if n := w*64 + bits.TrailingZeros64(word); accept(n) {
				return n
			}
		}
	}
	return None
}
