package health

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"headgate/gateway/upstream/balance"
)

// Record is what is known about the health of one target. It outlives sets of targets and documents. All methods are safe
// for concurrent use.
type Record struct {
	name    string
	address string
	load    *balance.Load
	group   atomic.Pointer[Group]
	streak  atomic.Uint64 // failures in a row; in the upper half those of connecting
	trouble atomic.Pointer[trouble]
	slow    atomic.Int64 // what takes longer is looked at
	row     atomic.Pointer[row]
	serving atomic.Bool // it takes requests

	mu sync.Mutex
	record
}

// record is what changes rarely, under the lock.
type record struct {
	ejections int           // ever
	level     int           // ejections in a row, as far as they are not forgiven
	pause     time.Duration // of the last one
	until     time.Duration // its end
	cause     Cause         // of the last ejection
	why       string        // in words
	at, back  time.Time     // when it was ejected, and when it comes back
	held      string        // why it would be ejected, if more might be
	heldAt    time.Duration

	probed  probed
	history []Change
}

// Cause is why a target was ejected, as it stands in metrics.
type Cause string

// The causes of ejections.
const (
	InARow    Cause = "consecutive_failures"
	Connects  Cause = "connect_failures"
	Share     Cause = "failure_share"
	Latencies Cause = "latency"
)

// Load is the target's load, which the record's judgements reach.
func (r *Record) Load() *balance.Load { return r.load }

// Succeeded notes an answer that is no failure of the target, and how long it took. Nothing is written for a target that is
// well.
func (r *Record) Succeeded(shard uint32, now, took time.Duration) {
	if r.streak.Load() != 0 {
		r.streak.Store(0)
	}
	if t := r.trouble.Load(); t != nil {
		if now-time.Duration(t.last.Load()) > span {
			r.trouble.CompareAndSwap(t, nil)
		} else {
			t.at(shard, now).good.Add(1)
		}
	}
	if int64(took) > r.slow.Load() || r.row.Load() != nil {
		r.group.Load().watch(r, now, took)
	}
}

// Failed notes a failure of the target, and ejects it when there are too many. What requests show that were on their way
// when it was ejected does not count again.
func (r *Record) Failed(shard uint32, now time.Duration, f Failure) {
	if now < r.load.EjectedUntil() {
		return
	}
	row, connects := r.strike(f.connecting())
	t := r.trouble.Load()
	if t == nil {
		r.trouble.CompareAndSwap(nil, new(trouble))
		if t = r.trouble.Load(); t == nil {
			return // a success has just forgotten it
		}
	}
	t.failed(shard, now, f)
	g := r.group.Load()
	e := &g.rules
	switch {
	case e.Connects > 0 && connects >= int64(e.Connects):
		g.eject(r, now, Connects, func() string {
			return fmt.Sprintf("%d connections in a row failed%s", connects, tally(t.latest(connects)))
		})
		return
	case e.Failures > 0 && row >= int64(e.Failures):
		g.eject(r, now, InARow, func() string { return fmt.Sprintf("%d requests in a row failed%s", row, tally(t.latest(row))) })
		return
	case e.Share == 0:
		return
	}
	if good, bad := t.sum(now); good+bad >= leastRequests && bad*100 >= int64(e.Share)*(good+bad) {
		g.eject(r, now, Share, func() string {
			return fmt.Sprintf("%d of %d requests in %s failed%s", bad, good+bad, Span(span), tally(t.latest(bad)))
		})
	}
}

// strike counts one failure more in a row.
func (r *Record) strike(connecting bool) (row, connects int64) {
	for {
		was := r.streak.Load()
		row, connects = int64(was&math.MaxUint32), int64(was>>32)
		if row < math.MaxUint32 {
			row++
		}
		if !connecting {
			connects = 0
		} else if connects < math.MaxUint32 {
			connects++
		}
		if r.streak.CompareAndSwap(was, uint64(connects)<<32|uint64(row)) {
			return row, connects
		}
	}
}

// clean forgets what has led to an ejection, so that the target begins anew when it comes back.
func (r *Record) clean() {
	r.streak.Store(0)
	r.trouble.Store(nil)
	r.row.Store(nil)
}

// past reports whether there is anything to remember about a target that is gone.
func (r *Record) past(now time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now < r.until || r.forgiven(now) > 0 || r.load.Down()
}
