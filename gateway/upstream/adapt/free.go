package adapt

import (
	"math"
	"time"
)

const (
	// freeRoom is how many requests an upstream gets without having answered any: more than a service that is well keeps
	// under way in the time of its first answers, and what one gets that never answers. freeTimes is how many times of what was
	// under way at the end of an epoch may be in the next one.
	freeRoom  = 4096
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
	// turning is how many epochs pass, of a latency each, until as many are under way as slower answers make of them.
	turning = 2
	// crowdedUp is baseUp while latency looks like waiting and ever more are under way.
	crowdedUp = 0.02
	// staying is for how many epochs more latency must look like waiting while the same number are under way until that is
	// tested, and mostHeld how many requests are held back by a test at most.
	staying  = 3
	mostHeld = 300
	// longTest is how long a test and the latency of one answer may be.
	longTest = 10 * time.Second
	// testPatience is how long a request waits that is held back: nobody is to be refused for the sake of finding out.
	testPatience = 30 * time.Second
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
}

// room is how many requests may be under way while nothing is limited, when n are.
func (e *estimate) room(n float64) float64 { return min(max(freeRoom, freeTimes*n), e.cap) }

// release ends limiting.
func (e *estimate) release() {
	e.phase, e.signs, e.why = free, signs{}, Free
	e.anchor.limit, e.trial.limit, e.refusals.limit, e.descending = 0, 0, 0, false
}

// roam judges an epoch in which nothing was limited and at whose end n requests are under way. The limit begins with evidence:
// refusals and timeouts, or latency that looks like waiting while ever more requests are under way. When their number stays, as
// it does when clients wait for their answers before they ask again, it takes a test.
func (e *estimate) roam(now, age time.Duration, t totals, n float64) {
	grew, same := n > steadyCrowd*e.limit+1, math.Abs(n-e.limit) <= sameCrowd*e.limit+1
	e.limit = min(max(n, e.floor), e.cap)
	if share := float64(t.overload) / float64(t.count()); e.tooMuch(share, t.count()) {
		e.confine(now)
		e.refused(share, t.count())
		return
	}
	if t.good < leastSamples {
		return
	}
	mean, noise := t.mean()
	e.last = mean
	if e.base == 0 {
		// What ends first is what was quick. By Little's law latency is at least what requests have been under way for all of
		// those that ended, of which half of n is the mean while their number grows from nothing.
		e.base, e.blur = max(mean, math.Log(n/2*age.Seconds()/float64(t.good)*1e6)-skew), noise
		return
	}
	rise := mean - e.base
	waiting := rise-math.Hypot(noise, e.blur) > math.Log(shrinkAbove)
	switch {
	case waiting && e.signs.waits < turning:
		e.signs.waits++
		e.signs.crowd = max(n, e.signs.crowd)
	case waiting && same && e.signs.stays >= staying && e.testable(t, age):
		e.test(now, mean)
		return
	case waiting && n > crowded*e.signs.crowd+chance*math.Sqrt(e.signs.crowd):
		e.begin(now, age, t, point{n, mean})
		return
	case !waiting:
		e.signs = signs{}
	}
	switch {
	case rise < -2*noise: // the lowest of many noisy means would be too low
		e.base += (rise + 2*noise) * baseDown
		e.blur = noise
	case waiting && grew:
		e.signs.stays = 0
		e.base += rise * crowdedUp
	case waiting && same:
		e.signs.stays++ // then it is tested
	case waiting:
		e.signs.stays = 0
	case !grew:
		e.base += rise * baseUp
		e.blur += (noise - e.blur) * baseUp
	}
	e.why = Free
}

// testable reports whether a test would be over soon: those who are held back would wait in vain for one that takes longer.
func (e *estimate) testable(t totals, age time.Duration) bool {
	return inMicroseconds(e.last) <= longTest && float64(t.good)/age.Seconds()*longTest.Seconds() >= 2*leastSamples
}

// test begins to find out what it means that answers take long while the same number are under way: fewer are let through for
// about two latencies, and the others wait.
func (e *estimate) test(now time.Duration, mean float64) {
	e.phase, e.anchor = trying, point{e.limit, mean}
	e.set(e.limit-min(e.limit/2, mostHeld), Testing)
	e.settled = now + min(inMicroseconds(mean)*3/2, longSettling)
}

// prove judges the epoch of a test. Requests that wait for each other are quicker when fewer are under way, and as many of them
// are answered; a service that is merely slow is as slow as before.
func (e *estimate) prove(now, age time.Duration, t totals, reached bool) {
	if share := float64(t.overload) / float64(t.count()); e.tooMuch(share, t.count()) {
		e.confine(now)
		e.refused(share, t.count())
		return
	}
	if t.good < leastSamples {
		return
	}
	mean, noise := t.mean()
	e.last = mean
	p := point{e.limit, mean}
	switch {
	case !reached:
		e.release()
	case e.anchor.depends(p) < dependent:
		e.base, e.blur = mean, noise
		e.release()
	default:
		e.begin(now, age, t, p)
	}
}

// begin lets the limit begin where it is right if the baseline is: at as many requests as are under way when throughput is what
// it is and nobody waits (Little's law), and what aim allows besides.
func (e *estimate) begin(now, age time.Duration, t totals, p point) {
	e.set(float64(t.good)/age.Seconds()*math.Exp(e.base)/1e6*aim, Queueing)
	e.confine(now)
	e.anchor, e.descending = p, inMicroseconds(e.base) < quick
}

// confine begins limiting.
func (e *estimate) confine(now time.Duration) {
	e.phase, e.signs, e.right, e.touched = limited, signs{}, e.limit, now
	e.settled = now + e.settling()
}
