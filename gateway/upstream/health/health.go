// Package health judges targets: by what requests show about them (ejection) and by what probes are told. What it knows
// about a target is its Record; an upstream's records are a Group. A judgement reaches the balancer through balance.Load and
// people through Status, each change with its moment, its cause in words with numbers, and what comes next.
//
// A request that goes well costs a Record three reads and no write. Only a target that has failed lately, or was slow, is
// counted at all: the share of failures is that of the requests since the first failure of the last ten seconds.
//
// Probes and requests are believed independently: a target that its requests have ejected stays out for its time whatever
// its probes say, since there are health endpoints that always answer 200; and one that its probes have taken out stays out
// until they succeed.
//
// Records outlive the group: when a document changes an upstream, the new group takes them over (Inherit, then Live).
package health

import (
	"log/slog"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/gateway/upstream/balance"
	"headgate/internal/clock"
	"headgate/internal/metric"
)

const (
	// remembered is how long a target that is gone is remembered, so that one that comes and goes does not shed its past.
	remembered = time.Minute
	// maxRemembered bounds the targets that are remembered: discovery may replace thousands at once, again and again.
	maxRemembered = 4096
)

// Env is what a group needs from outside.
type Env struct {
	Upstream string               // its name
	Now      func() time.Duration // the clock of balance.Query.Now: only moves forward, and may be coarse
	Clock    clock.Clock          // for the moments that people read, and for the pace of probes
	Random   func() uint64        // uniform
	Log      *slog.Logger
	Metrics  *metric.Registry
}

// Group is the health of the targets of one upstream. All methods are safe for concurrent use.
type Group struct {
	env    Env
	rules  model.Ejection
	probe  *model.Health // nil: targets are not probed
	expect *expectation
	log    journal
	count  counters

	members atomic.Pointer[[]*Record] // that take requests
	full    atomic.Int64              // until when no more may be ejected
	weighed atomic.Int64              // when latencies were compared
	retired atomic.Bool               // another group has taken the records over

	mu      sync.Mutex
	known   map[string]*Record
	out     map[*Record]struct{} // ejected
	soonest time.Duration        // when the first of them comes back; MaxInt64: nobody is out
	gone    map[string]departed
	from    *Group // whose records these are, until Live

	prober prober
}

// departed is a target that is gone, and since when.
type departed struct {
	record *Record
	at     time.Duration
}

// New returns the health of targets that are yet to join. The document's sections have been checked (Check).
func New(h *model.Health, e model.Ejection, env Env) (*Group, error) {
	g := &Group{
		env: env, rules: e, probe: h, known: map[string]*Record{}, out: map[*Record]struct{}{}, gone: map[string]departed{},
	}
	g.members.Store(new([]*Record))
	if h != nil {
		var err error
		if g.expect, err = compile(h.Expect); err != nil {
			return nil, err
		}
	}
	g.log = journal{log: env.Log}
	g.count = newCounters(env.Metrics, env.Upstream)
	g.prober.init(g)
	return g, nil
}

// Join returns the record of a target by its name, which tells it apart from all others: the one that is known, or
// remembered, or one with a fresh load. People are told its address.
func (g *Group) Join(name, address string, fresh func() *balance.Load) *Record {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.known[name]; r != nil {
		return r
	}
	var r *Record
	if was, ok := g.gone[name]; ok && g.env.Now()-was.at <= remembered {
		r = was.record
	} else {
		r = &Record{name: name, address: address, load: fresh()}
		r.slow.Store(math.MaxInt64)
	}
	delete(g.gone, name)
	if g.from == nil || r.group.Load() == nil {
		r.group.Store(g)
	}
	g.known[name] = r
	return r
}

// Leave notes that a target is gone. It is remembered for a minute.
func (g *Group) Leave(r *Record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known[r.name] != r {
		return
	}
	delete(g.known, r.name)
	delete(g.out, r)
	now := g.env.Now()
	g.forget(now)
	if len(g.gone) < maxRemembered && r.past(now) {
		g.gone[r.name] = departed{r, now}
	}
}

// forget drops those who are gone for long. It is called with the lock held.
func (g *Group) forget(now time.Duration) {
	for name, d := range g.gone {
		if now-d.at > remembered {
			delete(g.gone, name)
		}
	}
}

// Members says which targets take requests: only they are ejected, and count for the share that may be. When those who are
// left are so few that more than the share is out, those whose time ends first come back.
func (g *Group) Members(list []*Record) {
	g.members.Store(&list)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.from == nil && !g.retired.Load() { // else the records are another group's
		g.recount(g.env.Now())
	}
}

// recount finds who takes requests and who of these is out, and keeps to the share. It is called with the lock held.
func (g *Group) recount(now time.Duration) {
	for _, r := range g.known {
		r.serving.Store(false)
	}
	g.full.Store(0)
	clear(g.out)
	g.soonest = math.MaxInt64
	for _, r := range *g.members.Load() {
		r.serving.Store(true)
		if until := r.load.EjectedUntil(); now < until {
			g.out[r] = struct{}{}
			g.soonest = min(g.soonest, until)
		}
	}
	g.release(now)
}

// Inherit takes over the records of the group that serves now, for targets of the same name: Join returns them from now on,
// also to those who have joined before. Nothing changes for the old group before Live is called; when that is never called,
// nothing has happened.
func (g *Group) Inherit(old *Group) {
	old.mu.Lock()
	heirs, now := maps.Clone(old.gone), old.env.Now()
	for name, r := range old.known {
		heirs[name] = departed{r, now}
	}
	old.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, d := range heirs {
		if g.known[name] != nil {
			g.known[name] = d.record
			delete(heirs, name)
		}
	}
	g.gone, g.from = heirs, old
}

// Live begins what runs beside the requests, and makes the records that were inherited this group's own: the old group's
// probes end, and what its last requests show is judged by this group's rules.
func (g *Group) Live() {
	g.mu.Lock()
	old, now := g.from, g.env.Now()
	g.from = nil
	if old != nil {
		old.retired.Store(true)
		old.prober.cancel()
		for name, d := range g.gone {
			if !d.record.past(now) || len(g.gone) > maxRemembered {
				delete(g.gone, name)
			}
		}
		for _, r := range g.known {
			r.group.Store(g)
			if g.probe == nil {
				r.unprobed(g, now)
			}
		}
		g.recount(now)
	}
	g.mu.Unlock()
	g.prober.start()
}

// Close ends the probes and waits for them.
func (g *Group) Close() { g.prober.stop() }

// Tidy does what comes due while nobody asks; it is called every few seconds.
func (g *Group) Tidy() {
	if g.retired.Load() {
		return
	}
	now := g.env.Now()
	g.mu.Lock()
	g.settle(now)
	g.forget(now)
	g.mu.Unlock()
	g.weigh(now)
}

// AnyAvailable reports whether a target that takes requests is neither ejected nor down.
func (g *Group) AnyAvailable(now time.Duration) bool {
	for _, r := range *g.members.Load() {
		if r.load.Available(now) {
			return true
		}
	}
	return false
}
