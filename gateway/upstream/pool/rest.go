package pool

import "sync/atomic"

// A connection over HTTP/2 that is idle takes a place among all of the upstream's idle connections, as those over HTTP/1.1 do,
// and among its target's. It keeps the place when it is used again, so that one which comes and goes touches nothing that
// others share, and gives it back when it was busy from one look of Tidy to the next, drains or ends. Where there is no place
// for another idle one, that which has been idle for longest says GOAWAY and makes room.
type place struct{ state atomic.Uint32 }

// The states of a place.
const (
	placeNone   uint32 = iota
	placeWanted        // somebody is about to take it
	placeTaken
	placeGone // for good: the connection has ended
)

// maxMakingRoom bounds how often room is made for one connection while others take it away.
const maxMakingRoom = 4

// rest makes sure that a connection which has no call has a place, or ends. It must not be called with the mux's lock held.
func (c *member) rest() {
	s := &c.place.state
	if s.Load() != placeNone || c.Open() > 0 || !s.CompareAndSwap(placeNone, placeWanted) {
		return
	}
	if !c.mux.room(c) {
		s.CompareAndSwap(placeWanted, placeNone)
		c.retire(causeSurplus)
		return
	}
	if !s.CompareAndSwap(placeWanted, placeTaken) { // it has ended meanwhile
		c.mux.vacate()
	}
}

// room takes a place for a connection, and makes room for it where there is none.
func (m *mux) room(c *member) bool {
	for range maxMakingRoom {
		if m.resting.take() {
			if m.pool.group.idle.take() {
				return true
			}
			m.resting.give(1)
			if !m.pool.group.dismiss() {
				return false
			}
		} else if !dismiss(m.longest(nil)) {
			return false
		}
	}
	return false
}

// vacate gives a place back.
func (m *mux) vacate() {
	m.resting.give(1)
	m.pool.group.idle.give(1)
}

// unrest gives the place back of a connection that goes on without one. for good: it never takes one again.
func (c *member) unrest(forGood bool) {
	s := &c.place.state
	if forGood && s.Swap(placeGone) == placeTaken || !forGood && s.CompareAndSwap(placeTaken, placeNone) {
		c.mux.vacate()
	}
}

// look gives the place back of a connection that was busy since the last look, and gives one to whoever has none.
func (c *member) look() {
	at := c.Idle()
	if c.Open() > 0 && c.looked == at {
		c.unrest(false)
	}
	c.looked = at
	c.rest() // it may have become idle just now
}

// longest returns the connection that has a place and has been idle for longest, if that is longer than another one has.
func (m *mux) longest(than *member) *member {
	for _, c := range *m.conns.Load() {
		if c.place.state.Load() == placeTaken && c.Open() == 0 && (than == nil || c.Idle() < than.Idle()) {
			than = c
		}
	}
	return than
}

// dismiss ends a connection that is idle; nil: there is none. A call that comes to it at the same moment is made on another one.
func dismiss(c *member) bool {
	if c != nil {
		c.retire(causeSurplus)
	}
	return c != nil
}

// dismiss makes room by ending the connection over HTTP/2 that has been idle for longest of all targets'.
func (g *Group) dismiss() bool {
	g.mu.Lock()
	var c *member
	for m := range g.muxes {
		c = m.longest(c)
	}
	g.mu.Unlock()
	return dismiss(c)
}

// enrol notes whose connections may be dismissed.
func (g *Group) enrol(m *mux) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.muxes[m] = struct{}{}
}

// release is its reverse.
func (g *Group) release(m *mux) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.muxes, m)
}

// idle returns how many connections have no call.
func (m *mux) idle() (n int) {
	for _, c := range *m.conns.Load() {
		if c.Open() == 0 {
			n++
		}
	}
	return n
}
