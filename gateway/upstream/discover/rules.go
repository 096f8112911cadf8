package discover

import (
	"cmp"
	"slices"
	"time"
)

// Rules say when an answer is not followed at once.
type Rules struct {
	MaxRemoval int           // percent of more than keepFrom targets that may go at once
	Hold       time.Duration // how long more than that are held
}

const (
	// smallSet is the number of targets up to which all of them may be replaced at once.
	smallSet = 2
	// flapWindow is how long it is remembered that a target went; one that comes back within it flaps.
	flapWindow = 5 * time.Minute
	// flapHold is how much longer a target stays that has come back once; it doubles with each further time.
	flapHold = 10 * time.Second
	// maxFlapHold is the longest.
	maxFlapHold = 2 * time.Minute
	// maxFlaps bounds what is remembered of targets that went: a source that names new ones all the time is forgotten.
	maxFlaps = 2 * MaxTargets
)

// flap is what is remembered of a target that went.
type flap struct {
	times int // it came back
	last  time.Time
}

// view is the targets as they are used, and what was answered. It is arithmetic: it knows no clock and no source.
type view struct {
	rules   Rules
	current map[string]Target
	answer  []Target             // the last good one
	missing map[string]time.Time // targets in use that the answer lacks, since when
	flaps   map[string]flap
	since   time.Time // since when targets are held; zero: they are not
	base    int       // how many there were then
	last    time.Time // when it was judged
}

func newView(rules Rules, known []Target) *view {
	v := &view{rules: rules, current: map[string]Target{}, missing: map[string]time.Time{}, flaps: map[string]flap{}}
	for _, t := range known {
		v.current[t.Address] = t
	}
	v.answer = known
	return v
}

// verdict is what follows from an answer.
type verdict struct {
	targets []Target
	held    int       // that should go, and would be too many at once
	damped  int       // that should go, and have come back too often
	wake    time.Time // when to judge again without another answer; zero: never
}

// judge brings the view to what the last answer and the time allow.
func (v *view) judge(now time.Time) (out verdict) {
	if now.Before(v.last) {
		v.rebase(now.Sub(v.last))
	}
	v.last = now
	were := len(v.current)
	v.arrive(now)
	holding, over := v.holding(now, were)
	if holding {
		out.held, out.wake = len(v.missing), v.since.Add(v.rules.Hold)
	}
	for address, since := range v.missing {
		if holding {
			break
		}
		if until := since.Add(v.patience(address)); !over && now.Before(until) {
			out.damped++
			if out.wake.IsZero() || until.Before(out.wake) {
				out.wake = until
			}
			continue
		}
		delete(v.current, address)
		delete(v.missing, address)
		if len(v.flaps) < maxFlaps {
			v.flaps[address] = flap{v.flaps[address].times, now}
		}
	}
	for _, t := range v.current {
		out.targets = append(out.targets, t)
	}
	slices.SortFunc(out.targets, func(a, b Target) int { return cmp.Compare(a.Address, b.Address) })
	return out
}

// rebase moves what is remembered along with a clock that was set back: nothing waits longer for that.
func (v *view) rebase(by time.Duration) {
	for address, since := range v.missing {
		v.missing[address] = since.Add(by)
	}
	for address, f := range v.flaps {
		v.flaps[address] = flap{f.times, f.last.Add(by)}
	}
	if !v.since.IsZero() {
		v.since = v.since.Add(by)
	}
}

// arrive takes in what the answer has and notes what it lacks.
func (v *view) arrive(now time.Time) {
	for address, f := range v.flaps {
		if now.Sub(f.last) >= flapWindow {
			delete(v.flaps, address)
		}
	}
	named := make(map[string]bool, len(v.answer))
	for _, t := range v.answer {
		named[t.Address] = true
		_, used := v.current[t.Address]
		_, lacked := v.missing[t.Address]
		if f, went := v.flaps[t.Address]; went && (!used || lacked) {
			v.flaps[t.Address] = flap{f.times + 1, now}
		}
		delete(v.missing, t.Address)
		v.current[t.Address] = t
	}
	for address := range v.current {
		if _, known := v.missing[address]; !known && !named[address] {
			v.missing[address] = now
		}
	}
}

// holding reports whether so much would go that it waits, or has waited for long enough. were is the number of targets
// before the answer.
func (v *view) holding(now time.Time, were int) (holding, over bool) {
	if !v.since.IsZero() {
		were = v.base
	}
	if were <= smallSet || len(v.missing)*100 <= v.rules.MaxRemoval*were {
		v.since = time.Time{}
		return false, false
	}
	if v.since.IsZero() {
		v.since, v.base = now, were
	}
	if now.Sub(v.since) >= v.rules.Hold {
		v.since = time.Time{}
		return false, true
	}
	return true, false
}

// patience is how long a target that is missing stays.
func (v *view) patience(address string) time.Duration {
	times := v.flaps[address].times
	if times == 0 {
		return 0
	}
	return min(flapHold<<min(times-1, 8), maxFlapHold)
}
