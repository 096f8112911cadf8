package health

import (
	"fmt"
	"strings"
	"time"
)

// Status is what operators see of a target's health.
type Status struct {
	State string     `json:"state"`           // available, ejected (by requests) or unhealthy (by probes)
	Since *time.Time `json:"since,omitempty"` // of the state; absent: always
	Until *time.Time `json:"until,omitempty"` // when it is asked again
	Cause string     `json:"cause,omitempty"` // as in metrics
	Why   string     `json:"why,omitempty"`   // all of this in words

	Failures int64 `json:"consecutive_failures"`
	Connects int64 `json:"consecutive_connect_failures"`
	Recent   int64 `json:"recent_requests"` // in ten seconds, since the first failure
	Failed   int64 `json:"recent_failures"` // of these

	Ejections int `json:"ejections"`                    // ever
	Level     int `json:"ejections_in_a_row,omitempty"` // that are not forgiven

	LastProbe *time.Time `json:"last_probe,omitempty"`
	NextProbe *time.Time `json:"next_probe,omitempty"`
	Probe     string     `json:"probe_error,omitempty"` // of the last probe
	History   []Change   `json:"history,omitempty"`     // the oldest first
}

// Status says how the target is.
func (r *Record) Status() Status {
	g := r.group.Load()
	now := g.env.Now()
	if !g.retired.Load() {
		g.mu.Lock()
		g.settle(now)
		g.mu.Unlock()
	}
	streak := r.streak.Load()
	s := Status{State: r.stateAt(now), Failures: int64(uint32(streak)), Connects: int64(streak >> 32)}
	if t := r.trouble.Load(); t != nil {
		good, bad := t.sum(now)
		s.Recent, s.Failed = good+bad, bad
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Ejections, s.Level, s.History = r.ejections, r.forgiven(now), append([]Change(nil), r.history...)
	s.LastProbe, s.NextProbe, s.Probe = moment(r.probed.last), moment(r.probed.next), r.probed.err
	if n := len(r.history); n > 0 {
		s.Since = moment(r.history[n-1].At)
	}
	switch s.State {
	case ejected:
		s.Since, s.Until, s.Cause = moment(r.at), moment(r.back), string(r.cause)
		s.Why = fmt.Sprintf("ejected %s for %s: %s; asked again %s", clockTime(r.at), Span(r.pause), r.why, clockTime(r.back))
	case unhealthy:
		s.Since, s.Cause = moment(r.probed.turned), r.probed.cause
		s.Why = fmt.Sprintf("unhealthy since %s: %s", clockTime(r.probed.turned), r.probed.why)
		if now < r.until {
			s.Until = moment(r.back)
			s.Why += fmt.Sprintf("; ejected as well until %s: %s", clockTime(r.back), r.why)
		}
	default:
		if r.held != "" && now-r.heldAt < span {
			s.Why = r.held
		}
	}
	if s.State != available && !r.probed.next.IsZero() {
		s.Why += "; next probe " + clockTime(r.probed.next)
	}
	s.Why = strings.TrimPrefix(s.Why, "; ")
	return s
}

func clockTime(t time.Time) string { return t.Format("15:04:05") }

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
