// Package guard keeps the gateway alive when more is asked of it than the machine has: it finds the memory that there is,
// makes Go's collector stay below, refuses new exchanges before the kernel would kill the process, and shares one budget of
// connections between all doors.
package guard

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/internal/clock"
	"headgate/internal/metric"
)

// Level is how much is refused.
type Level uint32

// The levels, from none to all that is new.
const (
	Calm  Level = iota // nothing is refused
	Sheds              // new exchanges are answered 503 overloaded
	Shut               // and no connection is accepted
)

// String returns the level as operators see it.
func (l Level) String() string { return [...]string{"calm", "shedding", "shut"}[l] }

// Options are what a guard is made with.
type Options struct {
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics *metric.Registry
	Machine Machine
	Fixed   bool // the operator has set GOMEMLIMIT, which is left alone
	// SetLimit is debug.SetMemoryLimit.
	SetLimit func(int64) int64
	// Collect is debug.FreeOSMemory: it collects garbage and gives memory back to the system.
	Collect func()
}

// Guard watches over one process. A nil Guard lets everything pass.
type Guard struct {
	*Rooms
	options Options
	level   atomic.Uint32
	sheds   *metric.Counter // exchanges
	begun   *metric.Counter // times that it began

	mu       sync.Mutex
	settings model.Limits
	budget   Budget
	goLimit  int64 // of the collector
	before   int64 // the collector's limit before ours
	last     Reading
	since    time.Time // of the level
	why      string
	counted  uint64 // sheds when the level began
	wake     chan struct{}
}

// New returns a guard that lets everything pass until it is configured and runs.
func New(o Options) *Guard {
	g := &Guard{
		Rooms: newRooms(), options: o, wake: make(chan struct{}, 1), before: o.SetLimit(-1), since: o.Clock.Now(),
		sheds: o.Metrics.Counter("headgate_shed_total", "Exchanges refused with 503 overloaded because memory was short."),
		begun: o.Metrics.Counter("headgate_sheddings_total", "Times that the gateway began to refuse because memory was short."),
	}
	o.Metrics.Collect("guard", g.collect)
	return g
}

// Sheds reports whether new exchanges are to be refused. It is asked for each of them.
func (g *Guard) Sheds() bool { return g != nil && Level(g.level.Load()) != Calm }

// Shed counts an exchange that was refused.
func (g *Guard) Shed(shard uint32) { g.sheds.Inc(shard) }

// Configure makes the limits those of a document.
func (g *Guard) Configure(l model.Limits) {
	g.Rooms.setLimit(l.Connections)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settings = l
	g.settle(true)
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// settle finds the budget and makes the collector stay below it. The limits of a container may change while it runs. tell:
// say what the operator should know of it.
func (g *Guard) settle(tell bool) {
	found, err := g.options.Machine.Budget()
	if tell && err != nil && g.settings.Memory == model.MemoryAuto {
		g.options.Log.Info("memory is not watched: how much there is was not found; limits.memory can tell", "error", err)
	}
	budget := g.choose(found)
	if tell && budget.Bytes > 0 && int64(g.settings.Memory) > budget.Bytes {
		g.options.Log.Warn("limits.memory is more than there is", "limit", budget.Bytes, "source", budget.Source)
	}
	known := budget.Bytes == g.budget.Bytes && budget.Source == g.budget.Source
	g.budget = budget
	if known {
		return
	}
	own := share(budget.Bytes, goShare)
	if g.goLimit = own; g.options.Fixed {
		g.goLimit = min(g.before, budget.Bytes) // where it is higher, the budget is met first
	} else if budget.Bytes > 0 {
		g.options.SetLimit(own)
	} else {
		g.options.SetLimit(g.before)
	}
	if budget.Bytes > 0 {
		g.options.Log.Info("memory is watched", "limit", budget.Bytes, "source", budget.Source,
			"go_limit", g.goLimit, "go_limit_by_operator", g.options.Fixed)
	}
}

// choose returns the budget that counts: what the document says, unless there is less.
func (g *Guard) choose(found Budget) Budget {
	m := g.settings.Memory
	switch {
	case m == model.MemoryOff:
		return Budget{}
	case m == model.MemoryAuto, found.Bytes > 0 && found.Bytes < int64(m):
		return found
	}
	return Budget{Bytes: int64(m), Source: "limits.memory"}
}

// share returns so many percent of n.
func share(n int64, percent int64) int64 { return n / 100 * percent }

// Status is what operators see of a guard.
type Status struct {
	State       string            `json:"state"`
	Why         string            `json:"why,omitempty"`
	Since       time.Time         `json:"since"`
	Shed        uint64            `json:"shed"`
	Memory      MemoryStatus      `json:"memory"`
	Connections ConnectionsStatus `json:"connections"`
}

// MemoryStatus is what is watched of memory, in bytes; a limit of 0: none.
type MemoryStatus struct {
	Limit   int64  `json:"limit"`
	Source  string `json:"source,omitempty"`
	Used    int64  `json:"used"`
	Live    int64  `json:"live"`
	GoLimit int64  `json:"go_limit"`
	ShedsAt int64  `json:"sheds_at"`
	EndsAt  int64  `json:"ends_below"`
}

// ConnectionsStatus is the budget that all listeners share; a limit of 0: none.
type ConnectionsStatus struct {
	Limit int64 `json:"limit"`
	Open  int64 `json:"open"`
}

// Status describes the guard.
func (g *Guard) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Status{
		State: Level(g.level.Load()).String(), Why: g.why, Since: g.since, Shed: g.sheds.Value(),
		Memory: MemoryStatus{
			Limit: g.budget.Bytes, Source: g.budget.Source, Used: g.last.Used, Live: g.last.Live, GoLimit: g.goLimit,
			ShedsAt: share(g.budget.Bytes, usedHigh), EndsAt: share(g.budget.Bytes, usedLow),
		},
		Connections: ConnectionsStatus{g.Rooms.limit.Load(), g.Rooms.open.Load()},
	}
}

func (g *Guard) collect(emit metric.Emit) {
	s := g.Status()
	if s.Memory.Limit > 0 {
		emit("headgate_memory_limit_bytes", "Memory that the gateway may use (limits.memory); absent where it is not watched.", metric.TypeGauge,
			float64(s.Memory.Limit))
	}
	emit("headgate_memory_used_bytes", "Memory in use, as the kernel counts it against the limit.", metric.TypeGauge, float64(s.Memory.Used))
	emit("headgate_memory_live_bytes", "Memory in use after the last collection of garbage.", metric.TypeGauge, float64(s.Memory.Live))
	emit("headgate_shedding", "1 while new exchanges are refused because memory is short, 2 while connections wait too.", metric.TypeGauge,
		float64(g.level.Load()))
	emit("headgate_connections_limit", "Connections that may be open through all listeners together; 0: any number.", metric.TypeGauge,
		float64(s.Connections.Limit))
}
