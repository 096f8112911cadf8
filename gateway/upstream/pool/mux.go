package pool

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h2/client"
	"headgate/internal/sock"
)

// mux is a target's connections over HTTP/2, which calls share. The first connection with a free stream is used, so that
// those not needed grow idle; when streams run out another one is opened, up to the document's number, and beyond it
// calls wait for a stream.
type mux struct {
	pool    *Pool
	terms   client.Terms
	plan    client.Plan
	conns   atomic.Pointer[[]*member]
	waiting atomic.Int32 // len(queue), for those who only want to know whether it is worth the lock
	spoken  atomic.Uint32
	resting budget // places of those that are idle, or were a moment ago

	mu     sync.Mutex // for what follows, and for replacing conns
	queue  []*waiter
	dials  int
	lost   int // connections in a row that the target left before they could be used
	closed bool
}

// maxLost is how many of them are opened for those who wait: a target that says goodbye to everybody is not asked for ever.
const maxLost = 8

// What a target that chooses by itself was found to speak.
const (
	spokenUnknown uint32 = iota
	spokenH1
	spokenH2
)

// waiter is a call that waits for a stream.
type waiter struct{ told chan granted }

// granted is what became of waiting: a connection with a place on it, one over HTTP/1.1, or an error. Without any of
// them the target speaks HTTP/1.1 and somebody else got the connection.
type granted struct {
	conn *member
	h1   Opened
	err  error
}

// Interrupt implements exchange.Interrupter.
func (w *waiter) Interrupt() {
	select {
	case w.told <- granted{err: context.Canceled}:
	default: // told already
	}
}

func newMux(p *Pool) *mux {
	h2, plan := &p.group.settings.HTTP2, p.plan
	m := &mux{pool: p}
	m.resting.limit = int64(p.group.settings.Pool.IdlePerTarget)
	m.terms = client.Terms{
		Streams: h2.Streams, Head: plan.Limits.Head, Fields: plan.Limits.Fields, Idle: plan.Idle,
		Ping: h2.Ping, PingTimeout: h2.PingTimeout, Clock: p.group.settings.Clock,
	}
	m.plan = client.Plan{Scheme: "http", Host: plan.Host, Target: plan.Target, Response: plan.Response, Idle: plan.Idle}
	if p.end.Secure {
		m.plan.Scheme = "https"
	}
	if p.version == H2 {
		m.spoken.Store(spokenH2)
	}
	m.conns.Store(new([]*member))
	p.group.enrol(m)
	return m
}

// take returns a connection with a place reserved on it, waiting for one if there is none. fresh: not one that has been
// used, as far as there is a choice. reused tells.
func (m *mux) take(x *exchange.Exchange, fresh bool) (granted, bool) {
	for _, c := range *m.conns.Load() {
		if (!fresh || !c.Used()) && c.claim() {
			return granted{conn: c}, c.Used()
		}
	}
	g := m.wait(x)
	return g, g.conn != nil && g.conn.Used()
}

// wait waits for a place, no longer than a connection may take to be opened.
func (m *mux) wait(x *exchange.Exchange) granted {
	w := &waiter{told: make(chan granted, 1)}
	if x.Cancel != nil && !x.Cancel.Guard(w) {
		return granted{err: context.Canceled}
	}
	if !m.enqueue(w) {
		if x.Cancel != nil {
			x.Cancel.Guard(nil)
		}
		return granted{err: ErrNoStream}
	}
	patience := time.NewTimer(m.pool.group.settings.Connect)
	defer patience.Stop()
	var g granted
	select {
	case g = <-w.told:
	case <-patience.C:
		if g.err = ErrNoStream; len(*m.conns.Load()) == 0 {
			g.err = errNoAnswer
		}
	}
	if x.Cancel != nil {
		x.Cancel.Guard(nil)
	}
	if g.err != nil && m.withdraw(w) { // it was told something else at the same moment
		m.refuse(w)
	}
	return g
}

