package tunnel

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
)

// Group is the tunnels of one route: how many are open, and how those before ended. It survives reloads. Its numbers are
// written when a tunnel opens and when it ends, which is seldom enough not to spread them.
type Group struct {
	registry *Registry
	key      groupKey
	uses     int // by snapshots, under the registry's lock
	open     atomic.Int64
	total    atomic.Uint64
	ended    [reasons]atomic.Uint64

	mu        sync.Mutex
	consumers map[string]int // open ones; an entry goes with its last one, so there are never more than tunnels
}

// groupKey names a route.
type groupKey struct{ api, route string }

// Group returns the group of a compiled route. Ask for it while the snapshot is compiled, and Release it when that has
// drained.
func (r *Registry) Group(api, route string) *Group {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := groupKey{api, route}
	g := r.groups[key]
	if g == nil {
		g = &Group{registry: r, key: key, consumers: map[string]int{}}
		r.groups[key] = g
	}
	g.uses++
	return g
}

// Release says that a snapshot has drained. A group that no snapshot has any more is forgotten.
func (g *Group) Release() {
	r := g.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.uses--; g.uses == 0 {
		delete(r.groups, g.key)
	}
}

// Open returns how many tunnels are open, or about to be.
func (g *Group) Open() int64 { return g.open.Load() }

// enter takes a place among at most most, and at most each of the consumer; 0: any number. nil: there was one.
func (g *Group) enter(consumer string, most, each int) *exchange.Code {
	if n := g.open.Add(1); most > 0 && n > int64(most) {
		g.open.Add(-1)
		return &exchange.TooManyUpgrades
	}
	if consumer == "" {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if each > 0 && g.consumers[consumer] >= each {
		g.open.Add(-1)
		return &exchange.TooManyUpgradesOfConsumer
	}
	g.consumers[consumer]++
	return nil
}

// leave gives the place back.
func (g *Group) leave(consumer string) {
	g.open.Add(-1)
	if consumer == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.consumers[consumer]--; g.consumers[consumer] == 0 {
		delete(g.consumers, consumer)
	}
}

// collect shows the numbers of the groups that have had a tunnel.
func (r *Registry) collect(emit metric.Emit) {
	r.mu.Lock()
	groups := slices.Collect(maps.Values(r.groups))
	r.mu.Unlock()
	for _, g := range groups {
		total := g.total.Load()
		if total == 0 {
			continue
		}
		labels := []metric.Label{{Name: "api", Value: g.key.api}, {Name: "route", Value: g.key.route}}
		emit("headgate_upgrades_open", "Connections that are switched to another protocol now, such as WebSockets, and those about to be.",
			metric.TypeGauge, float64(g.open.Load()), labels...)
		emit("headgate_upgrades_total", "Connections that were switched to another protocol.", metric.TypeCounter, float64(total), labels...)
		for why := ClientClosed; why < reasons; why++ {
			if n := g.ended[why].Load(); n > 0 {
				emit("headgate_upgrades_ended_total", "Switched connections that have ended, by the reason.", metric.TypeCounter, float64(n),
					append(slices.Clip(labels), metric.Label{Name: "reason", Value: why.String()})...)
			}
		}
	}
}
