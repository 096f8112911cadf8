package adapt

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	growBelow   = 1.3  // times the baseline: there is room for more
	shrinkAbove = 2.0  // times the baseline: requests wait for each other
	aim         = 1.6  // times the baseline: where shrinking leads to
	growth      = 1.25 // each epoch; less than shrinkAbove / growBelow, so that one step never leads from one side to the other
	mostShrink  = 0.5  // each epoch
	// overloadShare is the share of requests refused or timed out from which the limit shrinks.
	overloadShare = 0.1
	// muchLess is how far the limit must have come down for a judgement whether refusals depend on it, sameShare from which part
	// of the share on they do not, and mostTolerated the greatest share of which that is believed.
	muchLess      = 0.5
	sameShare     = 0.7
	mostTolerated = 0.6
	// tolerance is how much of a difference each epoch in which fewer are refused takes off what is tolerated.
	tolerance = 0.1
	// regrowth is the growth each epoch below half of the limit that was right before: after an outage.
	regrowth = 2.0
	// epochSamples are enough for a mean that is right to about a tenth; with a small limit samplesPerPlace for each place are,
	// for the sake of growing soon.
	epochSamples    = 120
	samplesPerPlace = 8
	// leastSamples end an epoch that lasts too long.
	leastSamples = 16
	// shortEpoch and longEpoch bound how long an epoch lasts: short ones would judge a limit before it shows effect.
	shortEpoch = 20 * time.Millisecond
	longEpoch  = 2 * time.Second
	// settling is how many mean latencies pass after the limit has grown before latencies count: those of requests that began
	// under the old limit would have it changed again for the same reason. After it has shrunk less than one passes until no more
	// are under way than may be, and a shorter one until those have ended that met them.
	settling     = 3
	shrinking    = 1.5
	longSettling = 10 * time.Second
	// baseDown and baseUp are how much of a difference the baseline takes up each epoch when no evidence is needed.
	baseDown = 0.5
	baseUp   = 0.2
	// halved is how far the limit must have come down for a judgement whether latency depends on it, and dependent the least
	// exponent of latency over limit that means queueing (1 would be nothing but queueing, 0 none).
	halved    = 0.55
	dependent = 0.5
	// samePace is which part of the throughput has to be left for it to be the same: an upstream whose requests do not wait for
	// each other gives half when it is asked half.
	samePace = 0.75
	// tick is the unit in which logarithms of latencies are summed up.
	tick = 1 << 20
	// sampleShards is how many places the figures of an epoch are spread over.
	sampleShards = 8
)

// sample is one shard's part of the figures of an epoch.
type sample struct {
	good    atomic.Int64 // latencies
	logs    atomic.Int64 // sum of their logarithms, of microseconds, in units of 1 / tick
	squares atomic.Int64 // sum of the squares of the logarithms, in the same units
	sum     atomic.Int64 // of the latencies, in microseconds
	refused atomic.Int64
	late    atomic.Int64 // did not come in time
	ended   atomic.Int64 // of all kinds, since the beginning
	_       [16]byte
}

func (s *sample) add(took time.Duration, o Outcome) {
	switch o {
	case Served:
		s.good.Add(1)
		micros := max(float64(took)/float64(time.Microsecond), 1)
		log := math.Log(micros)
		s.sum.Add(int64(micros))
		s.logs.Add(int64(log * tick))
		s.squares.Add(int64(log * log * tick))
	case Refused:
		s.refused.Add(1)
	case TimedOut:
		s.late.Add(1)
	}
}

// totals are the figures of an epoch.
type totals struct{ good, logs, squares, sum, refused, late int64 }

func (t totals) count() int64 { return t.good + t.overload() }

// overload is how many were refused or timed out.
func (t totals) overload() int64 { return t.refused + t.late }

func (t totals) share(n int64) float64 { return float64(n) / float64(max(t.count(), 1)) }

// mean returns the mean logarithm of the latencies and its standard error.
func (t totals) mean() (mean, deviation float64) {
	n := float64(max(t.good, 1))
	mean = float64(t.logs) / tick / n
	return mean, math.Sqrt(max(float64(t.squares)/tick/n-mean*mean, 0) / n)
}

// whole returns the logarithm of the mean of the latencies, which is what Little's law is about.
func (t totals) whole() float64 { return math.Log(float64(max(t.sum, 1)) / float64(max(t.good, 1))) }

// point is a limit, the latency that it led to, and how many good answers a second.
type point struct{ limit, latency, pace float64 }

// depends returns the exponent of latency over limit between two points: 0 when the limit makes no difference, 1 when all that
// it adds is queueing.
func (p point) depends(q point) float64 {
	if p.limit == q.limit {
		return 0
	}
	return (p.latency - q.latency) / math.Log(p.limit/q.limit)
}

