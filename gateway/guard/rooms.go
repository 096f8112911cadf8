package guard

import (
	"sync"
	"sync/atomic"
)

// Rooms is the places for connections that all doors share. It is safe for concurrent use.
type Rooms struct {
	limit, open atomic.Int64 // limit 0: any number
	closed      atomic.Bool  // nobody may enter
	waiting     atomic.Bool  // somebody wants to know of a change

	mu      sync.Mutex
	changed chan struct{} // closed at the next change
}

func newRooms() *Rooms { return &Rooms{changed: make(chan struct{})} }

// Full reports whether nobody may enter now.
func (r *Rooms) Full() bool {
	limit := r.limit.Load()
	return r.closed.Load() || limit > 0 && r.open.Load() >= limit
}

// Enter takes a place, which Leave gives back, if there is one.
func (r *Rooms) Enter() bool {
	for {
		limit, open := r.limit.Load(), r.open.Load()
		if r.closed.Load() || limit > 0 && open >= limit {
			return false
		}
		if r.open.CompareAndSwap(open, open+1) {
			return true
		}
	}
}

// Leave gives a place back.
func (r *Rooms) Leave() {
	r.open.Add(-1)
	r.tell()
}

// Changed returns a channel that is closed when there may be a place again. Ask Full after it, and then wait.
func (r *Rooms) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting.Store(true)
	return r.changed
}

// tell wakes whoever waits.
func (r *Rooms) tell() {
	if !r.waiting.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting.Store(false)
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Rooms) setLimit(n int) {
	r.limit.Store(int64(n))
	r.tell()
}

func (r *Rooms) shut(yes bool) {
	r.closed.Store(yes)
	r.tell()
}
