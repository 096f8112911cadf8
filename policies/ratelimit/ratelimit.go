// Package ratelimit is the policy rate-limit: how much each caller may ask in a time.
//
// It counts by the generic cell rate algorithm: units come back one by one, so there is no window at whose edge a caller
// gets twice the limit. What is left is told in the RateLimit fields of draft-ietf-httpapi-ratelimit-headers-11.
package ratelimit

import (
	"time"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Config is the options of rate-limit.
type Config struct {
	Limit   int64         `yaml:"limit" required:"true" min:"1" max:"1000000000" doc:"Units that come back in each per; one request costs one, unless cost says more."`
	Per     time.Duration `yaml:"per" required:"true" min:"1ms" max:"8760h" doc:"The time that belongs to limit, such as 1s, 1m or 24h."`
	Burst   int64         `yaml:"burst" min:"0" max:"1000000000" doc:"Units that may be spent at once. 0: as many as limit."`
	Key     string        `yaml:"key" doc:"An expression for who is counted apart. Without one: the known consumer. Where it is empty: the client's address (IPv6: its /64)."`
	Cost    string        `yaml:"cost" doc:"An expression for what a request costs. Without one, and where it is not a whole number of 0 or more: 1."`
	Scope   string        `yaml:"scope" doc:"Where it counts: node, each gateway for itself."`
	Headers bool          `yaml:"headers" doc:"Tell the caller in RateLimit-Policy and RateLimit what there is and what is left."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "rate-limit",
	Summary: "Limits how much each caller may ask in a time.",
	Stage:   policy.Limit,
	Codes:   []exchange.Code{exceeded},
	Default: func() Config { return Config{Scope: "node", Headers: true} },
	Check:   check,
	Build:   build,
})

var exceeded = exchange.Code{Name: "rate_limit_exceeded", Status: 429,
	Title: "More was asked than is allowed in this time; see Retry-After."}

// minInterval is the shortest time in which a unit may come back. Counting is in whole nanoseconds, rounded so that never
// more than the limit is allowed; above this it is never more than 1 % less either.
const minInterval = 100 * time.Nanosecond

func check(c Config) error {
	switch {
	case c.Scope == "cluster":
		return decode.At("scope", `"cluster" needs a store that the nodes share, and there is none in this version; `+
			`write node (each gateway counts for itself: n gateways allow n times the limit) or leave scope out`)
	case c.Scope != "node":
		return decode.At("scope", "%q is not a scope; write node or leave scope out", c.Scope)
	case c.Per/time.Duration(c.Limit) < minInterval:
		return decode.At("limit", "%d in %v is more than %d in a second, which is the most that is counted; "+
			"let cost count larger units", c.Limit, c.Per, time.Second/minInterval)
	}
	return nil
}

func build(c Config, e policy.Env) (policy.Hooks, error) {
	l, err := newLimiter(c, e)
	if err != nil {
		return policy.Hooks{}, err
	}
	h := policy.Hooks{Request: policy.Step{Now: l.now, Later: l.later}}
	if c.Headers {
		h.Response.Now, h.Done = l.tell, l.done
	}
	return h, nil
}
