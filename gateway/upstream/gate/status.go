package gate

import (
	"time"

	"headgate/gateway/upstream/retry"
	"headgate/internal/metric"
)

// Status is what operators see of a gate.
type Status struct {
	Concurrency *Concurrency `json:"concurrency,omitempty"` // absent: there is no limit
	Breaker     *Breaker     `json:"breaker,omitempty"`     // absent: there is none
}

// Concurrency is the limiter's figures of now, and why the limit is what it is.
type Concurrency struct {
	Mode       string  `json:"mode"`    // auto or fixed
	Limited    bool    `json:"limited"` // false: there are no signs of overload, and limit only bounds what nobody has answered
	Limit      int     `json:"limit"`
	InFlight   int     `json:"in_flight"`
	Waiting    int     `json:"waiting"`
	Pressure   int     `json:"waited_percent"` // share of the requests of the last second that waited or were refused
	BaselineMS float64 `json:"baseline_ms"`    // what an answer takes when requests do not wait for each other; 0: not known yet
	LatencyMS  float64 `json:"latency_ms"`     // of the last judgement; 0: there was none
	Why        string  `json:"why"`
	Full       uint64  `json:"refused_full"` // so far, because the queue was full
	Late       uint64  `json:"refused_late"` // so far, because they had waited for too long
}

// Breaker is the state of a breaker, since when, and what comes next.
type Breaker struct {
	State    string     `json:"state"` // closed, open, or half-open: a few are let through to find out
	Since    *time.Time `json:"since,omitempty"`
	Next     *time.Time `json:"next,omitempty"` // open: when the first ones are let through
	Failed   int64      `json:"failed"`         // closed: of the requests in the window
	Requests int64      `json:"requests"`
	Probes   int64      `json:"probes_succeeded,omitempty"` // half-open
	Openings uint64     `json:"openings"`                   // so far
	InRow    int        `json:"openings_in_row,omitempty"`  // each lasts twice as long as the one before
}

// fixedLimit says why a limit is what the document says.
const fixedLimit = "the document says so"

// Status describes the gate as it is at a time.
func (g *Gate) Status(now time.Time) Status {
	var s Status
	if g == nil {
		return s
	}
	if g.limiter != nil {
		l := g.limiter.Status()
		s.Concurrency = &Concurrency{
			Mode: g.mode, Limited: !l.Free, Limit: l.Limit, InFlight: l.InFlight, Waiting: l.Waiting, Pressure: g.limiter.Pressure(now),
			BaselineMS: milliseconds(l.Baseline), LatencyMS: milliseconds(l.Latency), Why: string(l.Reason), Full: l.Full, Late: l.Late,
		}
		if g.mode == "fixed" {
			s.Concurrency.Why = fixedLimit
		}
	}
	if g.breaker != nil {
		b := g.breaker.Status(now.Sub(g.base))
		s.Breaker = &Breaker{
			State: b.State.String(), Failed: b.Failed, Requests: b.Requests, Probes: b.Good, Openings: b.Openings, InRow: b.InRow,
		}
		at := func(d time.Duration) *time.Time { t := g.base.Add(d).UTC().Round(0); return &t }
		if b.Openings > 0 {
			s.Breaker.Since = at(b.Since)
		}
		if b.State == retry.Open {
			s.Breaker.Next = at(b.Until)
		}
	}
	return s
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Collect emits the gate's metrics.
func (s Status) Collect(upstream string, emit metric.Emit) {
	label := metric.Label{Name: "upstream", Value: upstream}
	if c := s.Concurrency; c != nil {
		gauge := func(name, help string, n int) { emit(name, help, metric.TypeGauge, float64(n), label) }
		gauge("headgate_upstream_concurrency_limit", "Requests that an upstream is asked at one time at most (concurrency).", c.Limit)
		gauge("headgate_upstream_concurrency_in_flight", "Requests to an upstream that wait for the head of its answer.", c.InFlight)
		gauge("headgate_upstream_concurrency_waiting", "Requests in the queue in front of an upstream.", c.Waiting)
		gauge("headgate_upstream_waited_percent", "Share of the last second's requests that waited for an upstream or were refused.", c.Pressure)
		for cause, n := range map[string]uint64{"full": c.Full, "late": c.Late} {
			emit("headgate_upstream_refused_total", "Requests refused with 503 upstream_busy, by cause: full (the queue), late (waited too long).",
				metric.TypeCounter, float64(n), label, metric.Label{Name: "cause", Value: cause})
		}
	}
	if b := s.Breaker; b != nil {
		state := map[string]float64{retry.Open.String(): 1, retry.HalfOpen.String(): 2}[b.State]
		emit("headgate_upstream_breaker_state", "An upstream's breaker: 0 closed, 1 open, 2 half open.", metric.TypeGauge, state, label)
		emit("headgate_upstream_breaker_openings_total", "Times that an upstream's breaker has opened.", metric.TypeCounter,
			float64(b.Openings), label)
	}
}
