package health

import (
	"sync/atomic"
	"time"
)

const (
	// span is over how long the share of failures is taken.
	span = 10 * time.Second
	// leastRequests is how many requests a share must be of: one failure of two is not half of anything.
	leastRequests = 20
	// slots is how many parts the span has; it slides by one of them.
	slots = 10
	// shards is how many places counts are spread over that every request of a target in trouble writes.
	shards = 8
	// kept is how many failures are kept to say what they were.
	kept = 32
)

// slot is one part of the span: which one it counts for, and what.
type slot struct{ when, good, bad atomic.Int64 }

// trouble is what is counted about a target that has failed lately. One that is well has none.
type trouble struct {
	last  atomic.Int64 // when it failed last
	next  atomic.Uint32
	kinds [kept]atomic.Uint32
	cells [shards]struct {
		slots [slots]slot
		_     [64]byte
	}
}

func slotOf(now time.Duration) int64 { return int64(now/(span/slots)) + 1 }

// at returns the slot of a time. Events that come while it is begun anew may be lost: one or two of a second.
func (t *trouble) at(shard uint32, now time.Duration) *slot {
	n := slotOf(now)
	s := &t.cells[shard%shards].slots[n%slots]
	if was := s.when.Load(); was < n && s.when.CompareAndSwap(was, n) {
		s.good.Store(0)
		s.bad.Store(0)
	}
	return s
}

func (t *trouble) failed(shard uint32, now time.Duration, f Failure) {
	t.last.Store(int64(now))
	t.kinds[(t.next.Add(1)-1)%kept].Store(uint32(f))
	t.at(shard, now).bad.Add(1)
}

// sum returns the counts of the span that ends now.
func (t *trouble) sum(now time.Duration) (good, bad int64) {
	oldest := slotOf(now) - slots
	for c := range t.cells {
		for i := range t.cells[c].slots {
			if s := &t.cells[c].slots[i]; s.when.Load() > oldest {
				good += s.good.Load()
				bad += s.bad.Load()
			}
		}
	}
	return good, bad
}

// latest returns what the last n failures were, as far as they are kept.
func (t *trouble) latest(n int64) []Failure {
	next := int64(t.next.Load())
	n = min(n, next, kept)
	list := make([]Failure, n)
	for i := range n {
		list[i] = Failure(t.kinds[(next-n+i)%kept].Load())
	}
	return list
}
