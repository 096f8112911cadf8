package sock

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// sweepInterval is how often all connections are looked at when nothing is due earlier. Deadlines longer than
	// coarseFrom may pass by as much; shorter ones wake the sweeper in time.
	sweepInterval = time.Second
	coarseFrom    = 10 * time.Second
	// sweepFloor is the least time between two sweeps, so that many short deadlines cannot keep it busy.
	sweepFloor = 5 * time.Millisecond
)

// Sweeper watches the deadlines of many connections and notices peers that have gone.
type Sweeper struct {
	mu    sync.Mutex
	head  Conn // of a ring
	count int

	base time.Time
	now  atomic.Int64 // coarse: at the last sweep, in nanoseconds since base
	next atomic.Int64 // when the next sweep is due
	wake chan struct{}
}

// NewSweeper returns a sweeper; nothing times out until it runs.
func NewSweeper() *Sweeper {
	s := &Sweeper{base: time.Now(), wake: make(chan struct{}, 1)}
	s.head.prev, s.head.next = &s.head, &s.head
	s.next.Store(int64(sweepInterval))
	return s
}

// Run sweeps until the context is done.
func (s *Sweeper) Run(ctx context.Context) error {
	timer := time.NewTimer(sweepInterval)
	defer timer.Stop()
	lastGone := s.clock()
	s.sweep(lastGone, false) // the coarse clock stood still until now
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.wake:
		}
		now := s.clock()
		if now < s.next.Load() { // woken because something became due earlier
			timer.Reset(time.Duration(s.next.Load() - now))
			continue
		}
		look := now-lastGone >= int64(sweepInterval)
		if look {
			lastGone = now
		}
		s.sweep(now, look)
		timer.Reset(time.Duration(s.next.Load() - s.clock()))
	}
}

// Len returns how many connections are watched.
func (s *Sweeper) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *Sweeper) clock() int64 { return int64(time.Since(s.base)) }

// Now returns the time on the clock that only moves forward; Coarse is cheaper.
func (s *Sweeper) Now() time.Duration { return time.Duration(s.clock()) }

// Coarse returns the time of the last sweep, at most about a second ago, on the clock that only moves forward.
func (s *Sweeper) Coarse() time.Duration { return time.Duration(s.now.Load()) }

// deadline returns when d from now is. Long ones are reckoned from the coarse clock and so never come early.
func (s *Sweeper) deadline(d time.Duration) int64 {
	if d >= coarseFrom {
		return s.now.Load() + int64(sweepInterval) + int64(d)
	}
	return s.clock() + int64(d)
}

// expect makes sure that a sweep happens by the time at.
func (s *Sweeper) expect(at int64) {
	for {
		next := s.next.Load()
		if at >= next {
			return
		}
		if s.next.CompareAndSwap(next, at) {
			break
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Sweeper) sweep(now int64, lookForGone bool) {
	s.now.Store(now)
	soonest := now + int64(sweepInterval)
	s.next.Store(soonest)
	var expired, looked []*Conn
	s.mu.Lock()
	for c := s.head.next; c != &s.head; c = c.next {
		switch at := c.timer.at.Load(); {
		case at == 0:
		case at <= now:
			expired = append(expired, c)
		case at < soonest:
			soonest = at
		}
		if lookForGone && (c.unassured() || c.looks.unsettled() || (c.serving.Load()&1 == 1 && c.onGone != nil)) {
			looked = append(looked, c)
		}
	}
	s.mu.Unlock()
	for _, c := range expired {
		c.expire(now)
	}
	for _, c := range looked {
		c.checkGone(now)
	}
	s.expect(max(soonest, now+int64(sweepFloor)))
}

func (s *Sweeper) add(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.prev, c.next = s.head.prev, &s.head
	c.prev.next, c.next.prev = c, c
	s.count++
}

func (s *Sweeper) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.prev.next, c.next.prev = c.next, c.prev
	s.count--
}
