package pool

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headgate/gateway/wire/h1"
	"headgate/internal/sock"
)

// Whatever comes and goes on several targets, no more is kept than the budget allows, each stack has the places that it
// needs, and when all is closed no place is missing.
func TestIdleConnectionsOfAllTargetsStayWithinTheBudget(t *testing.T) {
	s := sock.NewSweeper()
	var spare []*h1.Conn // open connections that are in use; made once, since the property needs none to be closed
	for range 24 {
		c, _ := connection(t, s)
		spare = append(spare, c)
	}
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 12).Draw(t, "limit")
		b := &budget{limit: int64(limit)}
		free := slices.Clone(spare)
		targets := make([]*idlePool, 3)
		for i := range targets {
			targets[i] = &idlePool{shards: make([]idleShard, 2), limit: 5, budget: b, dropped: func(*h1.Conn, cause) {}}
		}
		check := func() {
			kept, places := 0, 0
			for _, p := range targets {
				for i := range p.shards {
					s := &p.shards[i]
					if len(s.conns) > s.places || s.places > p.limit {
						t.Fatalf("%d connections on %d places", len(s.conns), s.places)
					}
					kept, places = kept+len(s.conns), places+s.places
				}
			}
			if kept > limit || int64(places) != b.taken.Load() {
				t.Fatalf("%d kept, %d places of %d taken, %d allowed", kept, places, b.taken.Load(), limit)
			}
		}
		now := time.Duration(0)
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			now += time.Second
			p, shard := targets[rapid.IntRange(0, 2).Draw(t, "target")], uint32(rapid.IntRange(0, 1).Draw(t, "shard"))
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				if n := len(free); n > 0 && len(p.shards[shard].conns) < p.limit && (len(p.shards[shard].conns) < p.shards[shard].places ||
					b.taken.Load() < b.limit) {
					c := free[n-1]
					free, c.Idle = free[:n-1], now
					p.put(shard, c)
				}
			case 2:
				if c := p.take(shard, ages{now: now}); c != nil {
					free = append(free, c)
				}
			case 3:
				p.tidy(ages{now: now})
			case 4:
				if before := b.taken.Load(); before == b.limit && !b.take() && !b.tight.Load() {
					t.Fatal("a place was refused, and nobody knows")
				} else if before != b.limit && b.taken.Load() != before {
					b.give(1)
				}
			}
			check()
		}
		for _, p := range targets {
			for i := range p.shards {
				for c := p.shards[i].pop(); c != nil; c = p.shards[i].pop() {
				}
			}
			p.empty(maxTime, true, causeReplaced)
		}
		if b.taken.Load() != 0 {
			t.Fatalf("%d places are missing", b.taken.Load())
		}
	})
}

// A connection that comes and goes takes its place once.
func TestThePlaceOfAConnectionIsTakenOnceAndNotPerRequest(t *testing.T) {
	p := idleOf(10)
	c, _ := connection(t, sock.NewSweeper())
	if n := testing.AllocsPerRun(100, func() { p.put(0, c); p.take(0, ages{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := p.budget.taken.Load(); n != 1 {
		t.Errorf("%d places taken", n)
	}
	p.tidy(ages{}) // it was there since the last time
	p.tidy(ages{})
	if n := p.budget.taken.Load(); n != 0 {
		t.Errorf("%d places taken by a connection that is in use", n)
	}
}

// BenchmarkReuse is what a request costs at the pool when a connection is used again, with the look whether it is still open.
func BenchmarkReuse(b *testing.B) {
	id, err := ReadIdentity(nil)
	if err != nil {
		b.Fatal(err)
	}
	p := group(b).New(At("http", "127.0.0.1:1", "127.0.0.1"), &h1.Plan{Limits: &h1.Limits{}}, id, func() bool { return true })
	c, _ := connection(b, p.group.settings.Sweeper)
	c.Until = time.Hour
	p.Owner(0).Free(c, true)
	b.ReportAllocs()
	for b.Loop() {
		c := p.Take(0)
		p.Owner(0).Free(c, true)
	}
	p.Close()
}
