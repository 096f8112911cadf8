package counter

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// Local is a Store in this process's memory. Its limiters never wait and never fail.
//
// A limiter holds up to about a million keys that have something spent. When more are live at one time, those that find
// no place share a bucket with others like them (Crowded counts this): they may be refused earlier than alone, but nobody
// gets more than the rate, and no key that has a place loses it.
type Local struct {
	seed    maphash.Seed
	crowded atomic.Uint64

	mu      sync.Mutex
	buckets map[string]weak.Pointer[buckets] // weak: the buckets go when no document names them any more
	sweepAt int
}

// buckets are the buckets of one name.
type buckets struct {
	local *Local
	table atomic.Pointer[[shards]shard] // made on first use: most limits of a large document are never reached
}

// limiter is a pace over buckets that others may use at another pace while a reload is under way.
type limiter struct {
	*buckets
	pace pace
}

// NewLocal returns an empty store.
func NewLocal() *Local {
	return &Local{seed: maphash.MakeSeed(), buckets: map[string]weak.Pointer[buckets]{}}
}

// Limiter returns the limiter of that name. As long as anybody holds a limiter of the name, asking again returns the same
// buckets; under another rate each key has as many units spent as before.
func (l *Local) Limiter(name string, rate Rate) Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[name].Value()
	if b == nil {
		l.sweep()
		b = &buckets{local: l}
		l.buckets[name] = weak.Make(b)
	}
	return &limiter{b, paceOf(rate)}
}

// sweep forgets the names that nobody uses, each time that they have doubled.
func (l *Local) sweep() {
	if len(l.buckets) < l.sweepAt {
		return
	}
	for name, p := range l.buckets {
		if p.Value() == nil {
			delete(l.buckets, name)
		}
	}
	l.sweepAt = 2*len(l.buckets) + shards
}

// Crowded returns how often a key had to share a bucket because its limiter was full of live keys.
func (l *Local) Crowded() uint64 { return l.crowded.Load() }

// Take spends cost from the key's bucket. It is always ready and never fails; the key is not kept.
func (l *limiter) Take(key string, cost int64, now time.Time, _ bool) (Result, bool, error) {
	hash := max(maphash.String(l.local.seed, key), 1)
	at := now.UnixNano()
	s := &l.shards()[hash%shards]
	s.mu.Lock()
	p, placed := s.find(hash, at)
	if p.interval != l.pace.interval {
		p.full, p.interval = l.pace.rescale(p.full, p.interval, at), l.pace.interval
	}
	full, result := l.pace.take(p.full, cost, at)
	p.full = full
	s.mu.Unlock()
	if !placed {
		l.local.crowded.Add(1)
	}
	return result, true, nil
}

func (b *buckets) shards() *[shards]shard {
	if t := b.table.Load(); t != nil {
		return t
	}
	b.table.CompareAndSwap(nil, new([shards]shard))
	return b.table.Load()
}