// keeps reports whether about as many were answered as at q: the upstream is as busy as before.
func (p point) keeps(q point) bool { return p.pace >= samePace*q.pace }

// bounds are the least and the greatest limit, and how many requests a test may hold back.
type bounds struct{ floor, cap, held float64 }

// estimate is the limit and what it rests on; it is used under a lock. Latencies are logarithms.
type estimate struct {
	bounds     bounds
	limit      float64
	base       float64 // of the baseline; 0: not known
	first      float64 // what the first answers took, which may be too little: what ends first is what was quick
	blur       float64 // standard error of the baseline: of one found with few requests much is forgiven
	last       float64 // of the last epoch
	right      float64 // the last limit that was found to be right
	settled    time.Duration
	began      time.Duration
	anchor     point         // where shrinking began; limit 0: it does not shrink
	trial      point         // where growing began that will show whether the baseline is one; limit 0: it is
	descending bool          // it has shown that it is not
	reached    bool          // the limit was, in this epoch
	since      time.Duration // requests that began before teach nothing: they met a heap of others
	why        Reason
	phase      phase
	signs      signs         // of overload, while nothing is limited
	touched    time.Duration // when an epoch ended last in which the limit was reached
	refusals   point         // where shrinking because of refusals began, with their share for a latency; limit 0: it does not shrink
	tolerated  float64       // share of refusals that does not depend on the limit
}

// Reason says what the last change of the limit was about.
type Reason string

// Reasons, as /status shows them.
const (
	Starting Reason = "no epoch has ended yet"
	Free     Reason = "there are no signs of overload"
	Testing  Reason = "answers take long: it is found out whether requests wait for each other"
	Unused   Reason = "the limit was not reached"
	Growing  Reason = "reached, and latency is at the baseline"
	Steady   Reason = "reached, and latency is near the baseline"
	Queueing Reason = "requests wait for each other at the upstream"
	Refusing Reason = "the upstream refuses requests or does not answer in time"
)

// due reports whether an epoch with as many samples is over.
func (e *estimate) due(now time.Duration, samples int64) bool {
	age := now - e.began
	most := int64(epochSamples)
	if e.phase == free {
		most = freeSamples
	}
	if e.phase == trying {
		most = max(most, int64(e.limit/4))
	}
	enough := min(max(int64(e.limit)*samplesPerPlace, leastSamples), most)
	return age >= e.least() && samples >= enough || age >= longEpoch && samples >= leastSamples
}

// least is how long an epoch lasts at least.
func (e *estimate) least() time.Duration {
	return max(shortEpoch, min(longEpoch, inMicroseconds(e.last)))
}

func inMicroseconds(log float64) time.Duration {
	return time.Duration(math.Exp(log) * float64(time.Microsecond))
}

// end judges an epoch at whose end so many requests are under way.
func (e *estimate) end(now time.Duration, t totals, inFlight int64) {
	reached, age := e.reached, now-e.began
	e.began, e.reached = now, false
	switch e.phase {
	case free:
		e.roam(now, age, t, float64(inFlight))
		return
	case trying:
		e.prove(now, age, t, reached)
		return
	}
	if reached {
		e.touched = now
	}
	if e.bounds.floor < e.bounds.cap && (t.share(t.late) > mostTolerated || now-e.touched >= calm) {
		e.release()
		return
	}
	if e.refused(t.share(t.overload()), t.count()) {
		e.anchor.limit = 0 // refusals say nothing about how latency depends on the limit
		return
	}
	if t.good < leastSamples {
		return
	}
	mean, noise := t.mean()
	fresh := e.last == 0
	e.last = mean
	if fresh {
		e.settle(now, settling) // what ends first is what was quick
		return
	}
	p := point{e.limit, mean, float64(t.good) / age.Seconds()}
	if !e.doubt(p, noise, reached) && !e.descend(p, noise) {
		e.adjust(p, noise, reached, t.overload() > 0)
	}
	switch e.settled = 0; {
	case e.limit > p.limit:
		e.settle(now, settling)
	case e.limit < p.limit:
		e.settle(now, shrinking)
	}
}

// adjust moves the baseline and the limit.
func (e *estimate) adjust(p point, noise float64, reached, refused bool) {
	e.relearn(p, noise)
	switch rise := p.latency - e.base; {
	case !reached:
		e.base += rise * baseUp
		e.blur += (noise - e.blur) * baseUp
	case rise < -2*noise: // the lowest of many noisy means would be too low
		e.base += (rise + 2*noise) * baseDown
		e.blur = noise
	}
	e.judge(p, noise, reached, refused)
}

