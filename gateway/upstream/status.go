package upstream

import (
	"math"
	"time"

	"headgate/internal/metric"
)

// Status is what operators see of an upstream.
type Status struct {
	Name    string         `json:"name"`
	Balance string         `json:"balance"`
	Targets []TargetStatus `json:"targets"`
}

// TargetStatus is what operators see of a target.
type TargetStatus struct {
	Address   string  `json:"address"`
	Weight    int64   `json:"weight"`
	State     string  `json:"state"` // available, ejected, unhealthy, or off (weight 0)
	Why       string  `json:"why,omitempty"`
	InFlight  int64   `json:"in_flight"`
	Idle      int     `json:"idle_connections"`
	Failures  int64   `json:"consecutive_failures"`
	LatencyMS float64 `json:"latency_ms"` // remembered, as the balancer sees it
}

// Status describes the upstream and its targets as they are now.
func (u *Upstream) Status() Status {
	s := Status{Name: u.Name, Balance: u.config.Balance}
	now := u.env.Sweeper.Coarse()
	for _, t := range u.targets {
		ts := TargetStatus{
			Address: t.end.address, Weight: t.weight, State: "available", InFlight: t.inFlight.Load(), Idle: t.pool.Load().idle.len(),
			Failures: t.failures.Load(), LatencyMS: math.Float64frombits(t.latency.Load()) * 1000,
		}
		switch until := time.Duration(t.until.Load()); {
		case t.weight == 0:
			ts.State = "off"
		case t.down.Load():
			ts.State = "unhealthy"
			if why := t.why.Load(); why != nil {
				ts.Why = *why
			}
		case now < until:
			ts.State = "ejected"
			ts.Why = "too many failures in a row; for another " + (until - now).Round(time.Second).String()
		}
		s.Targets = append(s.Targets, ts)
	}
	return s
}

func (u *Upstream) collect(emit metric.Emit) {
	for _, t := range u.Status().Targets {
		labels := []metric.Label{{Name: "upstream", Value: u.Name}, {Name: "target", Value: t.Address}}
		available := 0.0
		if t.State == "available" {
			available = 1
		}
		emit("headgate_target_available", "Whether a target takes requests.", metric.TypeGauge, available, labels...)
		emit("headgate_target_in_flight", "Requests waiting for a target's answer.", metric.TypeGauge, float64(t.InFlight), labels...)
		emit("headgate_target_idle_connections", "Idle connections kept to a target.", metric.TypeGauge, float64(t.Idle), labels...)
	}
}
