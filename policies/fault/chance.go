package fault

import (
	"math"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
	"headgate/internal/spread"
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
		below: uint64(math.Ceil(percent / 100 * (1 << 53))), salt: spread.Text(spread.Text(spread.Start, e.Instance), name),
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
			t.key, t.keyed = spread.Text(spread.Start, key), true
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
		return c.hits(spread.Mix(t.key ^ c.salt))
	}
	return c.hits(t.random())
}
