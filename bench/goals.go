package main

import (
	"fmt"
	"math"
	"strings"

	"headgate/bench/figure"
	"headgate/bench/peers"
	"headgate/bench/survive"
)

// goal is a figure that Headgate shall reach: at most limit, or at least, either by itself or as a ratio.
type goal struct {
	id      string
	metric  metric
	against peers.Kind // ratio to this contestant, same case and round
	ownID   string     // ratio to Headgate's own figure in this case, same round
	limit   float64
	least   bool // the limit is the least, not the most
}

// goals are the figures to reach.
var goals = [...]goal{
	{id: "S1/1", metric: cpuMicros, against: peers.Nginx, limit: 1.00},
	{id: "S1/1", metric: p50Micros, against: peers.Nginx, limit: 1.00},
	{id: "S1/64", metric: cpuMicros, against: peers.Nginx, limit: 0.75},
	{id: guardCase, metric: costRatio, limit: 1.03},
	{id: "S1/512", metric: cpuMicros, against: peers.Nginx, limit: 0.80},
	{id: "S1/64", metric: allocations, limit: 4},
	{id: "S1r", metric: p999Micros, against: peers.Nginx, limit: 1.00},
	{id: "S2", metric: cpuMicros, against: peers.Nginx, limit: 0.80},
	{id: "S4/get", metric: cpuMicros, against: peers.Nginx, limit: 0.50},
	{id: "S4/post", metric: cpuMicros, against: peers.Nginx, limit: 0.45},
	{id: "S5/RS256", metric: cpuMicros, against: peers.HAProxy, limit: 1.00},
	{id: "S5/ES256", metric: cpuMicros, against: peers.HAProxy, limit: 1.00},
	{id: "S6/1000", metric: cpuMicros, ownID: "S1/64", limit: 1.05},
	{id: "S6/50000", metric: cpuMicros, ownID: "S1/64", limit: 1.15},
	{id: "S8/start", metric: startMillis, limit: 60},
	{id: "S8/start", metric: rssMiB, limit: 30},
	{id: "S8/start", metric: perIdleKiB, limit: 12},
	{id: "S8/reload-1000", metric: lostCount, limit: 0},
	{id: "S8/reload-1000", metric: refusedOnes, limit: 0},
	{id: "S8/reload-1000", metric: maxMillis, limit: 15},
	{id: "S3/h1", metric: cpuMicros, against: peers.Nginx, limit: 1.10},
	{id: "S3/h2", metric: cpuMicros, against: peers.Nginx, limit: 1.50},
	{id: "S3/full", metric: cpuMicros, against: peers.Nginx, limit: 1.25}, // 0.8 times the handshakes on one core
	{id: "S3/resumed", metric: cpuMicros, against: peers.Nginx, limit: 1.25},
	{id: "G1", metric: cpuMicros, against: peers.Nginx, limit: 1.60},
	{id: "W1", metric: cpuMicros, against: peers.HAProxy, limit: 1.10},
	{id: "M1/tls", metric: perIdleKiB, limit: 40},
	{id: "M1/h2", metric: perIdleKiB, limit: 48},
	{id: "M1/websocket", metric: perIdleKiB, limit: 16},
	{id: "U1", metric: metric(survive.P99Growth), limit: 2},
	{id: "U1", metric: metric(survive.AfterP99), against: peers.Nginx, limit: 1.00},
	{id: "U1", metric: metric(survive.AfterP99), against: peers.HAProxy, limit: 1.00},
	{id: "U1", metric: metric(survive.Failed), limit: 0},
	{id: "U2", metric: metric(survive.FailedAway), limit: 0},
	{id: "U2", metric: metric(survive.FailedBack), limit: 0},
	{id: "U2", metric: metric(survive.AwayP999), against: peers.Nginx, limit: 1.10},
	{id: "U3/capacity", metric: metric(survive.Goodput), limit: 0.95, least: true},
	{id: "U3/capacity", metric: metric(survive.ServedTime), limit: 5},
	{id: "U3/capacity", metric: metric(survive.Told), limit: 100, least: true},
	{id: "U3/fair", metric: metric(survive.SmallGood), limit: 99, least: true},
	{id: "U3/fair", metric: metric(survive.Goodput), limit: 0.95, least: true},
	{id: "U4", metric: metric(survive.Failed), limit: 0},
	{id: "U5/hedge", metric: metric(survive.P999), ownID: "U5/off", limit: 0.50},
	{id: "U5/hedge", metric: metric(survive.ExtraLoad), limit: 5},
}

// measured returns what the rounds say about the goal, and false when it was not measured.
func (g goal) measured(r results) (figure.Summary, bool) {
	s := r.summary(g.id, peers.Headgate, g.metric)
	switch {
	case g.against != "":
		s = r.ratio(g.id, peers.Headgate, g.id, g.against, g.metric)
	case g.ownID != "":
		s = r.ratio(g.id, peers.Headgate, g.ownID, peers.Headgate, g.metric)
	}
	return s, s.Rounds > 0
}

// verdict judges the median, except for what was lost, where every round counts. With an error in any round no figure is
// worth anything: who answers wrongly may well be fast.
func (g goal) verdict(s figure.Summary, errors float64) string {
	value := s.Median
	switch g.metric {
	case lostCount, refusedOnes, metric(survive.Failed), metric(survive.FailedAway), metric(survive.FailedBack):
		value = s.Max
	case allocations:
		value = math.Round(value*10) / 10 // timers and the metrics' own reading allocate too, a few hundred times in a run
	}
	switch {
	case errors > 0:
		return "not met: errors"
	case math.IsNaN(value), value > g.limit && !g.least, value < g.limit && g.least:
		return "not met"
	}
	return "met"
}

func (g goal) String() string {
	what := fmt.Sprintf("%s, %s", g.id, g.metric)
	switch {
	case g.against != "":
		return what + " / " + string(g.against)
	case g.ownID != "":
		return what + " / own " + g.ownID
	}
	return what
}

func (g goal) sign() string {
	if g.least {
		return "≥ "
	}
	return "≤ "
}

// goalTable prints each goal that was measured beside its figure.
func goalTable(r results) string {
	var rows [][]string
	for _, g := range goals {
		if s, ok := g.measured(r); ok {
			verdict := g.verdict(s, r.summary(g.id, peers.Headgate, failures).Max)
			rows = append(rows, []string{g.String(), g.sign() + number(g.limit), spread(s), verdict})
		}
	}
	if len(rows) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("## Figures to reach\n\n")
	table(&b, []string{"Headgate", "goal", "median [min – max]", ""}, rows)
	return b.String()
}
