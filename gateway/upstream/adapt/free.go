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
	// skew is how much less the mean logarithm of latencies is than the logarithm of their mean, for an exponential distribution
	// 0.58 and for a constant 0.
	skew = 0.3
	// turning is how many epochs pass, of a latency each, until as many are under way as slower answers make of them.
	turning = 2
	// crowdedUp and stayingUp are baseUp while latency looks like waiting, and there are more under way than before, or not.
	crowdedUp = 0.02
	stayingUp = 0.1
	// quick is up to which latency it is found out how quick the upstream is when nobody waits, once it has come to that: for a
	// moment too little is asked, which lasts some latencies.
	quick = 500 * time.Millisecond
	// calm is how long a limit must not have been reached until there is none.
	calm = 10 * time.Second
)

// room is how many requests may be under way while nothing is limited, when n are.
func (e *estimate) room(n float64) float64 { return min(max(freeRoom, freeTimes*n), e.cap) }

// release ends limiting.
func (e *estimate) release() {
	e.free, e.waits, e.why = true, 0, Free
	e.anchor.limit, e.trial.limit, e.refusals.limit, e.descending = 0, 0, 0, false
}

// roam judges an epoch in which nothing was limited and at whose end n requests are under way. The limit begins with evidence:
// refusals and timeouts, or latency that looks like waiting while ever more requests are under way. It begins where it is
// right, if the baseline is: at as many requests as are under way when throughput is what it was and nobody waits (Little's
// law), and what aim allows besides.
func (e *estimate) roam(now, age time.Duration, t totals, n float64) {
	grew := n > steadyCrowd*e.limit+1
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
	case waiting && e.waits < turning:
		e.waits++
		e.crowd = max(n, e.crowd)
	case waiting && n > crowded*e.crowd+chance*math.Sqrt(e.crowd):
		throughput := float64(t.good) / age.Seconds()
		e.set(throughput*math.Exp(e.base)/1e6*aim, Queueing)
		e.confine(now)
		e.anchor, e.descending = point{n, mean}, inMicroseconds(e.base) < quick
		return
	case !waiting:
		e.waits, e.crowd = 0, 0
	}
	switch {
	case rise < -2*noise: // the lowest of many noisy means would be too low
		e.base += (rise + 2*noise) * baseDown
		e.blur = noise
	case waiting && grew:
		e.base += rise * crowdedUp
	case waiting:
		e.base += rise * stayingUp
	case !grew:
		e.base += rise * baseUp
		e.blur += (noise - e.blur) * baseUp
	}
	e.why = Free
}

// confine begins limiting.
func (e *estimate) confine(now time.Duration) {
	e.free, e.waits, e.right, e.touched = false, 0, e.limit, now
	e.settled = now + e.settling()
}
