package adapt

import (
	"math"
	"time"
)

const (
	// freeRoom is how many requests an upstream gets without having answered any: more than a service that is well keeps
	// under way in the time of its first answers, and what one gets that never answers. freeTimes is how many times of what was
	// under way at the end of an epoch may be in the next one.
	freeRoom  = 1 << 14
	freeTimes = 4
	// freeSamples are enough for an epoch in which nothing is limited: signs of overload are wanted soon.
	freeSamples = 64
	// crowded is how much requests under way have to grow, while latency looks like waiting, for it to be waiting: when answers
	// take longer and nothing else is wrong, their number grows with the latency and then stays (Little's law), while an upstream
	// that gets more than it can do has ever more of them. chance is how many times the root of their number it may vary by itself.
	crowded = 1.5
	chance  = 3
	// steadyCrowd is up to which growth in an epoch their number counts as steady.
	steadyCrowd = 1.05
	// sameCrowd is up to which difference in an epoch it counts as the same.
	sameCrowd = 0.25
	// skew is how much less the mean logarithm of latencies is than the logarithm of their mean, for an exponential distribution
	// 0.58 and for a constant 0.
	skew = 0.3
	// turning is how many epochs pass, of a latency each, until about as many are under way as slower answers make of them.
	turning = 1
	// crowdedUp is baseUp while latency looks like waiting and ever more are under way.
	crowdedUp = 0.02
	// staying is for how many epochs more latency must look like waiting while the same number are under way until that is
	// tested.
	staying = 3
	// longTest is how long a test may take, which is about testLatencies.
	longTest      = 10 * time.Second
	testLatencies = 2
	// proven is how much of a difference the baseline takes up when a test was about slowness: tests may err, too.
	proven = 0.5
	// testPatience is how long a request waits that is held back. Then the test is over, and it goes: nobody is to be refused for
	// the sake of finding out.
	testPatience = longTest
	// quick is up to which latency it is found out how quick the upstream is when nobody waits, once it has come to that: for a
	// moment too little is asked, which lasts some latencies.
	quick = 500 * time.Millisecond
	// calm is how long a limit must not have been reached until there is none.
	calm = 10 * time.Second
)

// phase is what a limiter is at.
type phase uint8

const (
	limited phase = iota
	free          // nothing is limited, and limit is how many were under way when the last epoch ended
	trying        // of these a part is let through, and the others wait
)

// signs are what tells of overload.
type signs struct {
	waits int     // epochs in a row in which latency looked like waiting
	stays int     // of these, the last ones in which as many were under way as before
	crowd float64 // how many were under way when it had looked so for a while
	good  int64   // answers since then
	age   time.Duration
}

// pace is how many were answered in a second.
func (s *signs) pace() float64 { return float64(s.good) / s.age.Seconds() }

// room is how many requests may be under way while nothing is limited, when n are.
func (e *estimate) room(n float64) float64 { return min(max(freeRoom, freeTimes*n), e.bounds.cap) }

// release ends limiting.
func (e *estimate) release() {
	e.phase, e.signs, e.why = free, signs{}, Free
	e.anchor.limit, e.trial.limit, e.refusals.limit, e.descending = 0, 0, 0, false
}

