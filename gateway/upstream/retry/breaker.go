package retry

import (
	"sync"
	"sync/atomic"
	"time"
)

// State of a breaker.
type State uint8

// States, in the words of the pattern.
const (
	Closed   State = iota // requests pass
	Open                  // none passes
	HalfOpen              // a few pass, to find out
)

// String returns the state's name.
func (s State) String() string { return [...]string{"closed", "open", "half-open"}[min(s, HalfOpen)] }

// BreakerConfig says when a target is not asked. The zero value has defaults.
type BreakerConfig struct {
	Share  float64       // of failures in the window that opens it; 0: 0.5
	Least  int64         // requests in the window for the share to count; 0: 20
	Span   time.Duration // of the window; 0: 10 s
	Pause  time.Duration // while it is open, the first time; doubled each time in a row up to maxPauses times; 0: 5 s
	Probes int64         // that must succeed, and may be under way, half open; 0: 3
}

const (
	// maxPauses bounds how much longer each further opening in a row lasts.
	maxPauses = 16
	// lostProbe is after how many pauses a probe that has told nothing is given up, so that a lost one closes nothing for ever.
	lostProbe = 4
)

// Breaker keeps requests from a target that fails. While it is closed a request writes the counts of its shard and reads one
// word; the lock is for changes of state and for probes.
type Breaker struct {
	c      BreakerConfig
	state  atomic.Uint32
	window window

	mu      sync.Mutex
	until   time.Duration // open until, or half open since
	times   int           // opened in a row
	since   time.Duration // when the state began
	probing int64         // under way
	good    int64         // probes that have succeeded
	round   uint32        // of probes, so that those of an earlier one count no more

	openings uint64
}

// Pass is the leave to ask. The zero value is that of a closed breaker.
type Pass struct{ round uint32 }

// NewBreaker returns a closed breaker.
func NewBreaker(c BreakerConfig) *Breaker {
	if c.Share <= 0 {
		c.Share = .5
	}
	if c.Least <= 0 {
		c.Least = 20
	}
	if c.Span < slots {
		c.Span = 10 * time.Second
	}
	if c.Pause <= 0 {
		c.Pause = 5 * time.Second
	}
	if c.Probes <= 0 {
		c.Probes = 3
	}
	return &Breaker{c: c, window: window{span: c.Span}}
}

// State returns the state, for people to look at.
func (b *Breaker) State() State { return State(b.state.Load()) }

// BreakerStatus is what a breaker knows, for people to look at. Times are on the clock of Allow.
type BreakerStatus struct {
	State    State
	Since    time.Duration // that it is in this state
	Until    time.Duration // open: when the first probe may pass
	Failed   int64         // in the window, closed
	Requests int64         // in the window, closed
	Good     int64         // probes that have succeeded, half open
	Openings uint64        // so far
	InRow    int           // openings since it was closed last
}

// Status returns the figures of now.
func (b *Breaker) Status(now time.Duration) BreakerStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := BreakerStatus{State: b.State(), Since: b.since, Openings: b.openings, InRow: b.times}
	switch s.State {
	case Closed:
		good, bad := b.window.sum(now)
		s.Failed, s.Requests = bad, good+bad
	case Open:
		s.Until = b.until
	case HalfOpen:
		s.Good = b.good
	}
	return s
}

// Left returns how long it stays open; 0: it is not, or a probe may pass.
func (b *Breaker) Left(now time.Duration) time.Duration {
	if b.State() == Closed {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.State() != Open {
		return 0
	}
	return max(b.until-now, 0)
}

// Allow returns whether the target may be asked now. Each pass that is given must be handed to Record or to Forget.
func (b *Breaker) Allow(now time.Duration) (Pass, bool) {
	if b.State() == Closed {
		return Pass{}, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.State() {
	case Closed:
		return Pass{}, true
	case Open:
		if now < b.until {
			return Pass{}, false
		}
		b.halfOpen(now)
	default:
		if b.probing >= b.c.Probes && now-b.until > lostProbe*b.c.Pause {
			b.halfOpen(now)
		}
	}
	if b.probing >= b.c.Probes {
		return Pass{}, false
	}
	b.probing++
	return Pass{b.round}, true
}

func (b *Breaker) halfOpen(now time.Duration) {
	b.state.Store(uint32(HalfOpen))
	b.since, b.until, b.probing, b.good = now, now, 0, 0
	b.round++
}

// Record tells how a request went that was allowed.
func (b *Breaker) Record(shard uint32, now time.Duration, p Pass, failed bool) {
	if p.round != 0 {
		b.probed(now, p, failed)
		return
	}
	if b.State() != Closed {
		return // it began before; the probes decide now
	}
	kind := 0
	if failed {
		kind = 1
	}
	b.window.add(shard, now, kind, 1)
	if failed {
		b.consider(now)
	}
}

// Forget gives back a pass that taught nothing, such as that of a client who went away.
func (b *Breaker) Forget(p Pass) {
	if p.round == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.round == b.round && b.State() == HalfOpen {
		b.probing--
	}
}

// consider opens the breaker when too much fails.
func (b *Breaker) consider(now time.Duration) {
	good, bad := b.window.sum(now)
	if good+bad < b.c.Least || float64(bad) < b.c.Share*float64(good+bad) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.State() == Closed {
		b.open(now)
	}
}

func (b *Breaker) open(now time.Duration) {
	b.until = now + b.c.Pause*time.Duration(min(1<<min(b.times, 30), maxPauses))
	b.times++
	b.openings++
	b.since = now
	b.state.Store(uint32(Open))
}

// probed counts a probe: one failure opens the breaker again, enough successes close it.
func (b *Breaker) probed(now time.Duration, p Pass, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case p.round != b.round || b.State() != HalfOpen:
	case failed:
		b.open(now)
	default:
		// It frees no place: one round is so many probes, so that no flood of them follows the first that succeeds.
		if b.good++; b.good >= b.c.Probes {
			b.window.reset()
			b.times, b.since = 0, now
			b.state.Store(uint32(Closed))
		}
	}
}
