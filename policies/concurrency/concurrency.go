// Package concurrency is the policy concurrency: how many requests of each caller, and of all together, run at one time.
//
// Who finds no place may wait in a queue of his own; places that all share go round the waiting callers, so one caller's
// long queue does not delay the others.
package concurrency

import (
	"time"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Config is the options of concurrency.
type Config struct {
	Limit      int           `yaml:"limit" min:"0" max:"1000000" doc:"Requests of one key that run at one time. 0: no limit but total."`
	Total      int           `yaml:"total" min:"0" max:"1000000" doc:"Requests of all keys together that run at one time. 0: no limit but limit."`
	Key        string        `yaml:"key" doc:"An expression for who is counted apart. Without one: the known consumer. Where it is empty: the client's address (IPv6: its /64)."`
	Queue      int           `yaml:"queue" min:"0" max:"10000" doc:"Requests of one key that may wait for a place. 0: refuse at once."`
	Wait       time.Duration `yaml:"wait" min:"1ms" max:"5m" doc:"The longest that one waits."`
	Status     int           `yaml:"status" oneof:"503 429" doc:"Of the refusal: 503, we are busy, or 429, you ask too much."`
	RetryAfter time.Duration `yaml:"retry_after" min:"1s" max:"1h" doc:"What Retry-After of a refusal says."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "concurrency",
	Summary: "Limits how many requests run at one time.",
	Stage:   policy.Limit,
	Codes:   []exchange.Code{full, exceeded},
	Default: func() Config { return Config{Wait: time.Second, Status: 503, RetryAfter: time.Second} },
	Check:   check,
	Build:   build,
})

var (
	full     = exchange.Code{Name: "concurrency_full", Status: 503, Title: "Too many requests are running; try again later."}
	exceeded = exchange.Code{Name: "concurrency_exceeded", Status: 429, Title: "Too many of your requests are running; wait for some to end."}
)

func check(c Config) error {
	if c.Limit == 0 && c.Total == 0 {
		return decode.At("", "neither limit nor total is given, so nothing would be limited; "+
			"write limit: N for each key, total: N for all together, or both")
	}
	return nil
}

func build(c Config, e policy.Env) (policy.Hooks, error) {
	l, err := newLimiter(c, e)
	if err != nil {
		return policy.Hooks{}, err
	}
	h := policy.Hooks{Request: policy.Step{Now: l.now}, Done: l.done}
	if c.Queue > 0 {
		h.Request.Later = l.later
	}
	return h, nil
}
