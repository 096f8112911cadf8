package event

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// queueShards is how many rings a queue is spread over; a power of two.
const queueShards = 8

// pollEvery is the longest that an entry waits for its reader when nothing else wakes it: waking a reader for every
// entry would cost the writer more than the entry.
const pollEvery = 200 * time.Millisecond

// Queue is a bounded queue of many writers and one reader. Writers never wait and never allocate: each shard is a ring
// with a lock of its own, held for one copy, and what does not fit is dropped and counted. Entries of one shard stay in
// order; those of different shards come in any order.
type Queue[T any] struct {
	shards  [queueShards]ring[T]
	wake    chan struct{}
	dropped atomic.Uint64
}

type ring[T any] struct {
	mu          sync.Mutex
	slots       []T
	first, used int
	_           [64]byte // a line between this shard's words and the next one's
}

// NewQueue returns a queue for capacity entries, rounded up to a multiple of eight. Their memory is taken at once.
func NewQueue[T any](capacity int) *Queue[T] {
	q := &Queue[T]{}
	q.init(capacity)
	return q
}

func (q *Queue[T]) init(capacity int) {
	q.wake = make(chan struct{}, 1)
	for i := range q.shards {
		q.shards[i].slots = make([]T, max(1, (capacity+queueShards-1)/queueShards))
	}
}

// Put copies v into the shard's ring, or drops it and returns false when the ring is full.
func (q *Queue[T]) Put(shard uint32, v *T) bool {
	r := &q.shards[shard%queueShards]
	r.mu.Lock()
	if r.used == len(r.slots) {
		r.mu.Unlock()
		q.dropped.Add(1)
		return false
	}
	at := r.first + r.used
	if at >= len(r.slots) {
		at -= len(r.slots)
	}
	r.slots[at] = *v
	r.used++
	half := r.used == len(r.slots)/2+1
	r.mu.Unlock()
	if half {
		select {
		case q.wake <- struct{}{}:
		default: // the reader is awake already
		}
	}
	return true
}

// Drain moves what is there into batch, up to its length, and returns how many entries that were. It never waits.
func (q *Queue[T]) Drain(batch []T) int {
	n := 0
	for i := range q.shards {
		n += q.shards[i].drain(batch[n:])
	}
	return n
}

func (r *ring[T]) drain(batch []T) (n int) {
	var zero T
	r.mu.Lock()
	defer r.mu.Unlock()
	for n < len(batch) && r.used > 0 {
		batch[n], r.slots[r.first] = r.slots[r.first], zero // a slot must not keep strings alive
		n++
		r.used--
		if r.first++; r.first == len(r.slots) {
			r.first = 0
		}
	}
	return n
}

// Next waits until there is something, moves up to len(batch) entries into batch and returns how many. An entry waits
// for a fifth of a second at most, or until its ring is half full. The error is that of the context.
func (q *Queue[T]) Next(ctx context.Context, batch []T) (int, error) {
	timer := time.NewTimer(pollEvery)
	defer timer.Stop()
	for {
		if n := q.Drain(batch); n > 0 || len(batch) == 0 {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-q.wake:
		case <-timer.C:
			timer.Reset(pollEvery)
		}
	}
}

// Dropped returns how many entries found their ring full.
func (q *Queue[T]) Dropped() uint64 { return q.dropped.Load() }
