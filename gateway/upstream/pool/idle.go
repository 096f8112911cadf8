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
	limit  int // of one shard
}

type idleShard struct {
	mu     sync.Mutex
	conns  []*h1.Conn
	closed bool
	_      [24]byte
}

// maxIdleShards bounds how far the idle connections of one target are spread.
const maxIdleShards = 16

func (p *idlePool) init(limit int) {
	n := min(1<<bits.Len(uint(runtime.GOMAXPROCS(0)-1)), maxIdleShards)
	p.shards, p.limit = make([]idleShard, n), (limit+n-1)/n
}

// take returns an idle connection that was used after oldest and is quiet, or nil.
func (p *idlePool) take(shard uint32, oldest time.Duration) *h1.Conn {
	for i := range p.shards {
		s := &p.shards[(int(shard)+i)%len(p.shards)]
		for {
			c := s.pop()
			if c == nil {
				break
			}
			if c.Idle >= oldest && c.Quiet() {
				return c
			}
			_ = c.Close() // too old, closed by the other side, or saying what nobody asked
		}
	}
	return nil
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
	return c
}

func (p *idlePool) put(shard uint32, c *h1.Conn) {
	s := &p.shards[int(shard)%len(p.shards)]
	s.mu.Lock()
	keep := !s.closed && len(s.conns) < p.limit
	if keep {
		s.conns = append(s.conns, c)
	}
	s.mu.Unlock()
	if !keep {
		_ = c.Close() // one more than is kept
	}
}

// prune closes connections that have been idle since before oldest. They lie at the bottom.
func (p *idlePool) prune(oldest time.Duration) {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		n := 0
		for n < len(s.conns) && s.conns[n].Idle < oldest {
			n++
		}
		old := slices.Clone(s.conns[:n])
		s.conns = slices.Delete(s.conns, 0, n)
		s.mu.Unlock()
		for _, c := range old {
			_ = c.Close() // idle: nothing is lost
		}
	}
}

func (p *idlePool) close() {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		conns := s.conns
		s.conns, s.closed = nil, true
		s.mu.Unlock()
		for _, c := range conns {
			_ = c.Close() // idle: nothing is lost
		}
	}
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