// ErrNoStream says that a stream was waited for in vain, because all connections are busy.
var ErrNoStream = errors.New("every connection has as many requests as it may have, and none became free within the connect timeout")

// errNoAnswer is told when there is no connection yet, and the one that is being opened takes too long.
var errNoAnswer = errors.New("no connection could be opened within the connect timeout")

// maxWaiting bounds who waits for a stream of one target, so that a target that has stopped does not fill the memory.
const maxWaiting = 10_000

// enqueue makes a call wait; false: too many do.
func (m *mux) enqueue(w *waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) >= maxWaiting {
		return false
	}
	m.queue = append(m.queue, w)
	m.serve()
	return true
}

// withdraw takes a waiter out of the queue. It reports whether it was there no more.
func (m *mux) withdraw(w *waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.queue, w)
	if i < 0 {
		return true
	}
	m.queue = slices.Delete(m.queue, i, i+1)
	m.waiting.Store(int32(len(m.queue)))
	return false
}

// refuse gives back what a waiter was told too late.
func (m *mux) refuse(w *waiter) {
	select {
	case g := <-w.told:
		if g.conn != nil {
			g.conn.Cancel()
		}
		if g.h1.Conn != nil {
			_ = g.h1.Close() // never used
		}
	default:
	}
}

// serve gives places to those who wait and opens connections for the rest. The lock is held.
func (m *mux) serve() {
	for _, c := range *m.conns.Load() {
		for len(m.queue) > 0 && c.claim() {
			m.tell(granted{conn: c})
		}
	}
	m.waiting.Store(int32(len(m.queue)))
	limit, streams := m.pool.group.settings.HTTP2.Connections, m.terms.Streams
	if m.spoken.Load() == spokenUnknown {
		limit = 1 // until it is known what is spoken
	}
	for !m.closed && m.dials*streams < len(m.queue) && len(*m.conns.Load())+m.dials < limit {
		m.dials++
		go m.dial()
	}
	if m.closed && m.dials == 0 {
		m.tellAll(granted{err: ErrClosed})
	}
}

// ErrClosed says that the pool was closed while a stream was waited for: another one has taken its place, or none.
var ErrClosed = errors.New("the upstream's settings have been replaced")

// tell gives the first in the queue what it waits for. What one cannot take who has just gone is given back. The lock is
// held.
func (m *mux) tell(g granted) {
	w := m.queue[0]
	m.queue[0] = nil
	m.queue = m.queue[1:]
	select {
	case w.told <- g:
	default: // interrupted
		if g.conn != nil {
			go g.conn.Cancel() // which may ask for the lock
		}
		if g.h1.Conn != nil {
			_ = g.h1.Close() // never used
		}
	}
}

func (m *mux) tellAll(g granted) {
	for len(m.queue) > 0 {
		m.tell(g)
	}
	m.waiting.Store(0)
}

// dial opens a connection for whoever waits. It belongs to nobody in particular, so nobody's going away ends it.
func (m *mux) dial() {
	ctx, cancel := context.WithTimeout(context.Background(), m.pool.group.settings.Connect)
	defer cancel()
	o, err := m.pool.open(ctx, nil, m.pool.tls, pooled)
	var c *member
	if err == nil && m.isH2(o) {
		c, err = m.begin(ctx, o.Conn)
	}
	m.mu.Lock()
	m.dials--
	m.opened(c, o, err)
	m.mu.Unlock()
	if c != nil {
		c.rest() // nobody may be there any more
	}
}

// connect opens a connection ahead. It is the caller's business what becomes of an error, unless somebody waits.
func (m *mux) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.pool.group.settings.Connect)
	defer cancel()
	o, err := m.pool.open(ctx, nil, m.pool.tls, pooled)
	if err != nil {
		return err
	}
	return m.adopt(ctx, o.Conn, true)
}

