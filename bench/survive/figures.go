package survive

import (
	"cmp"
	"math"
	"slices"
	"time"

	"headgate/bench/figure"
	"headgate/bench/load"
)

// Figure names what a scenario measures. Times are in milliseconds, shares in percent.
type Figure string

// What the scenarios measure.
const (
	BeforeP99  Figure = "p99 ms before"
	AfterP50   Figure = "p50 ms after"
	AfterP99   Figure = "p99 ms after"
	AfterP999  Figure = "p99.9 ms after"
	AfterMax   Figure = "max ms after"
	P99Growth  Figure = "p99 after / before"
	SlowShare  Figure = "slow target's share %"
	Failed     Figure = "failed"
	FailedAway Figure = "failed while away"
	AwayP99    Figure = "p99 ms away"
	AwayP999   Figure = "p99.9 ms away"
	AwayMax    Figure = "max ms away"
	FailedBack Figure = "failed when back"
	BackP999   Figure = "p99.9 ms back"
	AskedAgain Figure = "asked again after ms"
	BackShare  Figure = "its share at the end %"
	Goodput    Figure = "goodput / C"
	Learning   Figure = "goodput / C in the first 15 s"
	ServedP50  Figure = "p50 ms served"
	ServedP99  Figure = "p99 ms served"
	ServedTime Figure = "p99 served / service time"
	Refused    Figure = "refused %"
	Told       Figure = "of these 503 with Retry-After %"
	RefusedP50 Figure = "p50 ms refused"
	RefusedP99 Figure = "p99 ms refused"
	Late       Figure = "too late %"
	SmallGood  Figure = "small one served %"
	SmallP99   Figure = "p99 ms small one"
	LargeGood  Figure = "large one served %"
	P50        Figure = "p50 ms"
	P99        Figure = "p99 ms"
	P999       Figure = "p99.9 ms"
	Max        Figure = "max ms"
	ExtraLoad  Figure = "extra load %"
	Sent       Figure = "sent"
)

// Figures is what one gateway did.
type Figures map[Figure]float64

// outcomes are those of one client.
type outcomes []load.Outcome

// due keeps those that were due from then on and before until.
func (o outcomes) due(from, until time.Duration) outcomes {
	return o.where(func(one load.Outcome) bool { return from <= one.Due && one.Due < until })
}

func (o outcomes) where(keep func(load.Outcome) bool) outcomes {
	var kept outcomes
	for _, one := range o {
		if keep(one) {
			kept = append(kept, one)
		}
	}
	return kept
}

func (o outcomes) served() outcomes { return o.where(served) }

func served(one load.Outcome) bool { return one.Status == 200 }

// failed counts those that did not get their answer.
func (o outcomes) failed() float64 { return float64(len(o) - len(o.served())) }

// millis is a percentile of how long they took.
func (o outcomes) millis(q float64) float64 {
	if len(o) == 0 {
		return math.NaN()
	}
	o = slices.Clone(o)
	slices.SortFunc(o, func(a, b load.Outcome) int { return cmp.Compare(a.Took, b.Took) })
	return millis(figure.Percentile(o, q).Took)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percent is part of whole; without a whole it is no number.
func percent(part, whole float64) float64 {
	if whole == 0 {
		return math.NaN()
	}
	return 100 * part / whole
}

// overload says what became of requests above the capacity. An answer after patience counts for nothing: who asked has gone.
// Before from they do not count, but for a figure of their own.
func overload(all outcomes, capacity float64, service, patience, from, lasted time.Duration) Figures {
	before := all.due(0, from).served().where(func(one load.Outcome) bool { return one.Took <= patience })
	o := all.due(from, lasted)
	got := o.served()
	inTime := got.where(func(one load.Outcome) bool { return one.Took <= patience && one.Due+one.Took <= lasted })
	refused := o.where(func(one load.Outcome) bool { return one.Status >= 400 })
	told := refused.where(func(one load.Outcome) bool { return one.Status == 503 && one.RetryAfter })
	late := got.where(func(one load.Outcome) bool { return one.Took > patience })
	n := float64(len(o))
	return Figures{
		Learning:  float64(len(before)) / max(capacity*from.Seconds(), 1),
		Goodput:   float64(len(inTime)) / (capacity * (lasted - from).Seconds()),
		ServedP50: got.millis(0.5), ServedP99: got.millis(0.99), ServedTime: got.millis(0.99) / millis(service),
		Refused: percent(float64(len(refused)), n), Told: percent(float64(len(told)), float64(len(refused))),
		RefusedP50: refused.millis(0.5), RefusedP99: refused.millis(0.99), Late: percent(float64(len(late)), n),
		Failed: float64(len(o) - len(got) - len(refused)),
	}
}

// success is the share that was served in time.
func success(o outcomes, patience time.Duration) float64 {
	inTime := o.where(func(one load.Outcome) bool { return served(one) && one.Took <= patience })
	return percent(float64(len(inTime)), float64(len(o)))
}
