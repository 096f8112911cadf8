// Package balance chooses among the endpoints of an upstream. It does no I/O, reads no clock and starts nothing: time,
// randomness and the key of a request are handed in, so that every choice can be repeated in a test.
//
// A Balancer is made once for a set of endpoints and never changes; what is learned about an endpoint lives in its Load,
// which one set hands to the next. A pick allocates nothing and takes no lock. It draws by an algorithm in constant time,
// refuses what is not available or full, and draws again; after maxDraws it looks for the next free one in a bitmap, which is
// 79 words for 5,000 endpoints.
//
// Before the algorithm come two decisions of which every share is gradual, so that losing one target never moves all of the
// load at once: the tier (see tiers.go) and, within it, the gateway's own zone or all zones.
package balance

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Endpoint is one target as one set of them sees it.
type Endpoint struct {
	Key         string // stable name, by which consistent hashing places it: the address
	Weight      int64  // share beside the others; 0 takes no new requests
	Zone        string // where it is; "" unknown
	Tier        int    // 0 is asked first, greater ones as those before fail
	MaxRequests int64  // at one time; 0: no limit
	Load        *Load  // outlives the set
}

// Config says how to choose. The zero value is least latency, without tiers' or zones' refinements.
type Config struct {
	Algorithm  string        // one of Algorithms; "" is the first
	Zone       string        // the gateway's own; "" prefers none
	LocalFloor float64       // share of the own zone's weight that must be available for all requests to stay in it, 0..1
	Panic      float64       // below this share of available weight a tier's health is not believed, 0..1
	Strict     bool          // health is believed even if nobody is left who is well: then nobody is asked
	SlowStart  time.Duration // how long an endpoint that is new, or back, takes to its full share; 0: at once
	Bound      float64       // most load of an endpoint over the average with consistent hashing, such as 1.25; 0: that
	Total      *Total        // of the endpoints' Loads; with hashing only, nil: no bound
}

// Algorithms are the names that Config takes, the default first.
func Algorithms() []string {
	return []string{"least-latency", "round-robin", "least-requests", "random", "consistent-hash"}
}

// Query is what one choice depends on.
type Query struct {
	Now    time.Duration // on a clock that only moves forward; coarse is enough
	Random uint64        // uniform
	Hash   uint64        // of the key, for consistent hashing
	Shard  uint32        // of the exchange
	Not    *Tried        // endpoints that are not chosen; nil: none
}

// Tried is the endpoints that one request was sent to in vain. A nil Tried holds none, so that only requests that fail have one.
type Tried struct {
	list [MaxTried]*Load
	n    int
}

// Add adds an endpoint, by what is known about it. Beyond MaxTried it does nothing.
func (t *Tried) Add(l *Load) {
	if t.n < len(t.list) && !t.Has(l) {
		t.list[t.n] = l
		t.n++
	}
}

// Has reports whether an endpoint was added.
func (t *Tried) Has(l *Load) bool { return t != nil && slices.Contains(t.list[:t.n], l) }

// None is no endpoint.
const None = -1

const (
	// maxDraws bounds how often an algorithm is asked again when it names an endpoint that is not to be had.
	maxDraws = 16
	// defaultBound is how much more than the average an endpoint gets for the sake of affinity.
	defaultBound = 1.25
	// MaxTried bounds the endpoints that one request may be kept from; it is the greatest number of attempts at one.
	MaxTried = 10
	// MaxEndpoints bounds a set: a discovery source that answers with more is broken.
	MaxEndpoints = 1 << 17
)

// Balancer chooses among one set of endpoints. It is safe for concurrent use.
type Balancer struct {
	ends  []Endpoint
	tiers []tier
	c     Config
}

// New returns a balancer over a copy of ends. Picks are indexes into ends.
func New(ends []Endpoint, c Config) (*Balancer, error) {
	if c.Algorithm == "" {
		c.Algorithm = Algorithms()[0]
	}
	if !slices.Contains(Algorithms(), c.Algorithm) {
		return nil, fmt.Errorf("balance %q is not known; it is one of %s", c.Algorithm, strings.Join(Algorithms(), ", "))
	}
	if len(ends) > MaxEndpoints {
		return nil, fmt.Errorf("%d endpoints are too many for one upstream; at most %d", len(ends), MaxEndpoints)
	}
	if c.Bound == 0 {
		c.Bound = defaultBound
	}
	c.Bound = max(c.Bound, 1)
	b := &Balancer{ends: slices.Clone(ends), c: c}
	for i := range b.ends {
		b.ends[i].Weight = max(b.ends[i].Weight, 0)
		if b.ends[i].Load == nil {
			b.ends[i].Load = NewLoad(nil)
		}
	}
	b.layTiers()
	return b, nil
}

// Pick returns the index of the endpoint to ask, or None. full says that there would be one if it were not at its maximum.
func (b *Balancer) Pick(q *Query) (chosen int, full bool) {
	if len(b.tiers) == 0 {
		return None, false
	}
	r := mix(q.Random) // the tier's coin; the algorithm uses other bits
	t, panicking := b.chooseTier(q.Now, r)
	for range b.tiers {
		g := t.choose(b, mix(r), panicking)
		if chosen = b.pickFrom(g, q, panicking); chosen == None && g != &t.all {
			chosen = b.pickFrom(&t.all, q, panicking)
		}
		if chosen != None {
			return chosen, false
		}
		if t = t.next; t == nil { // full, or gone since the last census: whoever comes next, in a circle
			t = &b.tiers[0]
		}
	}
	return b.lastResort(q)
}

// pickFrom asks the algorithm until it names an endpoint that is to be had.
func (b *Balancer) pickFrom(g *group, q *Query, panicking bool) int {
	if len(g.members) == 0 {
		return None
	}
	return g.algorithm.pick(draw{b: b, g: g, q: *q, random: q.Random, anyway: panicking})
}

// lastResort is for when nobody was to be had: those that are available are full, or tried already; whoever has a weight and
// room may be asked then unless health is believed in any case, since one that looks bad is more likely to answer than nobody.
func (b *Balancer) lastResort(q *Query) (chosen int, full bool) {
	bad, good := None, false // good: somebody available is full
	n := uint64(len(b.ends))
	for k := range n {
		i := int((q.Random%n + k) % n)
		e := &b.ends[i]
		available := e.Load.Available(q.Now)
		switch {
		case e.Weight == 0 || q.Not.Has(e.Load):
		case e.full():
			full, good = true, good || available
		case available:
			return i, false
		default:
			bad = i
		}
	}
	if bad != None && !good && !b.c.Strict {
		return bad, false
	}
	return None, full
}

func (e *Endpoint) full() bool { return e.MaxRequests > 0 && e.Load.InFlight() >= e.MaxRequests }

// leastFade is the share that a new endpoint starts with: enough to warm up by, little enough not to be felt.
const leastFade = 0.1

// Fade is the share of its weight that the i-th endpoint gets at a time: less than 1 while it starts slowly.
func (b *Balancer) Fade(i int, now time.Duration) float64 { return b.fade(&b.ends[i], now) }

// fade is the share of its weight that an endpoint gets at a time, leastFade to 1.
func (b *Balancer) fade(e *Endpoint, now time.Duration) float64 {
	age := now - e.Load.since(now)
	if b.c.SlowStart <= 0 || age >= b.c.SlowStart {
		return 1
	}
	return max(leastFade, float64(age)/float64(b.c.SlowStart))
}

// mix turns one uniform number into another that shares no pattern with it (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit maps to [0, 1).
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }
