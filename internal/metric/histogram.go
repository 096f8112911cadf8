package metric

import (
	"math"
	"sync/atomic"
)

// Histogram counts observations in buckets.
type Histogram struct {
	bounds []float64
	pack   *Pack // one number for each bound, one for everything above, and the bits of the sum of what was observed
}

// NewHistogram returns a histogram with the given upper bounds, in ascending order.
func NewHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, pack: NewPack(len(bounds) + 2)}
}

// Observe counts v at the shard.
func (h *Histogram) Observe(shard uint32, v float64) {
	words := h.pack.At(shard)
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	words[i].Add(1)
	addFloat(&words[len(words)-1], v)
}

func addFloat(word *atomic.Uint64, v float64) {
	for {
		old := word.Load()
		if word.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Bounds returns the upper bounds.
func (h *Histogram) Bounds() []float64 { return h.bounds }

// Snapshot returns the cumulative count at each bound and above the last, and the sum of what was observed.
func (h *Histogram) Snapshot() (cumulative []uint64, sum float64) {
	last := len(h.bounds) + 1
	cumulative = make([]uint64, last)
	h.pack.each(func(words []atomic.Uint64) {
		for i := range cumulative {
			cumulative[i] += words[i].Load()
		}
		sum += math.Float64frombits(words[last].Load())
	})
	Accumulate(cumulative)
	return cumulative, sum
}

// Accumulate turns the counts of single buckets into cumulative ones.
func Accumulate(counts []uint64) {
	for i := 1; i < len(counts); i++ {
		counts[i] += counts[i-1]
	}
}
