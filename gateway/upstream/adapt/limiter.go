package adapt

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"headgate/internal/clock"
)

// Outcome says what a request taught about the upstream.
type Outcome uint8

// Outcomes.
const (
	Served   Outcome = iota // it answered; the latency counts
	Ignored                 // it says nothing: the client went away, or the answer was an error of its own
	Refused                 // it refused (429, 503, RESOURCE_EXHAUSTED)
	TimedOut                // it did not answer in time
)

// Why a request is not let through: 503 with Retry-After, code upstream_busy.
var (
	ErrFull = errors.New("adapt: the upstream is at its limit and the queue in front of it is full")
	ErrLate = errors.New("adapt: the upstream is at its limit and the request has waited for too long")
)

// Config bounds a limiter. The zero value needs no tuning.
type Config struct {
	Floor int // least limit; 0: 1
	Cap   int // greatest limit; 0: 65,536
	Start int // first limit; 0: none, until there are signs of overload
	Queue int // greatest number of requests that wait; 0: 1,024; less than 0: none
}

const (
	defaultCap   = 1 << 16 // sockets to one upstream that a gateway may need
	defaultQueue = 1024    // requests that wait hold their clients' connections: a flood must not hold them all
)

// Limiter is the limit of one upstream. It is safe for concurrent use. Letting a request through writes one shared word, and
// ending it one more besides the figures of its shard; the lock is for requests that wait, and once for each epoch.
type Limiter struct {
	inFlight atomic.Int64
	limit    atomic.Int64
	waiting  atomic.Int64
	fresh    atomic.Int64 // how long a request may wait: see patience
	standing atomic.Int64
	samples  [sampleShards]sample
	reached  atomic.Bool

	due      atomic.Int64 // when the epoch may end, at the earliest
	since    atomic.Int64 // requests that began before teach nothing: see estimate
	pressing atomic.Int64 // share of requests that waited, in percent, and until when that holds: see Pressure

	mu       sync.Mutex
	pressure pressure
	estimate estimate
	waits    patience
	queue    queue
	most     int // in the queue
	clock    clock.Clock
	base     time.Time
	full     uint64
	late     uint64
}

// New returns a limiter that starts at c.Start. The clock is read only for requests that wait.
func New(c Config, clk clock.Clock) *Limiter {
	or := func(n, other int) int {
		if n == 0 {
			return other
		}
		return n
	}
	l := &Limiter{clock: clk, base: clk.Now(), most: max(or(c.Queue, defaultQueue), 0), waits: patience{lenient: lenient}}
	e := &l.estimate
	e.bounds.floor = float64(max(c.Floor, 1))
	e.bounds.cap = max(float64(or(c.Cap, defaultCap)), e.bounds.floor)
	e.right, e.bounds.held = e.bounds.cap, float64(l.most)/2
	e.set(float64(c.Start), Starting)
	if c.Start == 0 {
		e.release()
	}
	l.publish()
	return l
}

// Claim says for whom a request is let through.
type Claim struct {
	Flow     uint64 // of the consumer: a hash with a secret seed, so that nobody chooses to share one
	Weight   int    // turns beside other flows, 1 to 100
	Priority int    // 0, the highest, to Levels-1
	Shard    uint32 // of the exchange
}

// Ticket is a request that was let through. It must be released once.
type Ticket struct {
	limiter *Limiter
	began   time.Time
	shard   uint32
}

// Began is when the request was let through.
func (t Ticket) Began() time.Time { return t.began }

// Try lets a request through if there is a place and nobody waits for one. It is for those to whom making a claim costs.
func (l *Limiter) Try(now time.Time, shard uint32) (t Ticket, ok bool) {
	if !l.enter() {
		return Ticket{}, false
	}
	return Ticket{l, now, shard}, true
}

// Acquire lets a request through, at once or after a wait that ends when ctx is done. The error is ErrFull, ErrLate or that of
// the context. now is the time of the call.
func (l *Limiter) Acquire(ctx context.Context, now time.Time, c Claim) (Ticket, error) {
	if t, ok := l.Try(now, c.Shard); ok {
		return t, nil
	}
	w, err := l.line(now, c)
	if err != nil {
		return Ticket{}, err
	}
	if err := l.wait(ctx, w); err != nil {
		return Ticket{}, err
	}
	return Ticket{l, l.clock.Now(), c.Shard}, nil
}

// enter takes a place if nobody waits for one.
func (l *Limiter) enter() bool {
	if l.waiting.Load() > 0 {
		return false
	}
	if l.inFlight.Add(1) <= l.limit.Load() {
		return true
	}
	l.inFlight.Add(-1) // who was kept from dispatching by this is made up for by line, which dispatches too
	return false
}

// Release ends the request. now is when the head of the answer came, or it was known that none will.
func (t Ticket) Release(now time.Time, o Outcome) {
	l := t.limiter
	s := &l.samples[t.shard%sampleShards]
	if int64(t.began.Sub(l.base)) >= l.since.Load() {
		s.add(now.Sub(t.began), o)
	}
	s.ended.Add(1)
	l.inFlight.Add(-1)
	at := now.Sub(l.base)
	if l.waiting.Load() == 0 && int64(at) < l.due.Load() {
		return
	}
	l.mu.Lock()
	if l.estimate.began == 0 { // the first epoch begins with the first request, not with the limiter
		l.estimate.began = t.began.Sub(l.base)
	}
	l.settle(at)
	l.mu.Unlock()
}

// settle ends an epoch that is over and lets through whoever has a place.
func (l *Limiter) settle(now time.Duration) {
	l.press(now, 0)
	if l.reached.Load() {
		l.estimate.reached = true
	}
	if now < l.estimate.settled {
		l.estimate.began = now
		l.figures(true)
	} else if l.estimate.due(now, l.figures(false).count()) {
		l.estimate.end(now, l.figures(true), l.inFlight.Load())
		l.reached.Store(false)
		l.publish()
	}
	if l.waits.turn(now, l.ended) {
		l.publish()
	}
	l.due.Store(int64(max(l.estimate.settled, l.estimate.began+l.estimate.least())))
	l.dispatch(now)
}

// figures sums up the shards and, with reset, begins anew. A release between two of the sums is split, which does no harm.
func (l *Limiter) figures(reset bool) (t totals) {
	for i := range l.samples {
		s := &l.samples[i]
		if !reset {
			t.good += s.good.Load()
			t.refused += s.refused.Load()
			t.late += s.late.Load()
			continue
		}
		t.good += s.good.Swap(0)
		t.logs += s.logs.Swap(0)
		t.squares += s.squares.Swap(0)
		t.sum += s.sum.Swap(0)
		t.refused += s.refused.Swap(0)
		t.late += s.late.Swap(0)
	}
	return t
}
