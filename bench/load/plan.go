// Package load is the client of the benchmark: one thread, one epoll loop, raw system calls, because it shares its core
// with the upstream. Every answer is checked: status, length, body byte for byte, header fields.
//
// A closed loop (Rate 0) sends the next request of a connection when its answer has come. An open loop sends Rate requests
// per second whatever happens, and measures each from the moment at which it was due, so that a gateway that stalls
// cannot hide the requests that it kept waiting ("coordinated omission").
package load

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"headgate/bench/figure"
)

// Plan is what to send where.
type Plan struct {
	Address     string // host:port, IPv4
	Connections int
	Requests    [][]byte // whole requests, sent in turn
	Expect      Expect
	Rate        int           // requests per second; 0: a closed loop
	Grace       time.Duration // how long to wait for missing answers when a run is over; 0: ten seconds
	Outcomes    bool          // keep how each request ended; an answer with another status is then one of its ends, not an error
}

// Expect is what every answer must be.
type Expect struct {
	Status int
	Body   []byte
	Fields []Field // must be there; names in lower case, an empty value stands for any but the empty one

	others bool // an answer with another status is one too
}

// Field is one header field.
type Field struct{ Name, Value string }

// Result is what one run saw.
type Result struct {
	Completed int           // right answers
	Elapsed   time.Duration // from the first request to the last answer
	Latencies []time.Duration
	Errors    map[string]int // by what went wrong, each counted
	Lost      int            // requests whose connection ended, or that had no answer when the run was over
	Refused   int            // connections that could not be opened
	Wrong     int            // answers that were not as expected
	Outcomes  []Outcome      // when the plan asks for them, in the order in which the requests ended
}

// Outcome is how one request ended.
type Outcome struct {
	Due        time.Duration // when it should have been sent, from the beginning of the run
	Took       time.Duration // from then on
	Status     int           // of the answer; 0: there was none, or not a right one
	RetryAfter bool          // the answer had this field
}

// Rate returns right answers per second.
func (r *Result) Rate() float64 { return float64(r.Completed) / r.Elapsed.Seconds() }

// Percentile returns a percentile of the latencies, which Run has sorted.
func (r *Result) Percentile(q float64) time.Duration { return figure.Percentile(r.Latencies, q) }

// Failed returns how many things went wrong.
func (r *Result) Failed() int { return r.Lost + r.Refused + r.Wrong }

// Complaint says what went wrong, the most frequent first; it is empty when nothing did.
func (r *Result) Complaint() string {
	kinds := slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int { return r.Errors[b] - r.Errors[a] })
	parts := make([]string, 0, len(kinds))
	for _, k := range kinds {
		parts = append(parts, fmt.Sprintf("%d × %s", r.Errors[k], k))
	}
	return strings.Join(parts, "; ")
}

const (
	maxErrors   = 10_000               // after so many a run ends: the gateway is gone or broken, and more of the same says nothing new
	maxKinds    = 20                   // different texts of errors that are kept, so that a babbling gateway cannot fill memory
	readSize    = 256 << 10            // one read; also the most that an answer's head may take
	reconnectIn = 2 * time.Millisecond // after a refused connection, so that a closed door is not hammered
)
