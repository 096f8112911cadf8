package retry

import (
	"sync/atomic"
	"time"
)

const (
	// shards is how many places that every request writes are spread over.
	shards = 8
	// slots is how many parts a sliding window has.
	slots = 10
)

// slot is one part of a window: which one it counts for, and what.
type slot struct {
	when atomic.Int64
	n    [2]atomic.Int64
}

// window counts two kinds of event over the last while. It slides by a tenth of its span. Events that come while a slot is
// begun anew may be lost: one or two of a slot.
type window struct {
	span  time.Duration
	cells [shards]struct {
		slots [slots]slot
		_     [64]byte
	}
}

func (w *window) slot(now time.Duration) int64 { return int64(now/(w.span/slots)) + 1 }

func (w *window) add(shard uint32, now time.Duration, kind int, n int64) {
	at := w.slot(now)
	s := &w.cells[shard%shards].slots[at%slots]
	if was := s.when.Load(); was != at && was < at && s.when.CompareAndSwap(was, at) {
		s.n[0].Store(0)
		s.n[1].Store(0)
	}
	s.n[kind].Add(n)
}

// sum returns both counts of the window that ends now.
func (w *window) sum(now time.Duration) (a, b int64) {
	at := w.slot(now)
	for c := range w.cells {
		for i := range w.cells[c].slots {
			if s := &w.cells[c].slots[i]; s.when.Load() > at-slots {
				a += s.n[0].Load()
				b += s.n[1].Load()
			}
		}
	}
	return a, b
}

func (w *window) reset() {
	for c := range w.cells {
		for i := range w.cells[c].slots {
			w.cells[c].slots[i].when.Store(0)
			w.cells[c].slots[i].n[0].Store(0)
			w.cells[c].slots[i].n[1].Store(0)
		}
	}
}
