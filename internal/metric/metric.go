// Package metric counts without a lock: every busy series is spread over shards, so that cores do not write to the same
// cache line. Series are asked for while a document is compiled, never during a request.
package metric

import (
	"math"
	"sync/atomic"
)

// Shards is how many places a busy series is spread over; a power of two. Connections are dealt to them in turn.
const Shards = 8

// cell is a counter with a cache line of its own.
type cell struct {
	n atomic.Uint64
	_ [56]byte
}

// Counter only grows. The zero value is ready; it takes 16 bytes until it is busy.
type Counter struct {
	cold atomic.Uint64
	hot  atomic.Pointer[[Shards]cell]
}

// Add adds n at the shard (any number; it is taken modulo Shards).
func (c *Counter) Add(shard uint32, n uint64) {
	if hot := c.hot.Load(); hot != nil {
		hot[shard%Shards].n.Add(n)
		return
	}
	if c.cold.Add(n) > spreadAfter {
		c.hot.CompareAndSwap(nil, new([Shards]cell))
	}
}

// Inc adds one at the shard.
func (c *Counter) Inc(shard uint32) { c.Add(shard, 1) }

// Value returns the sum over the shards.
func (c *Counter) Value() uint64 {
	sum := c.cold.Load()
	if hot := c.hot.Load(); hot != nil {
		for i := range hot {
			sum += hot[i].n.Load()
		}
	}
	return sum
}

// Gauge goes up and down.
type Gauge struct{ bits atomic.Int64 }

// Add adds n, which may be negative.
func (g *Gauge) Add(n int64) { g.bits.Add(n) }

// Set makes the gauge n.
func (g *Gauge) Set(n int64) { g.bits.Store(n) }

// Value returns what the gauge shows.
func (g *Gauge) Value() int64 { return g.bits.Load() }

// Float is a gauge of a fraction.
type Float struct{ bits atomic.Uint64 }

// Set makes the gauge v.
func (f *Float) Set(v float64) { f.bits.Store(math.Float64bits(v)) }

// Value returns what the gauge shows.
func (f *Float) Value() float64 { return math.Float64frombits(f.bits.Load()) }
