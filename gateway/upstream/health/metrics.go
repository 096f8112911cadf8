package health

import (
	"time"

	"headgate/internal/metric"
)

// counters count what happens to the targets of one upstream.
type counters struct {
	registry *metric.Registry
	upstream metric.Label
}

func newCounters(registry *metric.Registry, upstream string) counters {
	return counters{registry, metric.Label{Name: "upstream", Value: upstream}}
}

func (c counters) ejected(cause Cause) {
	c.registry.Counter("headgate_upstream_ejections_total",
		"Ejections of targets, by cause: consecutive_failures, connect_failures, failure_share, latency.",
		c.upstream, metric.Label{Name: "cause", Value: string(cause)}).Inc(0)
}

func (c counters) probed(err error) {
	c.registry.Counter("headgate_upstream_probes_total", "Probes of an upstream's targets.", c.upstream).Inc(0)
	if err != nil {
		c.registry.Counter("headgate_upstream_probe_failures_total",
			"Probes that failed, by cause: connect, timeout, tls, closed, status, body, json, grpc.",
			c.upstream, metric.Label{Name: "cause", Value: probeCause(err)}).Inc(0)
	}
}

// Collect gives the metrics of the targets' states.
func (g *Group) Collect(emit metric.Emit) {
	now := g.env.Now()
	count := map[string]int{}
	for _, r := range *g.members.Load() {
		count[r.stateAt(now)]++
	}
	for _, state := range [...]string{available, ejected, unhealthy} {
		emit("headgate_upstream_targets", "Targets that take requests, by state: available, ejected (by requests), unhealthy (by probes).",
			metric.TypeGauge, float64(count[state]), g.count.upstream, metric.Label{Name: "state", Value: state})
	}
}

// The states of a target.
const (
	available = "available"
	ejected   = "ejected"
	unhealthy = "unhealthy"
)

// stateAt is unhealthy before it is ejected: what probes say holds longer.
func (r *Record) stateAt(now time.Duration) string {
	switch {
	case r.load.Down():
		return unhealthy
	case now < r.load.EjectedUntil():
		return ejected
	}
	return available
}
