package fault

import (
	"math"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
)

// chance decides which exchanges one kind of fault hits.
type chance struct {
	below    uint64 // of 2^53 numbers; 0: none is hit
	salt     uint64 // of this fault, so that of one key each kind of fault is another toss
	injected *metric.Counter
}

// newChance is the chance of a fault that the document has.
func newChance(e policy.Env, name string, percent float64) chance {
	labels := append(e.Labels[:len(e.Labels):len(e.Labels)], metric.Label{Name: "fault", Value: name})
	return chance{
		below: uint64(math.Ceil(percent / 100 * (1 << 53))), salt: hash(hash(offset, e.Instance), name),
		injected: e.Metrics.Counter("headgate_faults_injected_total", "Exchanges that the policy fault has hit, by kind of fault.", labels...),
	}
}

// hits reports whether a number that is spread evenly over 64 bits is among those that are hit.
func (c *chance) hits(n uint64) bool { return n>>11 < c.below }

// toss hands out one even number for each kind of fault.
type toss struct {
	random func() uint64
	key    uint64
	keyed  bool
}

func (f *faults) toss(x *exchange.Exchange) toss {
	t := toss{random: f.random}
	if f.key != nil {
		if key := f.key(x); key != "" {
			t.key, t.keyed = hash(offset, key), true
		}
	}
	return t
}

// hits reports whether the exchange is hit by one kind of fault.
func (t *toss) hits(c *chance) bool {
	switch {
	case c.below == 0:
		return false
	case t.keyed:
		return c.hits(mix(t.key ^ c.salt))
	}
	return c.hits(t.random())
}

// FNV-1a, and the end of MurmurHash3, which spreads it over all bits. What somebody sends as a key decides about his own
// requests alone, so there is no secret in it: nodes agree, and a restart changes nothing.
const (
	offset uint64 = 14695981039346656037
	prime  uint64 = 1099511628211
)

func hash(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return h
}

func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
