package adapt

import "time"

const (
	// leastPatience and mostPatience bound how long a request waits in a queue that was empty lately, which is four times the
	// baseline; leastStanding and mostStanding in one that stands, which is half of the baseline.
	leastPatience = 150 * time.Millisecond
	mostPatience  = 2 * time.Second
	leastStanding = 5 * time.Millisecond
	mostStanding  = 500 * time.Millisecond
	// lenient is how long a request may wait in any queue as long as that is enough for nearly all: clients that wait for their
	// answers before they ask again fill a queue to some length and no further, an upstream that stood still goes on, and it is
	// better to be late than refused. While more than refusedShare of the requests are refused all the same, it is halved each
	// stricter; else it is doubled each laxer.
	lenient      = 2 * time.Second
	refusedShare = 0.05
	stricter     = 250 * time.Millisecond
	laxer        = 2 * time.Second
	// stall is the longest time between two events that counts for those who wait. When a machine stands still for a moment, or
	// its clock jumps, nobody has waited in vain.
	stall = 250 * time.Millisecond
)

// patience is how long requests may wait. It is used under the lock.
type patience struct {
	lenient time.Duration
	turned  time.Duration // when lenient was judged last
	refused int64         // since then
	ended   int64         // of all requests, when it was judged last
	seen    time.Duration // the last event
	stalled time.Duration // what does not count, in all
}

// pass is called with each event of those who wait, and returns the time that counts for them.
func (p *patience) pass(now time.Duration) time.Duration {
	p.stalled += max(now-p.seen-stall, 0)
	p.seen = max(now, p.seen)
	return p.seen - p.stalled
}

// turn judges lenient anew when it is time, and reports whether it has changed. ended is how many requests have ended so far.
func (p *patience) turn(now time.Duration, ended func() int64) bool {
	age := now - p.turned
	if age < stricter || p.refused == 0 && (age < laxer || p.lenient == lenient) {
		return false
	}
	was, sum := p.lenient, ended()
	switch many := float64(p.refused) > refusedShare*float64(p.refused+sum-p.ended); {
	case many:
		p.lenient = max(p.lenient/2, leastStanding)
	case age >= laxer:
		p.lenient = min(p.lenient*2, lenient)
	default:
		return false
	}
	p.turned, p.refused, p.ended = now, 0, sum
	return p.lenient != was
}

// allowed is how long requests may wait in a queue that was empty lately, and in one that stands, at an upstream that answers in
// base when it is not busy.
func (p *patience) allowed(base time.Duration) (fresh, standing time.Duration) {
	fresh = max(min(max(4*base, leastPatience), mostPatience), p.lenient)
	return fresh, max(min(max(base/2, leastStanding), mostStanding), p.lenient)
}
