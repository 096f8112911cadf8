package metric

import "sync/atomic"

// spreadAfter is how often a series is written in one place before it gets a place for each shard: ten thousands of
// routes that are hardly used must not cost a cache line for each shard and number.
const spreadAfter = 4096

// wordsPerLine is how many numbers share a cache line.
const wordsPerLine = 8

// Pack is a few numbers that are counted together, such as those of one route. While it is cold it is one array; once
// it is busy every shard has an array of its own, on cache lines of its own.
type Pack struct {
	n    int
	uses atomic.Uint32
	cold []atomic.Uint64
	hot  atomic.Pointer[[Shards][]atomic.Uint64]
}

// NewPack returns a pack of n numbers, all 0.
func NewPack(n int) *Pack { return &Pack{n: n, cold: make([]atomic.Uint64, n)} }

// At returns the numbers to add to for the shard (any number; it is taken modulo Shards). Ask for it once per exchange.
func (p *Pack) At(shard uint32) []atomic.Uint64 {
	if hot := p.hot.Load(); hot != nil {
		return hot[shard%Shards]
	}
	if p.uses.Add(1) > spreadAfter {
		p.spread()
	}
	return p.cold
}

func (p *Pack) spread() {
	var hot [Shards][]atomic.Uint64
	for i := range hot {
		// Whole lines: objects of such sizes start on a line, so neighbours never share one.
		lines := (p.n + wordsPerLine - 1) / wordsPerLine
		hot[i] = make([]atomic.Uint64, lines*wordsPerLine)[:p.n]
	}
	p.hot.CompareAndSwap(nil, &hot)
}

// Sum adds up every number over the shards, and appends them to sums.
func (p *Pack) Sum(sums []uint64) []uint64 {
	from := len(sums)
	sums = append(sums, make([]uint64, p.n)...)
	p.each(func(words []atomic.Uint64) {
		for i := range words {
			sums[from+i] += words[i].Load()
		}
	})
	return sums
}

func (p *Pack) each(f func(words []atomic.Uint64)) {
	f(p.cold)
	if hot := p.hot.Load(); hot != nil {
		for _, words := range hot {
			f(words)
		}
	}
}
