package pool

import (
	"context"
	"sync/atomic"
	"time"

	"headgate/gateway/wire/h2/client"
	"headgate/internal/sock"
)

// member is one of the connections over HTTP/2 to a target, or one that is alone: for one call of a client that it names.
type member struct {
	*client.Conn
	mux      *mux
	alone    bool
	until    time.Duration // when it takes no more calls, on the coarse clock; 0: there is no such time
	calls    atomic.Uint64 // that it was given to
	draining atomic.Bool   // it takes no more calls, and ends with the last one that it has
	why      atomic.Uint32 // the cause, where we have ended it
	place    place         // among those that are idle
	looked   time.Duration // since when it was idle at the last look; of Tidy alone
}

// begin begins HTTP/2 on an open connection.
func (m *mux) begin(ctx context.Context, sc *sock.Conn) (*member, error) {
	s := &m.pool.group.settings
	c := &member{mux: m, until: s.age(s.Sweeper.Coarse())}
	var err error
	if c.Conn, err = client.Open(ctx, sc, &m.terms, c); err != nil {
		return nil, err
	}
	return c, nil
}

// claim takes a place for a call. The last call that the connection may carry makes it drain.
func (c *member) claim() bool {
	if c.draining.Load() || !c.Reserve() {
		return false
	}
	n, most := c.calls.Add(1), uint64(c.mux.pool.group.settings.Pool.MaxRequests)
	switch {
	case most == 0 || n < most:
		return true
	case n > most:
		c.calls.Add(^uint64(0))
		go c.Cancel() // which may ask for a lock that is held
		return false
	}
	go c.drain(causeRequests) // as this does
	return true
}

// again is how many calls it has carried besides the first one.
func (c *member) again() uint64 { return max(c.calls.Load(), 1) - 1 }

// on returns the connection; nil: there is none.
func (c *member) on() *client.Conn {
	if c == nil {
		return nil
	}
	return c.Conn
}

// drain lets the connection finish what it has. Others are opened for those who come.
func (c *member) drain(why cause) {
	c.why.CompareAndSwap(0, uint32(why))
	c.draining.Store(true)
	c.mux.part(c)
	c.unrest(true)
	if c.Open() == 0 {
		c.Retire()
	}
}

// retire takes no more calls and ends the connection after the last one.
func (c *member) retire(why cause) {
	c.why.CompareAndSwap(0, uint32(why))
	c.Retire()
}

// Free implements client.Owner.
func (c *member) Free(conn *client.Conn) {
	switch m := c.mux; {
	case c.alone:
		conn.Retire()
	case c.draining.Load():
		if conn.Open() == 0 {
			conn.Retire()
		}
	default:
		if conn.Open() == 0 {
			conn.SetIdle(m.pool.group.settings.Sweeper.Coarse())
		}
		if m.waiting.Load() > 0 {
			m.mu.Lock()
			m.serve()
			m.mu.Unlock()
		}
		c.rest()
	}
}

// Leaving implements client.Owner. Those who wait get another connection.
func (c *member) Leaving(*client.Conn) {
	c.unrest(true)
	r := c.mux.pool.record
	if why := cause(c.why.Load()); why != causeNone {
		r.closed[why].Add(1)
	} else if c.alone {
		r.closed[causeReply].Add(1)
	} else {
		r.closed[causeLeft].Add(1)
	}
	if !c.alone {
		c.mux.part(c)
	}
}

// part takes a connection out of the list, if it is there, and gives those who wait another one.
func (m *mux) part(c *member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(*m.conns.Load())
	m.remove(c)
	if len(*m.conns.Load()) < before {
		m.pool.record.reused.Add(c.again())
	}
	m.serve()
}

// Lone is the owner of a connection for one call.
type Lone struct{}

// Free implements client.Owner.
func (Lone) Free(c *client.Conn) { c.Retire() }

// Leaving implements client.Owner.
func (Lone) Leaving(*client.Conn) {}

// load returns how many connections and calls there are.
func (m *mux) load() (conns, calls int) {
	for _, c := range *m.conns.Load() {
		conns++
		calls += c.Open()
	}
	return conns, calls
}

// lacks reports whether there are fewer free places than wanted, and there may be another connection.
func (m *mux) lacks(want int) bool {
	limit, kept := m.pool.group.settings.HTTP2.Connections, &m.pool.group.settings.Pool
	if kept.IdlePerTarget == 0 || kept.IdleTotal == 0 {
		return false
	}
	if m.spoken.Load() == spokenUnknown {
		limit = 1
	}
	conns := *m.conns.Load()
	for _, c := range conns {
		want -= c.Room()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return want > 0 && !m.closed && m.dials == 0 && len(conns) < limit
}

// reused returns how many calls went over connections that had carried one before, as far as those are still there.
func (m *mux) reused() (n uint64) {
	for _, c := range *m.conns.Load() {
		n += c.again()
	}
	return n
}
