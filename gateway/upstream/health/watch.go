package health

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"headgate/gateway/upstream/pool"
)

// probed is what probes have said, under the record's lock.
type probed struct {
	good, bad  int       // in a row
	last, next time.Time // probes
	err        string    // of the last one
	turned     time.Time // when they took it out
	cause, why string    // that they did
}

// Watch is a target that is probed.
type Watch struct {
	group  *Group
	record *Record
	host   string
	reach  func() *pool.Pool
	due    time.Duration // on the prober's clock
	place  int           // in the queue; -1: in none
	over   bool          // under the prober's lock, as all of these
	cancel context.CancelFunc
	ended  chan struct{} // closed when the probe that runs has ended; nil: none does

	through *pool.Pool // of the probe that runs, or of the last one
	how     asker      // likewise
}

// asker asks one target in one way, over connections of its own. A new one is made when the target's identity changes.
type asker interface {
	ask(ctx context.Context) error
	close()
}

// Watch begins to probe a target, once the group is live, by the host name of its requests ("": its address) and through the
// pool that reach returns at the moment. Without probes in the document nothing is begun, and the Watch may be stopped all
// the same.
func (g *Group) Watch(r *Record, host string, reach func() *pool.Pool) *Watch {
	w := &Watch{group: g, record: r, host: host, reach: reach, place: -1}
	if g.probe != nil {
		g.prober.add(w)
	}
	return w
}

// Stop ends the probes of the target and waits for the one that runs.
func (w *Watch) Stop() { w.group.prober.remove(w) }

// once asks once and notes the answer. It returns when to ask next, from its beginning on.
func (w *Watch) once(ctx context.Context) time.Duration {
	h := w.group.probe
	if to := w.reach(); w.how == nil || to != w.through {
		w.close()
		w.through, w.how = to, w.group.newAsker(to, w.host)
	}
	limited, cancel := context.WithTimeout(ctx, h.Timeout)
	err := w.how.ask(limited)
	cancel()
	if ctx.Err() != nil || w.group.retired.Load() {
		return 0
	}
	w.group.count.probed(err)
	return w.record.probe(w.group, err)
}

func (w *Watch) close() {
	if w.how != nil {
		w.how.close()
	}
}

// probe notes what a probe has said, and returns the pause before the next one, give or take a tenth.
func (r *Record) probe(g *Group, err error) time.Duration {
	now, at := g.env.Now(), g.env.Clock.Now()
	h := g.probe
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.probed
	if p.last, p.err = at, ""; err != nil {
		p.err = err.Error()
		p.bad, p.good = p.bad+1, 0
	} else {
		p.bad, p.good = 0, p.good+1
	}
	switch down := r.load.Down(); {
	case err != nil && !down && p.bad >= h.Unhealthy:
		p.turned, p.cause = at, "probe_"+probeCause(err)
		p.why = fmt.Sprintf("%s failed: %s", inARow(p.bad), p.err)
		r.load.SetDown(now, true)
		r.changed(g, now, Change{At: at, State: unhealthy, Cause: p.cause, Why: p.why})
	case err == nil && down && p.good >= h.Healthy:
		r.load.SetDown(now, false)
		r.changed(g, now, Change{At: at, State: r.stateAt(now), Cause: "probe", Why: inARow(p.good) + " succeeded"})
	}
	pause := h.Interval
	if err != nil || r.load.Down() {
		pause = cmp.Or(h.Sick, h.Interval)
	}
	pause = g.jitter(pause)
	p.next = at.Add(pause)
	return pause
}

func inARow(n int) string {
	if n == 1 {
		return "one probe"
	}
	return fmt.Sprintf("%d probes in a row", n)
}

// unprobed brings a target back that probes had taken out, since there are none any more.
func (r *Record) unprobed(g *Group, now time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probed = probed{}
	if r.load.Down() {
		r.load.SetDown(now, false)
		r.changed(g, now, Change{At: g.env.Clock.Now(), State: r.stateAt(now), Cause: "not_probed", Why: "it is not probed any more"})
	}
}

// jitter moves a pause by up to a tenth in either direction, so that many targets, and many gateways, do not ask in step.
func (g *Group) jitter(pause time.Duration) time.Duration {
	return pause - pause/10 + time.Duration(unit(g.env.Random())*float64(pause)/5)
}

// unit maps to [0, 1).
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }
