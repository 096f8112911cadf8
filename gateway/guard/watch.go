package guard

import (
	"context"
	"fmt"
	"time"

	"headgate/internal/size"
)

// What happens at which share of the budget, in percent. Go's collector works harder and harder to stay below its limit, so
// what the process uses grows beyond that only when it is really needed; and when most of what is below the limit is
// needed, the collector eats the processors. Between a high mark and its low one nothing changes, so that the answer does
// not flicker.
const (
	goShare  = 80 // Go's limit (GOMEMLIMIT)
	shutAt   = 95 // no connections
	usedHigh = 90 // new exchanges are refused
	usedLow  = 85 // and taken again
	liveHigh = 90 // of Go's limit, needed after a collection: new exchanges are refused
	liveLow  = 75 // and taken again
)

// How often memory is looked at. What fills it at a gigabyte in a second is seen in time where there is some room; near the
// mark it is looked at more often.
const (
	calmPause   = 500 * time.Millisecond
	alertPause  = 100 * time.Millisecond
	alertFrom   = 70 // percent of the budget, or of Go's limit
	settleEvery = 10 * time.Second
)

// While it sheds, the guard collects garbage by itself: nothing else would, when nothing new is asked for, and what was
// freed would never be seen. collectPause is the least time between two, and they take at most one part of collectCost of
// the time, so that collecting does not become the load.
const (
	collectPause = 2 * time.Second
	collectCost  = 20
)

// Run watches until the context is done.
func (g *Guard) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var settled, collected time.Time // the latter: when the next collection may begin
	for {
		select {
		case <-ctx.Done():
			g.to(Calm, "")
			return nil
		case <-timer.C:
		case <-g.wake:
		}
		now := g.options.Clock.Now()
		if now.Sub(settled) >= settleEvery {
			settled = now
			g.mu.Lock()
			g.settle(false)
			g.mu.Unlock()
		}
		pause := g.look()
		if g.Sheds() && !now.Before(collected) {
			g.options.Collect()
			took := g.options.Clock.Now().Sub(now)
			collected = now.Add(max(collectPause, collectCost*took))
		}
		timer.Reset(pause)
	}
}

// look reads the memory, decides, and returns how long it may be until the next look.
func (g *Guard) look() time.Duration {
	g.mu.Lock()
	r := g.options.Machine.Read(g.budget)
	g.last = r
	budget, goLimit := g.budget.Bytes, g.goLimit
	g.mu.Unlock()
	level, why := judge(Level(g.level.Load()), r, budget, goLimit)
	g.to(level, why)
	if level != Calm || budget > 0 && (r.Used >= share(budget, alertFrom) || r.Live >= share(goLimit, alertFrom)) {
		return alertPause
	}
	return calmPause
}

// judge decides by the level that is in force and what was read.
func judge(now Level, r Reading, budget, goLimit int64) (Level, string) {
	if budget == 0 {
		return Calm, ""
	}
	above := func(n, of, percent int64) bool { return n >= share(of, percent) }
	used := fmt.Sprintf("%s of %s are in use", round(r.Used), round(budget))
	switch {
	case above(r.Used, budget, shutAt), now == Shut && above(r.Used, budget, usedHigh):
		return Shut, used
	case above(r.Used, budget, usedHigh), now != Calm && above(r.Used, budget, usedLow):
		return Sheds, used
	case above(r.Live, goLimit, liveHigh), now != Calm && above(r.Live, goLimit, liveLow):
		return Sheds, fmt.Sprintf("Go needs %s after a collection, and may use %s", round(r.Live), round(goLimit))
	}
	return Calm, ""
}

// round prints an amount in whole MiB.
func round(n int64) string { return fmt.Sprintf("%d MiB", (size.Bytes(n)+size.MiB/2)/size.MiB) }

// to puts a level in force.
func (g *Guard) to(level Level, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := Level(g.level.Load())
	if g.why = why; old == level {
		return
	}
	now := g.options.Clock.Now()
	lasted := now.Sub(g.since)
	g.since = now
	g.level.Store(uint32(level))
	g.Rooms.shut(level == Shut)
	log := g.options.Log.With("used", g.last.Used, "limit", g.budget.Bytes, "source", g.budget.Source,
		"live", g.last.Live, "go_limit", g.goLimit)
	switch {
	case level == Calm:
		log.Info("memory suffices again: everything is taken", "after", lasted, "refused", g.sheds.Value()-g.counted)
		return
	case old == Calm:
		g.counted = g.sheds.Value()
		g.begun.Inc(0)
	}
	if level == Shut {
		log.Warn("memory is short: new requests get 503, and new connections wait", "why", why)
		return
	}
	log.Warn("memory is short: new requests get 503", "why", why)
}
