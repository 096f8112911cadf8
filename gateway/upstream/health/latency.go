package health

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// rowLength is how many requests are looked at together, and rows how many rows must show the same.
	rowLength = 20
	rows      = 2
	// leastSlow is below what nobody is slow, however fast the others are: a pause of a garbage collector is no illness.
	leastSlow = 20 * time.Millisecond
	// sample is how many targets are asked what is usual: of thousands, these tell as much.
	sample = 64
	// weighEvery is how old that may be when somebody seems slow.
	weighEvery = time.Second
	// failingShare is from which share of failures on a target's latency says nothing about what is usual.
	failingShare = 0.1
)

// row is what the last requests of a target took that seems slow. One that does not has none.
type row struct {
	mu   sync.Mutex
	n    int
	bad  int // rows that were slow
	took [rowLength]time.Duration
}

// usual are the latencies of up to sample targets that are well, in order.
type usual []time.Duration

func (g *Group) usual(now time.Duration, buffer *[sample]time.Duration) usual {
	members := *g.members.Load()
	list := buffer[:0]
	step := max(1, (len(members)+sample-1)/sample)
	for i := 0; i < len(members) && len(list) < sample; i += step {
		l := members[i].load
		if took := l.Latency(); took > 0 && l.Failing() <= failingShare && l.Available(now) {
			list = append(list, took)
		}
	}
	slices.Sort(list)
	return list
}

// others is the median of those other than one whose latency is own; 0: there are none.
func (u usual) others(own time.Duration) time.Duration {
	at, found := slices.BinarySearch(u, own)
	n := len(u)
	if found {
		n--
	}
	if n < 1 {
		return 0
	}
	middle := n / 2
	if found && middle >= at {
		middle++
	}
	return u[middle]
}

// limit is what a target's requests must take to be slow.
func (g *Group) limit(others time.Duration) time.Duration {
	if others == 0 {
		return math.MaxInt64
	}
	return max(time.Duration(g.rules.Latency*float64(others)), leastSlow)
}

// weigh compares the targets' latencies.
func (g *Group) weigh(now time.Duration) {
	if g.rules.Latency == 0 || g.retired.Load() {
		return
	}
	g.weighed.Store(int64(now))
	var buffer [sample]time.Duration
	u := g.usual(now, &buffer)
	for _, r := range *g.members.Load() {
		if limit := int64(g.limit(u.others(r.load.Latency()))); r.slow.Load() != limit {
			r.slow.Store(limit)
		}
	}
}

// watch looks at a request of a target that seems slow. When another one is being looked at, it does without.
func (g *Group) watch(r *Record, now, took time.Duration) {
	if g.rules.Latency == 0 || now < r.load.EjectedUntil() {
		r.row.Store(nil)
		return
	}
	w := r.row.Load()
	if w == nil {
		if at := g.weighed.Load(); int64(now)-at >= int64(weighEvery) && g.weighed.CompareAndSwap(at, int64(now)) {
			g.weigh(now)
		}
		if int64(took) <= r.slow.Load() {
			return
		}
		r.row.CompareAndSwap(nil, new(row))
		if w = r.row.Load(); w == nil {
			return
		}
	}
	if !w.mu.TryLock() {
		return
	}
	defer w.mu.Unlock()
	w.took[w.n] = took
	if w.n++; w.n < rowLength {
		return
	}
	w.n = 0
	slices.Sort(w.took[:])
	var buffer [sample]time.Duration
	median, others := w.took[rowLength/2], g.usual(now, &buffer).others(r.load.Latency())
	if median < g.limit(others) {
		r.row.CompareAndSwap(w, nil)
		return
	}
	if w.bad++; w.bad < rows {
		return
	}
	w.bad = 0
	g.eject(r, now, Latencies, func() string {
		return fmt.Sprintf("half of its last %d requests took %s or more, %.0f times the other targets' %s",
			rowLength, Span(median), float64(median)/float64(others), Span(others))
	})
}
