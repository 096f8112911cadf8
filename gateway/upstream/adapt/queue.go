package adapt

import "time"

const (
	// Levels are the priorities, 0 the highest.
	Levels = 4
	// maxFlows bounds the flows of a level: consumers beyond that share flows, whatever ids they come with.
	maxFlows = 256
	// flowWays is how many places a flow's id may have before it shares one.
	flowWays = 8
	// maxWeight bounds how many requests of one flow go in a row.
	maxWeight = 100
	// lowTurn is how many dispatches pass before a lower level gets one, so that it goes slowly but goes.
	lowTurn = 16
)

// waiter is a request in the queue.
type waiter struct {
	flow       *flow
	prev, next *waiter
	since      time.Duration
	ready      chan error // of one place; what became of it
	settled    bool       // it was taken out
}

// flow is the queue of one consumer, or of some that share it, in a level.
type flow struct {
	id         uint64
	level      *level
	head, tail *waiter
	length     int
	weight     int
	turns      int           // left before the next flow's
	emptied    time.Duration // when it was last seen empty
	next, prev *flow         // in the ring of those with a queue
}

// level is one priority.
type level struct {
	flows  [maxFlows]flow
	ring   *flow // whose turn it is
	active int
}

// queue is used under a lock.
type queue struct {
	levels [Levels]*level // made when first needed
	length int
	served uint64
}

// flow returns the flow of an id in a level.
func (q *queue) flow(id uint64, priority int) *flow {
	priority = min(max(priority, 0), Levels-1)
	if q.levels[priority] == nil {
		q.levels[priority] = new(level)
	}
	l := q.levels[priority]
	var free *flow
	for way := range uint64(flowWays) {
		f := &l.flows[(id*0x9e3779b97f4a7c15>>40+way)%maxFlows]
		switch {
		case f.length > 0 && f.id == id:
			return f
		case f.length == 0 && (free == nil || f.id == id):
			free = f
		}
	}
	if free == nil {
		free = &l.flows[id*0x9e3779b97f4a7c15>>40%maxFlows]
	}
	if free.length == 0 {
		free.id, free.level = id, l
	}
	return free
}

func (q *queue) push(w *waiter, f *flow, weight int, now time.Duration) {
	w.flow, w.since = f, now
	f.weight = min(max(weight, 1), maxWeight)
	if w.prev = f.tail; f.tail == nil {
		f.head = w
		f.emptied = now
		f.enter()
	} else {
		f.tail.next = w
	}
	f.tail = w
	f.length++
	q.length++
}

// remove takes a waiter out, wherever it stands.
func (q *queue) remove(w *waiter, now time.Duration) {
	f := w.flow
	if w.prev == nil {
		f.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		f.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.settled = nil, nil, true
	q.length--
	if f.length--; f.length == 0 {
		f.emptied = now
		f.leave()
	}
}

// enter puts the flow behind all others of its level.
func (f *flow) enter() {
	l := f.level
	l.active++
	f.turns = f.weight
	if l.ring == nil {
		l.ring, f.next, f.prev = f, f, f
		return
	}
	f.next, f.prev = l.ring, l.ring.prev
	f.prev.next, f.next.prev = f, f
}

func (f *flow) leave() {
	l := f.level
	l.active--
	if f.next == f {
		l.ring = nil
	} else {
		f.prev.next, f.next.prev = f.next, f.prev
		if l.ring == f {
			l.ring = f.next
		}
	}
	f.next, f.prev = nil, nil
}

// first returns who is next: of the highest level with a queue, now and then of a lower one; within it of the flow whose turn
// it is, the oldest.
func (q *queue) first() *waiter {
	skip := 0
	if q.served++; q.served%lowTurn == 0 {
		skip = 1 + int(q.served/lowTurn)%(Levels-1)
	}
	var last *level
	for _, l := range q.levels {
		if l == nil || l.ring == nil {
			continue
		}
		last = l
		if skip--; skip < 0 {
			break
		}
	}
	if last == nil {
		return nil
	}
	f := last.ring
	if f.turns <= 0 { // it had its turns: the next flow's begin
		last.ring = f.next
		f = last.ring
		f.turns = f.weight
	}
	return f.head
}

// victim returns whom a full queue loses for the sake of a newcomer: the youngest of the longest flow of the lowest level, or
// nil when the newcomer's own flow is the longest or its level is lower.
func (q *queue) victim(newcomer *flow) *waiter {
	for i := Levels - 1; i >= 0; i-- {
		l := q.levels[i]
		if l == newcomer.level && newcomer.length*l.active >= l.length() {
			return nil
		}
		if l == nil || l.ring == nil {
			continue
		}
		longest := l.ring
		for f := longest.next; f != l.ring; f = f.next {
			if f.length > longest.length {
				longest = f
			}
		}
		if longest == newcomer {
			return nil
		}
		return longest.tail
	}
	return nil
}

func (l *level) length() (sum int) {
	if l.ring == nil {
		return 0
	}
	sum = l.ring.length
	for f := l.ring.next; f != l.ring; f = f.next {
		sum += f.length
	}
	return sum
}