// opened gives what was opened to those who wait. The lock is held.
func (m *mux) opened(c *member, o Opened, err error) {
	switch {
	case c != nil:
		m.lost = 0
		m.add(c)
	case errors.Is(err, client.ErrLeft) && m.lost < maxLost:
		m.lost++ // those who wait get another one
	case err != nil:
		m.lost = 0
		if m.closed || len(*m.conns.Load()) == 0 && m.dials == 0 { // with others there is hope
			m.tellAll(granted{err: err})
		}
		return
	default:
		m.spoken.Store(spokenH1)
		if len(m.queue) > 0 {
			m.tell(granted{h1: o})
		} else {
			_ = o.Close() // never used
		}
		m.tellAll(granted{})
	}
	m.serve()
}

// isH2 reports whether the connection is one over HTTP/2.
func (m *mux) isH2(o Opened) bool {
	return m.pool.version == H2 || o.ALPN == ALPNH2
}

// adopt takes over a connection that was opened for HTTP/1.1 and agreed on HTTP/2. ahead: nobody is about to use it.
func (m *mux) adopt(ctx context.Context, sc *sock.Conn, ahead bool) error {
	ctx, cancel := context.WithTimeout(ctx, m.pool.group.settings.Connect)
	defer cancel()
	c, err := m.begin(ctx, sc)
	switch {
	case errors.Is(err, client.ErrLeft): // another one is opened for who asks
		m.spoken.Store(spokenH2)
		return nil
	case err != nil:
		return err
	}
	m.mu.Lock()
	m.add(c)
	m.serve()
	m.mu.Unlock()
	if ahead {
		c.rest()
	}
	return nil
}

// add puts a connection into the list, unless it has ended already. The lock is held.
func (m *mux) add(c *member) {
	m.spoken.Store(spokenH2)
	c.SetIdle(m.pool.group.settings.Sweeper.Coarse())
	if m.closed {
		go c.retire(causeReplaced) // which calls Leaving
		return
	}
	list := append(slices.Clone(*m.conns.Load()), c)
	m.conns.Store(&list)
	if c.Left() {
		m.remove(c)
	}
}

// remove takes a connection out of the list. The lock is held.
func (m *mux) remove(c *member) {
	list := slices.DeleteFunc(slices.Clone(*m.conns.Load()), func(other *member) bool { return other == c })
	m.conns.Store(&list)
}

// tidy ends connections that have had no call for too long, and lets those that are too old finish what they have.
func (m *mux) tidy(a ages) {
	for _, c := range *m.conns.Load() {
		switch {
		case c.until != 0 && a.now >= c.until:
			c.drain(causeAge)
		case c.Open() == 0 && c.Idle() < a.oldest:
			c.retire(causeIdle)
		default:
			c.look()
		}
	}
}

// close ends every connection after its last call.
func (m *mux) close() {
	m.pool.group.release(m)
	m.mu.Lock()
	m.closed = true
	conns := *m.conns.Load()
	m.serve()
	m.mu.Unlock()
	for _, c := range conns {
		c.retire(causeReplaced)
	}
}

// single opens a connection that has told the target about one client and is used for one call. Where the target chooses
// HTTP/1.1, it is one of that.
func (m *mux) single(x *exchange.Exchange) (g granted) {
	ctx, cancel := context.WithTimeout(x.Context(), m.pool.group.settings.Connect)
	defer cancel()
	terms := m.terms
	terms.Streams = 1
	g.err = client.ErrLeft
	for n := 0; n <= maxLost && errors.Is(g.err, client.ErrLeft); n++ {
		o, err := m.pool.open(ctx, &x.Client, m.pool.tls, pooled)
		switch {
		case err != nil:
			return granted{err: err}
		case !m.isH2(o):
			return granted{h1: o}
		}
		c := &member{mux: m, alone: true}
		if c.Conn, g.err = client.Open(ctx, o.Conn, &terms, c); g.err != nil {
			continue
		}
		if c.Reserve() {
			return granted{conn: c}
		}
		if g.err = ErrNoStream; c.Left() {
			g.err = client.ErrLeft
		}
		c.Retire()
	}
	return g
}
