package concurrency

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// shards is over how many locks the keys are spread; a power of two.
const shards = 64

// bounds are one policy's limits. They come with each call and with each waiter, so that places survive a reload which
// changes them.
type bounds struct {
	limit, total int32 // 0: none
	queue        int   // waiters of one key
}

// places counts what runs, by key and together. The common case takes the lock of one shard for a few nanoseconds;
// queues are looked at only while somebody waits.
type places struct {
	keySeed, addressSeed maphash.Seed

	running atomic.Int32 // those that count in a total
	shards  [shards]shard
	lines   [shards]line // who waits for a place of his key alone
	common  line         // who waits where there is a total: the order among keys matters
}

type shard struct {
	mu      sync.Mutex
	running map[uint64]int32 // by key; as many entries as keys that run, never more than exchanges
	_       [48]byte
}

// outcome of trying to enter.
type outcome uint8

const (
	entered outcome = iota
	keyFull
	totalFull
)

func newPlaces() *places {
	return &places{keySeed: maphash.MakeSeed(), addressSeed: maphash.MakeSeed()}
}

func (p *places) hashKey(key string) uint64      { return maphash.String(p.keySeed, key) }
func (p *places) hashAddress(addr string) uint64 { return maphash.String(p.addressSeed, addr) }

// enter takes a place unless there is none or somebody waits for one.
func (p *places) enter(key uint64, b *bounds) bool {
	return p.lineOf(key, b).waiting.Load() == 0 && p.try(key, b) == entered
}

// try takes a place if there is one. Both counts change under the shard's lock, so nobody ever sees a place taken that is
// given back because the other count was full.
func (p *places) try(key uint64, b *bounds) outcome {
	s := &p.shards[key%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.running[key]
	if b.limit > 0 && n >= b.limit {
		return keyFull
	}
	for b.total > 0 {
		all := p.running.Load()
		if all >= b.total {
			return totalFull
		}
		if p.running.CompareAndSwap(all, all+1) {
			break
		}
	}
	if s.running == nil {
		s.running = map[uint64]int32{}
	}
	s.running[key] = n + 1
	return entered
}

// exit gives a place back and lets in who waits for it. The count goes down before waiting is read, and whoever joins a
// line raises waiting before he tries: one of the two sees the other.
func (p *places) exit(held place) {
	s := &p.shards[held.key%shards]
	s.mu.Lock()
	if n := s.running[held.key]; n > 1 {
		s.running[held.key] = n - 1
	} else {
		delete(s.running, held.key)
	}
	if held.counted {
		p.running.Add(-1)
	}
	s.mu.Unlock()
	for _, l := range [...]*line{&p.lines[held.key%shards], &p.common} {
		if l.waiting.Load() > 0 {
			l.mu.Lock()
			l.wake(held.key)
			l.admit(p)
			l.mu.Unlock()
		}
	}
}

func (p *places) lineOf(key uint64, b *bounds) *line {
	if b.total > 0 {
		return &p.common
	}
	return &p.lines[key%shards]
}

// join takes a place (nil, true), or one in the queue (waiter, true); with false, the queue is full.
func (p *places) join(key uint64, b *bounds) (*waiter, bool) {
	l := p.lineOf(key, b)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting.Add(1) > 1 {
		l.admit(p)
	}
	q := l.queues[key]
	if q == nil {
		switch p.try(key, b) {
		case entered:
			l.waiting.Add(-1)
			return nil, true
		case keyFull:
			q = &queue{key: key}
		case totalFull:
			q = &queue{key: key, ready: true}
		}
	}
	if q.waiters.Len() >= b.queue || l.waiting.Load() > maxWaiting {
		l.waiting.Add(-1)
		return nil, false
	}
	return l.add(q, b), true
}

// leave takes a waiter out of his queue. It returns true when he was let in before that: then he holds a place.
func (p *places) leave(w *waiter) (in bool) {
	l := p.lineOf(w.queue.key, w.bounds)
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.granted:
		return true
	default:
	}
	l.remove(w)
	// He may have been the one at the head whose own, narrower bounds kept the others of his key waiting.
	l.wake(w.queue.key)
	l.admit(p)
	return false
}