// roam judges an epoch in which nothing was limited and at whose end n requests are under way. Latency that looks like waiting
// while ever more requests are under way is put to a test, and so is one that goes on while their number stays, as it does when
// clients wait for their answers before they ask again. Refusals are no evidence: an upstream that refuses what is too much for it
// is not overloaded. Timeouts are when hardly anything else comes, or what comes is late as well.
func (e *estimate) roam(now, age time.Duration, t totals, n float64) {
	grew, same := n > steadyCrowd*e.limit+1, math.Abs(n-e.limit) <= sameCrowd*e.limit+1
	e.limit = min(max(n, e.bounds.floor), e.bounds.cap)
	late := e.tooMuch(t.share(t.late), t.count())
	if t.good < leastSamples {
		return
	}
	mean, noise := t.mean()
	e.last = mean
	if e.base == 0 {
		// What ends first is what was quick. By Little's law latency is at least what requests have been under way for all of
		// those that ended, of which half of n is the mean while their number grows from nothing.
		e.base, e.blur, e.first = max(mean, math.Log(n/2*age.Seconds()/float64(t.good)*1e6)-skew), noise, mean
		return
	}
	p, rise := point{n, mean, float64(t.good) / age.Seconds()}, mean-e.base
	sure := rise-math.Hypot(noise, e.blur) > math.Log(shrinkAbove)
	waiting := sure || mean-e.first-math.Hypot(noise, e.blur) > math.Log(shrinkAbove) // which is put to a test, and to no more
	if !waiting {
		e.signs = signs{}
	}
	if e.signs.waits >= turning {
		e.signs.good += t.good
		e.signs.age += age
	}
	if !sure && (!waiting || e.signs.age > 0 && !e.testable()) {
		e.first += (mean - e.first) * baseUp
	}
	switch {
	case sure && late:
		e.since = now
		e.begin(now, p, 0)
		return
	case waiting && e.signs.waits < turning:
		e.signs.waits++
		e.signs.crowd = max(n, e.signs.crowd)
	case waiting && same && e.signs.stays >= staying && e.testable():
		e.test(now)
		return
	case waiting && n > crowded*e.signs.crowd+chance*math.Sqrt(e.signs.crowd):
		switch {
		case e.testable():
			e.test(now)
		case sure:
			e.begin(now, p, 0)
		}
		return
	}
	if e.signs.stays++; !waiting || grew || !same {
		e.signs.stays = 0
	}
	switch {
	case rise < -2*noise: // the lowest of many noisy means would be too low
		e.base += (rise + 2*noise) * baseDown
		e.blur = noise
	case sure && grew:
		e.base += rise * crowdedUp
	case !sure && !grew:
		e.base += rise * baseUp
		e.blur += (noise - e.blur) * baseUp
	}
	e.why = Free
}

// testable reports whether a test would be over soon: those who are held back would wait in vain for one that takes longer.
func (e *estimate) testable() bool {
	most := longTest.Seconds() / testLatencies
	return e.limit <= e.signs.pace()*most && e.signs.pace()*most >= leastSamples
}

// test begins to find out what it means that answers take long: half as many are let through, and the others wait, until it shows
// how long those take who meet the half. By Little's law the youngest of all would take as long as the upstream needs to
// answer all: latencies of those that were answered so far tell less, since there were fewer when they began.
func (e *estimate) test(now time.Duration) {
	e.phase, e.anchor = trying, point{e.limit, math.Log(e.limit / e.signs.pace() * 1e6), e.signs.pace()}
	e.set(e.limit-min(e.limit/2, e.bounds.held), Testing)
	e.settled = now + inMicroseconds(e.anchor.latency)
}

// prove judges the epoch of a test. Requests that wait for each other are quicker when fewer are under way, and as many of them
// are answered; a service that is merely slow is as slow as before.
func (e *estimate) prove(now, age time.Duration, t totals, reached bool) {
	if !reached || t.good < leastSamples { // it was only for a moment, or they fail
		e.release()
		return
	}
	mean, noise := t.mean()
	e.last = mean
	p := point{e.limit, t.whole(), float64(t.good) / age.Seconds()}
	if e.anchor.depends(p) < dependent || !p.keeps(e.anchor) {
		e.base += (mean - e.base) * proven
		e.first += (mean - e.first) * proven
		e.blur = noise
		e.release()
		return
	}
	p.latency = mean
	e.begin(now, p, p.limit*mostShrink*mostShrink)
}

// begin lets the limit begin where it is right if the baseline is: at as many requests as are under way when throughput is what
// it is and nobody waits (Little's law), and what aim allows besides; but not at less than least.
func (e *estimate) begin(now time.Duration, p point, least float64) {
	e.set(max(p.pace*math.Exp(e.base)/1e6*aim, least), Queueing)
	e.confine(now)
	e.anchor, e.descending = p, inMicroseconds(e.base) < quick
}

// confine begins limiting.
func (e *estimate) confine(now time.Duration) {
	e.phase, e.signs, e.right, e.touched = limited, signs{}, e.limit, now
	e.settle(now, shrinking)
}
