// Package retry decides about asking again: whether (Rules), when (Backoff, and what Retry-After says), how often in all (Budget),
// before the first has answered (Hedge), and whether a target is asked at all (Breaker). It is arithmetic: no I/O, no
// goroutines, no clock; the time is handed in, on a clock that only moves forward. What every request writes is spread over
// shards.
package retry

import (
	"strconv"
	"strings"
	"time"
)

// Failure is what went wrong with one attempt.
type Failure uint8

// Failures, by what is known about the request.
const (
	None         Failure = iota // there is a reply: its status decides
	Connect                     // no connection was made, so nothing was sent
	Refused                     // the target said that it did not process it (REFUSED_STREAM, GOAWAY)
	Reset                       // the connection broke before a reply; it may have been processed
	Timeout                     // no reply in time; it may still be processed
	OwnFault                    // the client's, or ours: another attempt is no better
	failureKinds                // how many there are
)

// FailureNamed returns a failure by its name in the document: connect, refused, reset or timeout; otherwise None.
func FailureNamed(name string) Failure {
	switch name {
	case "connect":
		return Connect
	case "refused":
		return Refused
	case "reset":
		return Reset
	case "timeout":
		return Timeout
	}
	return None
}

// GRPCCodes are the names of gRPC's status codes but OK, in their order from 1.
func GRPCCodes() []string {
	return []string{
		"cancelled", "unknown", "invalid-argument", "deadline-exceeded", "not-found", "already-exists", "permission-denied",
		"resource-exhausted", "failed-precondition", "aborted", "out-of-range", "unimplemented", "internal", "unavailable",
		"data-loss", "unauthenticated",
	}
}

// unsent reports whether the target has certainly not processed the request; then even a POST may be repeated.
func (f Failure) unsent() bool { return f == Connect || f == Refused }

// Attempt is how one attempt has ended.
type Attempt struct {
	Failure    Failure
	Status     int    // of the reply, with Failure None
	GRPC       int    // grpc-status of a reply that has only trailers; less than 0: not gRPC
	RetryAfter string // field of the reply, or ""
	Method     string
	Key        bool // the request has an Idempotency-Key field
	Whole      bool // the request is at hand and can be sent again
	Number     int  // of attempts so far, this one included
}

// Rules say which attempts are followed by another. Make them with NewRules.
type Rules struct {
	failures [failureKinds]bool
	statuses [600]bool
	grpc     [17]bool
	anyhow   bool // also methods that are not idempotent
	most     int
	longest  time.Duration
}

// Options are what a document says about retries.
type Options struct {
	On       []Failure     // nil: Connect, Refused and Reset
	Statuses []int         // nil: 502, 503, 504
	GRPC     []int         // nil: 14 (UNAVAILABLE)
	Anyhow   bool          // repeat requests that may have been processed, whatever their method
	Attempts int           // in all; 0: 3
	Longest  time.Duration // that Retry-After is waited for; 0: 1 s, less: not at all. A reply that asks for more is passed on to the client
}

const (
	defaultAttempts = 3
	// maxAttempts bounds what a document may ask for: each attempt multiplies the load of an upstream that has little left.
	maxAttempts    = 10
	defaultLongest = time.Second
	// unreached is how many targets are tried at least when none can be reached.
	unreached = 4
)

// NewRules compiles options.
func NewRules(o Options) *Rules {
	r := &Rules{anyhow: o.Anyhow, most: min(max(o.Attempts, 0), maxAttempts), longest: o.Longest}
	if r.most == 0 {
		r.most = defaultAttempts
	}
	if r.longest == 0 {
		r.longest = defaultLongest
	}
	r.longest = max(r.longest, 0)
	if o.On == nil {
		o.On = []Failure{Connect, Refused, Reset}
	}
	if o.Statuses == nil {
		o.Statuses = []int{502, 503, 504}
	}
	if o.GRPC == nil {
		o.GRPC = []int{14}
	}
	for _, f := range o.On {
		if f > None && f < OwnFault {
			r.failures[f] = true
		}
	}
	for _, s := range o.Statuses {
		if s > 0 && s < len(r.statuses) {
			r.statuses[s] = true
		}
	}
	for _, g := range o.GRPC {
		if g > 0 && g < len(r.grpc) {
			r.grpc[g] = true
		}
	}
	return r
}

