// Package fault is the policy fault: it delays, aborts, cuts off or slows down a share of the exchanges, so that callers can
// be seen to cope before a service does it to them.
package fault

import (
	"errors"
	"time"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/size"
)

// Config is the options of fault.
type Config struct {
	Delay     *delay     `yaml:"delay" doc:"Wait before the upstream is asked."`
	Abort     *abort     `yaml:"abort" doc:"Answer with a problem instead of asking the upstream."`
	Cut       *cut       `yaml:"cut" doc:"Break a reply off in the middle of its body, as a service that crashes does."`
	Bandwidth *bandwidth `yaml:"bandwidth" doc:"Carry bodies slowly."`
	Key       string     `yaml:"key" doc:"An expression: exchanges with the same key are all hit or none, on every node and after a restart. Without one, and where it is empty: by chance each time."`
}

type delay struct {
	For     time.Duration `yaml:"for" required:"true" min:"1ms" max:"5m" doc:"How long."`
	Jitter  time.Duration `yaml:"jitter" min:"0s" max:"5m" doc:"Up to this much more or less, spread evenly."`
	Percent float64       `yaml:"percent" min:"0" max:"100" doc:"Share of the exchanges."`
}

type abort struct {
	Status  int     `yaml:"status" min:"400" max:"599" doc:"Its status."`
	Percent float64 `yaml:"percent" min:"0" max:"100" doc:"Share of the exchanges."`
}

type cut struct {
	After   size.Bytes `yaml:"after" doc:"Bytes of the body that are let through; over HTTP/2 and 3 the client may get fewer of them. Shorter ones pass whole. 0: the head alone."`
	Percent float64    `yaml:"percent" min:"0" max:"100" doc:"Share of the exchanges."`
}

type bandwidth struct {
	Request size.Bytes `yaml:"request" max:"1GiB" doc:"Bytes of a request's body in a second, at most. 0: as fast as they come."`
	Reply   size.Bytes `yaml:"reply" max:"1GiB" doc:"Bytes of a reply's body in a second, at most. 0: as fast as they come."`
	Percent float64    `yaml:"percent" min:"0" max:"100" doc:"Share of the exchanges."`
}

// SetDefaults hits every exchange.
func (d *delay) SetDefaults() { d.Percent = 100 }

// SetDefaults answers every exchange with 503.
func (a *abort) SetDefaults() { a.Status, a.Percent = 503, 100 }

// SetDefaults hits every exchange.
func (c *cut) SetDefaults() { c.Percent = 100 }

// SetDefaults hits every exchange.
func (b *bandwidth) SetDefaults() { b.Percent = 100 }

// Kind is the policy's entry in the catalogue. It stands among those that shape, behind whoever finds out who calls: where
// the condition of its envelope has no answer, nobody is hit.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "fault",
	Summary: "Delays, aborts, cuts off or slows down a share of the exchanges, for tests.",
	Stage:   policy.Shape,
	Codes:   []exchange.Code{injected},
	Check:   check,
	Build:   build,
})

var injected = exchange.Code{Name: "fault_injected", Status: 503, Title: "This failure was made on purpose, for a test."}

func check(c Config) error {
	var wrong []error
	if c.Delay == nil && c.Abort == nil && c.Cut == nil && c.Bandwidth == nil {
		wrong = append(wrong, decode.At("", "no fault is given; write delay, abort, cut or bandwidth"))
	}
	if d := c.Delay; d != nil && d.Jitter > d.For {
		wrong = append(wrong, decode.At("delay.jitter", "%v is more than the delay of %v; nobody waits less than nothing", d.Jitter, d.For))
	}
	if b := c.Bandwidth; b != nil && b.Request == 0 && b.Reply == 0 {
		wrong = append(wrong, decode.At("bandwidth", "neither request nor reply is given; write at least one, such as reply: 64KiB"))
	}
	return errors.Join(wrong...)
}

func build(c Config, e policy.Env) (policy.Hooks, error) {
	f, err := newFaults(c, e)
	if err != nil {
		return policy.Hooks{}, err
	}
	h := policy.Hooks{Request: policy.Step{Now: f.now}, Response: policy.Step{Now: f.mark}}
	if c.Delay != nil {
		h.Request.Later = f.later
	}
	if c.Bandwidth != nil && c.Bandwidth.Request > 0 {
		h.RequestBody = f.requestBody
	}
	if c.Cut != nil || c.Bandwidth != nil && c.Bandwidth.Reply > 0 {
		h.ResponseBody = f.responseBody
	}
	return h, nil
}
