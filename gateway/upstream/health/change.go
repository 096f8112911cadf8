package health

import (
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Span is a length of time as people write it: 30 s, 1 m 40 s, 250 ms.
type Span time.Duration

// String writes it.
func (s Span) String() string {
	d := time.Duration(s)
	if d < time.Second {
		return strconv.FormatFloat(float64(d.Round(10*time.Microsecond))/float64(time.Millisecond), 'g', 3, 64) + " ms"
	}
	if d < time.Minute {
		return strconv.FormatFloat(d.Seconds(), 'g', 3, 64) + " s"
	}
	var parts []string
	d = d.Round(time.Second)
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{time.Hour, " h"}, {time.Minute, " m"}, {time.Second, " s"}} {
		if n := d / unit.length; n > 0 {
			parts = append(parts, strconv.FormatInt(int64(n), 10)+unit.name)
		}
		d %= unit.length
	}
	return strings.Join(parts, " ")
}

// Change is one change of a target's state.
type Change struct {
	At    time.Time `json:"at"`
	State string    `json:"state"` // available, ejected or unhealthy
	Cause string    `json:"cause"`
	Why   string    `json:"why"` // in words, with numbers
	For   string    `json:"for,omitempty"`
}

// maxHistory bounds the changes that are kept of each target.
const maxHistory = 16

// changed notes a change. It is called with the record's lock held.
func (r *Record) changed(g *Group, now time.Duration, c Change) {
	if len(r.history) >= maxHistory {
		r.history = append(r.history[:0], r.history[len(r.history)-maxHistory+1:]...)
	}
	r.history = append(r.history, c)
	g.log.tell(now, r.address, c)
}

const (
	// logBurst and logEvery bound the lines about changes: thousands of targets that flap must not fill the disk.
	logBurst = 50
	logEvery = 200 * time.Millisecond
)

// journal writes changes to the log, one line each, as long as they are not too many.
type journal struct {
	log     *slog.Logger
	mu      sync.Mutex
	spent   time.Duration // now, and logEvery for each line that was written lately
	omitted int
}

func (j *journal) tell(now time.Duration, target string, c Change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.spent = max(j.spent, now); j.spent-now >= logBurst*logEvery {
		j.omitted++
		return
	}
	j.spent += logEvery
	more := []any{"target", target, "cause", c.Cause, "why", c.Why}
	if c.For != "" {
		more = append(more, "for", c.For)
	}
	if j.omitted > 0 {
		more = append(more, "changes_not_logged_before", j.omitted)
		j.omitted = 0
	}
	switch c.State {
	case "ejected":
		j.log.Warn("a target is ejected", more...)
	case "unhealthy":
		j.log.Warn("a target is unhealthy", more...)
	default:
		j.log.Info("a target is available again", more...)
	}
}
