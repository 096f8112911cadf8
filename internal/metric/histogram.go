package metric

import (
	"math"
	"sync/atomic"
)

// Histogram counts observations in buckets, spread over shards.
type Histogram struct {
	bounds []float64
	shards [Shards]histogramShard
}

type histogramShard struct {
	counts []atomic.Uint64 // one for each bound, and the last for everything above
	sum    atomic.Uint64   // bits of a float64
	_      [32]byte
}

// NewHistogram returns a histogram with the given upper bounds, in ascending order.
func NewHistogram(bounds []float64) *Histogram {
	h := &Histogram{bounds: bounds}
	for i := range h.shards {
		// A line of eight counters at each end keeps neighbours' shards off it.
		h.shards[i].counts = make([]atomic.Uint64, len(bounds)+9)[:len(bounds)+1]
	}
	return h
}

// Observe counts v at the shard.
func (h *Histogram) Observe(shard uint32, v float64) {
	s := &h.shards[shard%Shards]
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	s.counts[i].Add(1)
	for {
		old := s.sum.Load()
		if s.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Bounds returns the upper bounds.
func (h *Histogram) Bounds() []float64 { return h.bounds }

// Snapshot returns the cumulative count at each bound and above the last, and the sum of what was observed.
func (h *Histogram) Snapshot() (cumulative []uint64, sum float64) {
	cumulative = make([]uint64, len(h.bounds)+1)
	for i := range h.shards {
		s := &h.shards[i]
		for j := range s.counts {
			cumulative[j] += s.counts[j].Load()
		}
		sum += math.Float64frombits(s.sum.Load())
	}
	for j := 1; j < len(cumulative); j++ {
		cumulative[j] += cumulative[j-1]
	}
	return cumulative, sum
}