// refused judges the share of refusals and timeouts, and reports whether the limit shrinks because of them. A share that stays
// the same when there is much less for the upstream to do is not about overload, such as a quota of one consumer or a path
// that hangs: it is tolerated from then on, and the limit is what it was. Where nearly everything fails nothing is
// concluded, and little is asked.
func (e *estimate) refused(share float64, of int64) bool {
	if !e.tooMuch(share, of) {
		e.refusals.limit = 0
		e.tolerated += min(share-e.tolerated, 0) * tolerance
		return false
	}
	switch r := &e.refusals; {
	case r.limit == 0:
		*r = point{limit: e.limit, latency: share}
	case e.limit <= max(r.limit*muchLess, e.bounds.floor) && share < mostTolerated && share > r.latency*sameShare:
		e.tolerated = share
		e.set(r.limit, Refusing)
		r.limit = 0
		return true
	case share < r.latency*sameShare:
		*r = point{limit: e.limit, latency: share}
	}
	e.set(e.limit*max(mostShrink, 1-share), Refusing)
	return true
}

// settle lets latencies not count for so many times the last one.
func (e *estimate) settle(now time.Duration, times float64) {
	e.settled = now + min(time.Duration(times*float64(inMicroseconds(e.last))), longSettling)
}

// tooMuch reports whether a share of refusals is more than is tolerated, whatever chance adds to it.
func (e *estimate) tooMuch(share float64, of int64) bool {
	return share > e.tolerated+overloadShare+2*math.Sqrt(share*(1-share)/float64(of))
}

// doubt begins a trial when a baseline was found under load, at the start or because the upstream has become much quicker: our
// requests may have waited for each other then. The limit grows, and if latency grows with it they have.
func (e *estimate) doubt(p point, noise float64, reached bool) bool {
	mean := p.latency
	if e.base == 0 && !reached {
		e.base, e.blur = mean, noise
	}
	if e.descending || e.trial.limit != 0 || !reached || e.base != 0 && mean > e.base-math.Log(shrinkAbove) {
		return false
	}
	e.base, e.blur, e.trial, e.anchor.limit = mean, noise, p, 0
	e.set(e.limit*regrowth, Growing)
	return true
}

// descend judges a trial and, when latency has grown with the limit, halves the limit as long as that makes it quicker; the
// last latency is the baseline. Until the last step nothing is lost, since the upstream is busy all the time.
func (e *estimate) descend(p point, noise float64) bool {
	switch {
	case e.trial.limit != 0:
		if p.depends(e.trial) < dependent {
			e.trial.limit = 0
			return false
		}
		e.anchor, e.descending, e.trial.limit = e.trial, true, 0
		e.set(e.anchor.limit*mostShrink, Queueing)
		return true
	case !e.descending:
		return false
	}
	if p.latency < e.base {
		e.base, e.blur = p.latency, noise
	}
	if p.limit > e.bounds.floor && e.anchor.depends(p) >= dependent && p.keeps(e.anchor) {
		e.anchor = p
		e.set(p.limit*mostShrink, Queueing)
		return true
	}
	e.descending, e.right = false, p.limit
	if !p.keeps(e.anchor) {
		e.right = min(p.limit*regrowth, e.anchor.limit)
		e.set(e.right, Growing)
	}
	e.anchor.limit = 0
	return false
}

// judge moves the limit to where latency is near the baseline.
func (e *estimate) judge(p point, noise float64, reached, refused bool) {
	ratio := math.Exp(p.latency - math.Hypot(noise, e.blur) - e.base)
	switch {
	case ratio > shrinkAbove && (reached || refused):
		if e.anchor.limit == 0 {
			e.anchor = p
		}
		e.set(e.limit*max(mostShrink, aim/ratio), Queueing)
		return
	case !reached:
		e.why = Unused
	case ratio < growBelow && e.limit < e.right/regrowth:
		e.set(e.limit*regrowth, Growing)
	case ratio < growBelow:
		e.right = e.limit
		e.set(max(e.limit*growth, e.limit+1), Growing)
	default: // it may be on its way down by small steps: the anchor stays
		e.right, e.why = e.limit, Steady
		return
	}
	e.anchor.limit = 0
}

// relearn raises the baseline once the limit has come down far enough, or can come down no further, and the latency has not.
func (e *estimate) relearn(p point, noise float64) {
	a := &e.anchor
	if a.limit == 0 || e.limit > a.limit*halved && e.limit > e.bounds.floor {
		return
	}
	if a.depends(p) < dependent { // at the floor there is nothing left that could wait for each other
		e.base, e.blur = e.last, noise
	}
	*a = p
}

func (e *estimate) set(limit float64, why Reason) {
	e.limit, e.why = min(max(limit, e.bounds.floor), e.bounds.cap), why
}