// Again reports whether another attempt is right, and how long the target wants it to wait (0: it did not say). now is needed
// for a Retry-After that is a date. The budget has to agree too.
func (r *Rules) Again(a *Attempt, now time.Time) (again bool, wait time.Duration) {
	if a.Number >= r.attempts(a.Failure) || !a.Whole {
		return false, 0
	}
	if !a.Failure.unsent() && !r.Repeats(a.Method, a.Key) {
		return false, 0
	}
	if a.Failure != None {
		return a.Failure < failureKinds && r.failures[a.Failure], 0
	}
	if !r.Failed(a.Status, a.GRPC) {
		return false, 0
	}
	if a.RetryAfter != "" {
		if wait = After(a.RetryAfter, now); wait > r.longest {
			return false, 0
		}
	}
	return true, wait
}

// attempts are how many there may be when the last one has failed so. A target that was never reached costs the service
// nothing, so that more of them are passed over than a request may meet.
func (r *Rules) attempts(f Failure) int {
	if f == Connect {
		return max(r.most, unreached)
	}
	return r.most
}

// Failed reports whether a reply is taken for a failure. grpc is as in Attempt.
func (r *Rules) Failed(status, grpc int) bool {
	return status > 0 && status < len(r.statuses) && r.statuses[status] || grpc > 0 && grpc < len(r.grpc) && r.grpc[grpc]
}

// Repeats reports whether a request of this kind may be sent again although a target may have processed it.
func (r *Rules) Repeats(method string, key bool) bool { return r.anyhow || key || Idempotent(method) }

// Most is the greatest number of attempts that a request can have.
func (r *Rules) Most() int { return r.most }

// Idempotent reports whether a method may be repeated (RFC 9110 section 9.2.2).
func Idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}

// maxAfter is what a Retry-After beyond all reason counts as.
const maxAfter = 24 * time.Hour

// After reads a Retry-After field (RFC 9110 section 10.2.3): seconds, or a date. What cannot be read is 0.
func After(field string, now time.Time) time.Duration {
	field = strings.TrimSpace(field)
	if field == "" {
		return 0
	}
	if strings.Trim(field, "0123456789") == "" {
		seconds, err := strconv.ParseInt(field, 10, 32)
		if err != nil || seconds > int64(maxAfter/time.Second) {
			return maxAfter
		}
		return time.Duration(seconds) * time.Second
	}
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} { // section 5.6.7
		if at, err := time.Parse(layout, field); err == nil {
			return min(max(at.Sub(now), 0), maxAfter)
		}
	}
	return 0
}

// Backoff is the pause before an attempt: full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog 2015), uniform
// between nothing and a bound that doubles.
type Backoff struct {
	Base time.Duration // the first bound; 0: 25 ms
	Most time.Duration // the greatest; 0: ten times the first
}

const defaultBase = 25 * time.Millisecond

// Pause returns the pause after as many attempts (1 after the first), for a uniform random number. At least is what the target
// asked for; the jitter comes on top, so that not all who were told the same time return at it.
func (b Backoff) Pause(attempts int, random uint64, atLeast time.Duration) time.Duration {
	base, most := b.Base, b.Most
	if base <= 0 {
		base = defaultBase
	}
	if most <= 0 {
		most = 10 * base
	}
	bound := most
	if shift := max(attempts-1, 0); shift < 32 && base <= most>>shift {
		bound = base << shift
	}
	return atLeast + time.Duration(float64(bound)*(float64(random>>11)/(1<<53)))
}
