package pool

import (
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"time"

	"headgate/gateway/wire/h1"
)

// idlePool keeps a target's idle connections, the one used last on top, so that those not needed grow old. Each shard
// has its own stack; one that is empty looks at the others before a new connection is made.
type idlePool struct {
	shards []idleShard
	limit  int     // of one shard
	budget *budget // of all targets
	// dropped is told of every connection that is closed here, and why.
	dropped func(c *h1.Conn, why cause)
}

type idleShard struct {
	mu     sync.Mutex
	conns  []*h1.Conn
	places int // that the shard has in the budget: the height of its stack at most
	height int // of its stack at most since the last tidying
	taken  uint64
	closed bool
	_      [56]byte
}

// maxIdleShards bounds how far the idle connections of one target are spread.
const maxIdleShards = 16

func (p *idlePool) init(limit int, b *budget, dropped func(*h1.Conn, cause)) {
	n := min(1<<bits.Len(uint(runtime.GOMAXPROCS(0)-1)), maxIdleShards)
	p.shards, p.limit, p.budget, p.dropped = make([]idleShard, n), (limit+n-1)/n, b, dropped
}

// ages are the bounds of what may still be used.
type ages struct {
	now    time.Duration // on the coarse clock
	oldest time.Duration // since when a connection may have been idle
}

// judge says why a connection is not to be used, or that it may.
func (a ages) judge(c *h1.Conn) cause {
	switch {
	case c.Until != 0 && a.now >= c.Until:
		return causeAge
	case c.Idle < a.oldest:
		return causeIdle
	}
	return causeNone
}

// take returns an idle connection that is young enough and quiet, or nil.
func (p *idlePool) take(shard uint32, a ages) *h1.Conn {
	for i := range p.shards {
		s := &p.shards[(int(shard)+i)%len(p.shards)]
		for {
			c := s.pop()
			if c == nil {
				break
			}
			why := a.judge(c)
			if why == causeNone && c.Quiet() {
				return c
			}
			if why == causeNone { // closed by the other side, or saying what nobody asked
				why = causeDead
			}
			p.drop(c, why)
		}
	}
	return nil
}

func (p *idlePool) drop(c *h1.Conn, why cause) {
	_ = c.Close() // it is of no use
	p.dropped(c, why)
}

func (s *idleShard) pop() *h1.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.conns)
	if n == 0 {
		return nil
	}
	c := s.conns[n-1]
	s.conns[n-1] = nil
	s.conns = s.conns[:n-1]
	s.taken++
	return c
}

func (p *idlePool) put(shard uint32, c *h1.Conn) {
	s := &p.shards[int(shard)%len(p.shards)]
	why := causeNone
	s.mu.Lock()
	switch n := len(s.conns); {
	case s.closed:
		why = causeReplaced
	case n >= p.limit || n == s.places && !p.budget.take():
		why = causeSurplus
	default:
		s.conns = append(s.conns, c)
		s.places, s.height = max(s.places, n+1), max(s.height, n+1)
	}
	s.mu.Unlock()
	if why != causeNone {
		p.drop(c, why)
	}
}

// tidy closes connections that are too old or have been closed by the target, and gives back places in the budget that were
// not needed since the last time. Those idle for longest lie at the bottom.
func (p *idlePool) tidy(a ages) {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		var old []*h1.Conn
		var why []cause
		s.conns = slices.DeleteFunc(s.conns, func(c *h1.Conn) bool {
			w := a.judge(c)
			if w == causeNone && !c.Quiet() {
				w = causeDead
			}
			if w != causeNone {
				old, why = append(old, c), append(why, w)
			}
			return w != causeNone
		})
		spare := s.places - max(s.height, len(s.conns))
		if len(old) > 0 { // what has grown old was not needed
			spare = s.places - len(s.conns)
		}
		s.places -= spare
		s.height = len(s.conns)
		s.mu.Unlock()
		p.budget.give(spare)
		for i, c := range old {
			p.drop(c, why[i])
		}
	}
}

// empty closes all connections that have been idle since before a time; closed: for good, whenever they come back.
func (p *idlePool) empty(before time.Duration, closed bool, why cause) {
	for i := range p.shards {
		s := &p.shards[i]
		var old []*h1.Conn
		s.mu.Lock()
		s.closed = s.closed || closed
		s.conns = slices.DeleteFunc(s.conns, func(c *h1.Conn) bool {
			if c.Idle <= before {
				old = append(old, c)
			}
			return c.Idle <= before
		})
		spare := s.places - len(s.conns)
		s.places, s.height = len(s.conns), len(s.conns)
		s.mu.Unlock()
		p.budget.give(spare)
		for _, c := range old {
			p.drop(c, why)
		}
	}
}

// spare closes an idle connection, so that another one may be opened. It reports whether there was one.
func (p *idlePool) spare() bool {
	for i := range p.shards {
		if c := p.shards[i].pop(); c != nil {
			p.drop(c, causeSurplus)
			return true
		}
	}
	return false
}

func (p *idlePool) len() (n int) {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		n += len(s.conns)
		s.mu.Unlock()
	}
	return n
}

// taken returns how often a connection was used again.
func (p *idlePool) taken() (n uint64) {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		n += s.taken
		s.mu.Unlock()
	}
	return n
}
