package pool

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// idleTime is how long connections to a target are kept without a call: what the document says, or less where the target
// closes them earlier. It is learned from what the target says (Keep-Alive: timeout=N) and from connections that were found
// closed, since a request that is sent on one of those in the moment in which it is being closed is a request in doubt.
type idleTime struct {
	most  time.Duration // the document's
	now   atomic.Int64  // what holds; 0: most
	heard atomic.Int64  // what the target says

	mu     sync.Mutex
	deaths int           // connections that were found closed, at different seconds
	last   time.Duration // when the last of them was found, on the coarse clock
	batch  time.Duration // the longest time that those of that second had been idle
	least  time.Duration // the shortest such time of the seconds before; 0: there were none
	found  time.Duration // learned from that; 0: nothing
}

const (
	// enoughDeaths is how many connections must have been found closed, in as many seconds, before anything is learned: a
	// target that restarts closes all of its connections at once, whatever their age.
	enoughDeaths = 3
	// forgetDeaths is after how long without another one it is forgotten: the target may be another program by then.
	forgetDeaths = 10 * time.Minute
	// leastIdle is the shortest time that is learned from what was found: the coarse clock knows no shorter one.
	leastIdle = time.Second
)

// limit returns how long a connection is kept.
func (t *idleTime) limit() time.Duration {
	if d := t.now.Load(); d != 0 {
		return time.Duration(d)
	}
	return t.most
}

// hear learns what the target says of itself. A second of what it promises is left for a request that is on its way.
func (t *idleTime) hear(kept time.Duration) {
	if int64(kept) == t.heard.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard.Store(int64(kept))
	t.settle()
}

// died learns that a connection was found closed after having been idle for age.
func (t *idleTime) died(now, age time.Duration) {
	if age < leastIdle { // it was closed at its last reply, or with the target
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
	if t.deaths > 0 && now-t.last < time.Second {
		t.batch = max(t.batch, age)
	} else {
		if t.deaths > 0 {
			t.least = t.shortest()
		}
		t.deaths, t.last, t.batch = t.deaths+1, now, age
	}
	if t.deaths >= enoughDeaths {
		least := t.shortest()
		t.found = max(least-max(time.Second, least/10), leastIdle)
		t.settle()
	}
}

// shortest is the shortest time after which connections were found closed. Of those that were found at one moment the one
// that was idle for longest counts: a target that restarts closes younger ones, too. The lock is held.
func (t *idleTime) shortest() time.Duration {
	if t.least == 0 {
		return t.batch
	}
	return min(t.least, t.batch)
}

// tidy forgets what was found long ago.
func (t *idleTime) tidy(now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
}

// forget is tidy with the lock held.
func (t *idleTime) forget(now time.Duration) {
	if t.deaths > 0 && now-t.last >= forgetDeaths {
		t.deaths, t.batch, t.least, t.found = 0, 0, 0, 0
		t.settle()
	}
}

// settle reckons what holds. The lock is held.
func (t *idleTime) settle() {
	d := t.most
	if told := t.told(); told != 0 {
		d = min(d, told)
	}
	if t.found != 0 {
		d = min(d, t.found)
	}
	t.now.Store(int64(d))
}

// told is what follows from what the target says; 0: it says nothing. A time as short as a second leaves half of it.
func (t *idleTime) told() time.Duration {
	kept := time.Duration(t.heard.Load())
	return max(kept-time.Second, kept/2)
}

// why says where what holds comes from.
func (t *idleTime) why() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch d := t.limit(); {
	case d == t.most:
		return "pool.idle_timeout"
	case d == t.found:
		return fmt.Sprintf("connections were found closed by the target, after having been idle for %v", t.shortest())
	default:
		return fmt.Sprintf("the target says that it keeps idle connections for %v", time.Duration(t.heard.Load()))
	}
}
