package pool

import (
	"io"
	"testing"
	"time"

	"headgate/gateway/wire/h1"
	"headgate/internal/sock"
)

// idleOf returns the idle connections of one shard, so that their order can be seen.
func idleOf(limit int) *idlePool {
	return &idlePool{shards: make([]idleShard, 1), limit: limit, budget: &budget{limit: 1 << 20}, dropped: func(*h1.Conn, cause) {}}
}

// since are ages of which only the idle time matters.
func since(oldest time.Duration) ages { return ages{oldest: oldest} }

func TestTheConnectionUsedLastIsTakenFirst(t *testing.T) {
	p, s := idleOf(10), sock.NewSweeper()
	var conns []*h1.Conn
	for range 3 {
		c, _ := connection(t, s)
		conns = append(conns, c)
		p.put(0, c)
	}
	for i := range 3 {
		if got := p.take(7, since(0)); got != conns[2-i] {
			t.Errorf("take %d is not the one put %d", i, 2-i)
		}
	}
	if p.take(0, since(0)) != nil || p.len() != 0 {
		t.Error("an empty pool has one more")
	}
}

func TestAPoolKeepsNoMoreThanItsLimit(t *testing.T) {
	for _, limit := range []int{0, 1, 3} {
		p, s := idleOf(limit), sock.NewSweeper()
		for range 5 {
			c, _ := connection(t, s)
			p.put(0, c)
		}
		if p.len() != limit || s.Len() != limit {
			t.Errorf("%d kept and %d open, limit %d", p.len(), s.Len(), limit)
		}
		p.empty(maxTime, true, causeReplaced)
	}
}

func TestTheLimitIsSharedOutAmongTheShards(t *testing.T) {
	for _, limit := range []int{0, 1, 7, 256} {
		var p idlePool
		p.init(limit, &budget{limit: 1 << 20}, nil)
		n := len(p.shards)
		if n < 1 || n > maxIdleShards || p.limit*n < limit || p.limit*n >= limit+n {
			t.Errorf("limit %d: %d shards of %d", limit, n, p.limit)
		}
	}
}

func TestAnEmptyShardTakesFromTheOthers(t *testing.T) {
	p, s := idleOf(10), sock.NewSweeper()
	p.shards = make([]idleShard, 4)
	c, _ := connection(t, s)
	p.put(3, c)
	if p.take(1, since(0)) != c {
		t.Error("a new connection would have been made")
	}
}

func TestConnectionsThatAreOfNoUseAreClosedAndNotTaken(t *testing.T) {
	for name, spoil := range map[string]func(c *h1.Conn, far io.WriteCloser){
		"closed by the target":  func(_ *h1.Conn, far io.WriteCloser) { _ = far.Close() },
		"talking unasked":       func(_ *h1.Conn, far io.WriteCloser) { _, _ = far.Write([]byte("HTTP/1.1 408 Timeout\r\n\r\n")) },
		"idle for too long":     func(c *h1.Conn, _ io.WriteCloser) { c.Idle = 9 * time.Second },
		"interrupted in a call": func(c *h1.Conn, _ io.WriteCloser) { c.Interrupt() },
	} {
		t.Run(name, func(t *testing.T) {
			p, s := idleOf(10), sock.NewSweeper()
			good, _ := connection(t, s)
			bad, far := connection(t, s)
			good.Idle, bad.Idle = 10*time.Second, 10*time.Second
			spoil(bad, far)
			until(t, "it is noticed", func() bool { return !bad.Quiet() || bad.Idle < 10*time.Second })
			p.put(0, good)
			p.put(0, bad)
			if got := p.take(0, since(10*time.Second)); got != good {
				t.Error("taken")
			}
			if s.Len() != 1 {
				t.Errorf("%d open", s.Len())
			}
		})
	}
}

func TestPruningClosesWhatHasGrownOld(t *testing.T) {
	p, s := idleOf(10), sock.NewSweeper()
	for i := range 6 {
		c, _ := connection(t, s)
		c.Idle = time.Duration(i) * time.Second
		p.put(0, c)
	}
	p.tidy(since(4 * time.Second))
	if p.len() != 2 || s.Len() != 2 {
		t.Errorf("%d kept, %d open", p.len(), s.Len())
	}
	if c := p.take(0, since(0)); c.Idle != 5*time.Second {
		t.Errorf("on top is one of %v", c.Idle)
	}
	p.tidy(since(time.Hour))
	if p.len() != 0 || s.Len() != 1 {
		t.Errorf("%d kept, %d open besides the one taken", p.len(), s.Len()-1)
	}
}

func TestAClosedPoolKeepsNothing(t *testing.T) {
	p, s := idleOf(10), sock.NewSweeper()
	a, _ := connection(t, s)
	b, _ := connection(t, s)
	p.put(0, a)
	p.empty(maxTime, true, causeReplaced)
	p.put(0, b) // from a call that had still been running
	if p.len() != 0 || s.Len() != 0 {
		t.Errorf("%d kept, %d open", p.len(), s.Len())
	}
	p.empty(maxTime, true, causeReplaced)
}
