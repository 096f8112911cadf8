package concurrency

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// maxWaiting bounds the waiters of one line. Each costs a goroutine, and callers can invent keys, so that the length of
// each key's queue alone bounds nothing.
const maxWaiting = 1 << 14

// line is who waits: a queue for each key in order of arrival, and the queues whose head may try, in turn.
type line struct {
	waiting atomic.Int32 // waiters, and those who are about to be
	mu      sync.Mutex
	queues  map[uint64]*queue
	turn    list.List // of *queue: those that are ready
}

// queue is the waiters of one key.
type queue struct {
	key     uint64
	waiters list.List     // of *waiter
	ready   bool          // in turn; not while the key has all the places that it may have
	at      *list.Element // in turn
}

// waiter is one exchange that waits.
type waiter struct {
	bounds  *bounds
	queue   *queue
	at      *list.Element
	granted chan struct{} // closed when he has a place
}

// add puts a waiter at the end of his queue, which is new if it is empty.
func (l *line) add(q *queue, b *bounds) *waiter {
	if q.waiters.Len() == 0 {
		if l.queues == nil {
			l.queues = map[uint64]*queue{}
		}
		l.queues[q.key] = q
		if q.ready {
			q.at = l.turn.PushBack(q)
		}
	}
	w := &waiter{bounds: b, queue: q, granted: make(chan struct{})}
	w.at = q.waiters.PushBack(w)
	return w
}

// remove takes a waiter out, and his queue when he was the last.
func (l *line) remove(w *waiter) {
	l.waiting.Add(-1)
	q := w.queue
	q.waiters.Remove(w.at)
	if q.waiters.Len() > 0 {
		return
	}
	delete(l.queues, q.key)
	l.park(q)
}

// park takes a queue out of the turn until a place of its key is given back.
func (l *line) park(q *queue) {
	if q.ready {
		l.turn.Remove(q.at)
		q.ready, q.at = false, nil
	}
}

// wake lets a key's queue try again: a place of its key was given back.
func (l *line) wake(key uint64) {
	if q := l.queues[key]; q != nil && !q.ready {
		q.ready, q.at = true, l.turn.PushBack(q)
	}
}

// admit lets in who may, one of each key in turn.
func (l *line) admit(p *places) {
	for front := l.turn.Front(); front != nil; front = l.turn.Front() {
		q := front.Value.(*queue)
		w := q.waiters.Front().Value.(*waiter)
		switch p.try(q.key, w.bounds) {
		case totalFull:
			return
		case keyFull:
			l.park(q)
		case entered:
			l.turn.MoveToBack(front)
			l.remove(w)
			close(w.granted)
		}
	}
}
