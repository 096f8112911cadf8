package h2

import (
	"time"

	"headgate/internal/metric"
)

// abuse is a way to make us work that costs its client little.
type abuse uint8

const (
	rapidReset abuse = iota
	refusedStreams
	pingFlood
	settingsFlood
	emptyFlood
	windowFlood
	priorityFlood
	unknownFlood
	budgeted // those above are counted against budgets; those below have limits of their own

	continuationFlood abuse = iota - 1
	headFlood
	controlFlood
	slowHead
	slowReader
	abuses
)

// budget is how much of something a client may do: burst at once, and then as much as it gets back with the seconds and
// with what is honest work: replies that it lets end, and DATA frames that it is sent.
type budget struct {
	name                        string
	burst, second, reply, frame int32
}

// budgets is a table, and a manual.
var budgets = [abuses]budget{
	// Streams that end by RST_STREAM before their reply does: by the client's own (CVE-2023-44487), or by one that it
	// provokes from us with frames that are in error (MadeYouReset, CVE-2025-8671). Each has cost us a request.
	rapidReset: {name: "rapid_reset", burst: 100, second: 10, reply: 1},
	// Streams above what we have allowed: each costs decoding a head.
	refusedStreams: {name: "refused_streams", burst: 1000, second: 100, reply: 1},
	// PING asks for an answer each (CVE-2019-9512). gRPC clients measure the bandwidth with one for each frame or so.
	pingFlood: {name: "ping_flood", burst: 100, second: 10, reply: 1, frame: 1},
	// SETTINGS do, too (CVE-2019-9515).
	settingsFlood: {name: "settings_flood", burst: 20, second: 1},
	// DATA, HEADERS of no use and CONTINUATION without a byte in it (CVE-2019-9518).
	emptyFlood: {name: "empty_frames_flood", burst: 100, second: 10, reply: 1},
	// WINDOW_UPDATE in steps of a byte: waking a reply for nothing (CVE-2019-9511, data dribble).
	windowFlood: {name: "window_update_flood", burst: 1000, second: 100, reply: 4, frame: 4},
	// PRIORITY, which means nothing any more (CVE-2019-9513 was resource loop).
	priorityFlood: {name: "priority_flood", burst: 200, second: 10, reply: 2},
	// Frames of types that we do not know, or not any more; clients grease with them.
	unknownFlood: {name: "unknown_frames_flood", burst: 100, second: 10, reply: 2},

	continuationFlood: {name: "continuation_flood"}, // maxFragments (CVE-2024-27316)
	headFlood:         {name: "head_flood"},         // blockRoom, and strings that decode to more
	controlFlood:      {name: "control_flood"},      // maxControl
	slowHead:          {name: "slow_head"},          // Limits.HeadTime for a frame, or for all frames of a head
	slowReader:        {name: "slow_reader"},        // Limits.BodyTime without window, leastReadRate
}

// purse is what a client has left of each budget.
type purse struct {
	left    [budgeted]int32
	counted time.Duration // on the coarse clock
	replies int32         // since then
	frames  int32
}

func (p *purse) begin(now time.Duration) {
	p.counted = now
	for kind := range p.left {
		p.left[kind] = budgets[kind].burst
	}
}

// spend takes one away. It returns false when nothing was left.
func (p *purse) spend(kind abuse, now time.Duration) bool {
	if p.left[kind]--; p.left[kind] >= 0 {
		return true
	}
	p.refill(now)
	return p.left[kind] >= 0
}

// refill gives what has been earned since it was counted last.
func (p *purse) refill(now time.Duration) {
	seconds := int32(min((now-p.counted)/time.Second, 1000))
	for kind := range p.left {
		b := &budgets[kind]
		earned := int64(seconds)*int64(b.second) + int64(p.replies)*int64(b.reply) + int64(p.frames)*int64(b.frame)
		p.left[kind] = int32(min(int64(p.left[kind])+earned, int64(b.burst)))
	}
	p.counted += time.Duration(seconds) * time.Second
	p.replies, p.frames = 0, 0
}

// Metrics counts what clients do that they should not. It is shared by all servers.
type Metrics struct {
	abuse     [abuses]*metric.Counter
	malformed *metric.Counter
	errors    *metric.Counter
	resets    *metric.Counter
}

// NewMetrics registers the counters.
func NewMetrics(r *metric.Registry) *Metrics {
	m := &Metrics{
		malformed: r.Counter("headgate_h2_malformed_total", "Requests over HTTP/2 that were reset because they were malformed."),
		errors:    r.Counter("headgate_h2_connection_errors_total", "HTTP/2 connections ended because the client broke the protocol."),
		resets:    r.Counter("headgate_h2_client_resets_total", "Streams that HTTP/2 clients gave up before their reply had ended."),
	}
	for kind := range m.abuse {
		m.abuse[kind] = r.Counter("headgate_h2_abuse_total",
			"HTTP/2 connections, and with slow_reader streams, ended because of what their client did.",
			metric.Label{Name: "kind", Value: budgets[kind].name})
	}
	return m
}
