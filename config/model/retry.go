package model

import (
	"time"

	"headgate/internal/size"
)

// Retry says when a request is sent again, each time to another target as far as there is one. Requests that may have been
// processed are repeated only if their method is idempotent (RFC 9110 section 9.2.2) or they have an Idempotency-Key.
type Retry struct {
	Attempts      int           `yaml:"attempts" min:"1" max:"10" doc:"In all, the first one included. 1: no retries but those of requests that no target has seen."`
	On            []string      `yaml:"on" oneof:"connect refused reset timeout" doc:"Failures: no connection; not processed (HTTP/2 says so); broken off before an answer; no answer in time. Without any: all but timeout."`
	Statuses      []int         `yaml:"statuses" doc:"Answers that are taken for a failure. Without any: 502, 503 and 504."`
	GRPC          []string      `yaml:"grpc" doc:"gRPC codes of answers without a message that are, such as unavailable or resource-exhausted. Without any: unavailable."`
	NonIdempotent bool          `yaml:"non_idempotent" doc:"Repeat requests of any method, although a target may have processed them."`
	Budget        int           `yaml:"budget_percent" min:"0" max:"100" doc:"Most retries for the requests of the last ten seconds, besides ten, so that they do not crush a service that fails."`
	Backoff       time.Duration `yaml:"backoff" min:"0s" max:"1m" doc:"The longest pause before the second attempt; it is drawn at random between nothing and that, which doubles each time. The first retry after a lost connection has none."`
	MaxBackoff    time.Duration `yaml:"max_backoff" min:"0s" max:"5m" doc:"The longest that doubling leads to."`
	MaxAfter      time.Duration `yaml:"max_retry_after" min:"0s" max:"5m" doc:"How long a target's Retry-After is waited for; when it asks for longer, its answer goes to the client."`
	Body          size.Bytes    `yaml:"max_body" max:"64MiB" doc:"Request bodies up to this size are kept until the answer has come, so that they can be sent again."`
	TryTimeout    time.Duration `yaml:"try_timeout" min:"0s" max:"24h" doc:"For the head of one attempt's answer, after which the next begins if on names timeout. 0: timeouts.response."`
}

// SetDefaults gives retries their defaults.
func (r *Retry) SetDefaults() {
	*r = Retry{
		Attempts: 3, Budget: 20, Backoff: 25 * time.Millisecond, MaxBackoff: 250 * time.Millisecond, MaxAfter: time.Second,
		Body: 64 * size.KiB,
	}
}

// Hedge asks a second target while the first one has not answered, takes what comes first and cancels the other. Only
// requests that may be repeated are hedged, and none while the upstream is at its limit.
type Hedge struct {
	After time.Duration `yaml:"after" min:"0s" max:"1m" doc:"Without an answer. 0: half as long again as 95 % of the answers have taken lately."`
	Extra int           `yaml:"max_extra_percent" min:"1" max:"100" doc:"Most second requests, of the requests of the last ten seconds."`
}

// SetDefaults caps the extra load at 5 %.
func (h *Hedge) SetDefaults() { h.Extra = 5 }

// Breaker keeps all requests away from an upstream of which too much fails, until a few that are let through show that it is
// well again. One target that fails is ejected; this is for all of them together.
type Breaker struct {
	Share  int           `yaml:"failure_percent" min:"1" max:"100" doc:"Share of failures that opens it."`
	Least  int           `yaml:"min_requests" min:"1" max:"1000000" doc:"Requests in the window for the share to count."`
	Window time.Duration `yaml:"window" min:"1s" max:"1h" doc:"Over which they are counted."`
	Open   time.Duration `yaml:"open_for" min:"100ms" max:"1h" doc:"How long nobody is asked the first time: 503 breaker_open or the fallback. Doubled each time in a row, up to sixteen times."`
	Probes int           `yaml:"probes" min:"1" max:"1000" doc:"Requests that are let through after it; when all succeed it closes."`
}

// SetDefaults gives a breaker its defaults.
func (b *Breaker) SetDefaults() {
	*b = Breaker{Share: 50, Least: 20, Window: 10 * time.Second, Open: 5 * time.Second, Probes: 3}
}

// Fallback is what happens when an upstream cannot answer: no target, none that answers or answers validly and in time, its
// breaker is open, it is full, or after all attempts its answer is one that retry takes for a failure (statuses: 502, 503 and
// 504; grpc: unavailable).
// Other answers go to the client, and so does what is the client's own doing. One of its fields is given.
type Fallback struct {
	Upstream string   `yaml:"upstream" doc:"Asked instead, also a split, if the request can still be sent: its body has not begun to be sent or is of retry.max_body at most, and it may be repeated (see retry) or the first service has not seen it."`
	Respond  *Respond `yaml:"respond" doc:"Answered instead."`
}
