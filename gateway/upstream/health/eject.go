package health

import (
	"fmt"
	"math"
	"time"
)

const (
	// maxFactor bounds how much longer than the first ejection a further one in a row lasts.
	maxFactor = 10
	// maxLevel is the ejection in a row from which on they last longest.
	maxLevel = 5
	// recheck is how soon it is looked again whether another target may be ejected: every failure would ask otherwise.
	recheck = time.Second
)

// pauseOf is how long the n-th ejection in a row lasts.
func (g *Group) pauseOf(n int) time.Duration {
	if n < 1 {
		return 0
	}
	return min(g.rules.For<<(min(n, maxLevel)-1), maxFactor*g.rules.For)
}

// forgiven is how many ejections in a row still count: one is forgiven each time that the target has stayed well for as long
// as the ejection lasted. It is called with the record's lock held.
func (r *Record) forgiven(now time.Duration) int {
	g, level := r.group.Load(), r.level
	for well := now - r.until; level > 0; level-- {
		if well -= g.pauseOf(level); well < 0 {
			break
		}
	}
	return level
}

// eject ejects one target, if the share allows it.
func (g *Group) eject(r *Record, now time.Duration, cause Cause, why func() string) {
	if !r.serving.Load() || now < time.Duration(g.full.Load()) && r.told(now) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now < r.load.EjectedUntil() || g.retired.Load() {
		return // another request was faster
	}
	g.settle(now)
	members := len(*g.members.Load())
	if (len(g.out)+1)*100 > g.rules.MaxShare*members {
		g.full.Store(int64(min(g.soonest, now+recheck)))
		r.hold(now, fmt.Sprintf("would be ejected, but %d of %d targets are, and max_percent is %d: %s",
			len(g.out), members, g.rules.MaxShare, why()))
		return
	}
	text := why()
	r.clean()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.level = min(r.forgiven(now)+1, maxLevel)
	r.pause = g.pauseOf(r.level)
	r.until = now + r.pause
	r.at, r.cause, r.why, r.held = g.env.Clock.Now(), cause, text, ""
	r.back = r.at.Add(r.pause)
	r.ejections++
	r.load.Eject(r.until)
	g.out[r] = struct{}{}
	g.soonest = min(g.soonest, r.until)
	g.count.ejected(cause)
	r.changed(g, now, Change{At: r.at, State: "ejected", Cause: string(cause), Why: text, For: Span(r.pause).String()})
}

// settle notes who has come back by now. It is called with the lock held.
func (g *Group) settle(now time.Duration) {
	if now < g.soonest {
		return
	}
	g.soonest = math.MaxInt64
	for r := range g.out {
		if until := r.load.EjectedUntil(); now < until {
			g.soonest = min(g.soonest, until)
			continue
		}
		delete(g.out, r)
		r.mu.Lock()
		r.changed(g, now, Change{
			At: r.back, State: r.stateAt(now), Cause: "ejection_ended", Why: "its ejection of " + Span(r.pause).String() + " has ended",
		})
		r.mu.Unlock()
	}
}

// release lets those come back who are more than the share allows, since there are fewer targets than there were. Those
// whose time ends first come first. It is called with the lock held.
func (g *Group) release(now time.Duration) {
	members := len(*g.members.Load())
	for len(g.out)*100 > g.rules.MaxShare*members {
		var first *Record
		for r := range g.out {
			if first == nil || r.load.EjectedUntil() < first.load.EjectedUntil() ||
				r.load.EjectedUntil() == first.load.EjectedUntil() && r.name < first.name {
				first = r
			}
		}
		delete(g.out, first)
		first.mu.Lock()
		first.until = now
		first.back = g.env.Clock.Now()
		first.load.Eject(now)
		first.changed(g, now, Change{
			At: first.back, State: first.stateAt(now), Cause: "share",
			Why: fmt.Sprintf("of the %d targets that are left, no more than %d %% may be ejected", members, g.rules.MaxShare),
		})
		first.mu.Unlock()
	}
}

// told reports whether it is known already why the target is not ejected.
func (r *Record) told(now time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held != "" && now-r.heldAt < recheck
}

func (r *Record) hold(now time.Duration, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held, r.heldAt = why, now
}
