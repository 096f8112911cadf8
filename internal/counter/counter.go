// Package counter counts what limits need: a store of buckets by key, local to the node or shared by many.
package counter

import "time"

// Rate is how much may be taken: Limit units in each Per, with at most Burst at once.
type Rate struct {
	Limit int64
	Per   time.Duration
	Burst int64
}

// Result is what a store says about one attempt.
type Result struct {
	Allowed    bool
	Remaining  int64         // units that could be taken right now
	RetryAfter time.Duration // until the cost could be taken; 0 when allowed; negative: never, it is more than the burst
	Reset      time.Duration // until the bucket is full again
}

// Store hands out limits.
type Store interface {
	// Limiter returns the limiter of that name. Asking again for a name returns the same buckets, also with another rate.
	Limiter(name string, rate Rate) Limiter
}

// Limiter spends from buckets by key.
type Limiter interface {
	// Take spends cost from the key's bucket at the time now. ready is false when the answer needs waiting for a shared
	// store; then the caller must ask again with wait set, from where it may block. A cost of 0 asks without spending.
	Take(key string, cost int64, now time.Time, wait bool) (r Result, ready bool, err error)
}
