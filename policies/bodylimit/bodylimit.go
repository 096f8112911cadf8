// Package bodylimit is the policy body-limit: how large a request's body may be.
package bodylimit

import (
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/size"
)

// Config is the options of body-limit.
type Config struct {
	Max size.Bytes `yaml:"max" required:"true" doc:"The largest request body that is let through, such as 64KiB or 10MB. 0: none at all."`
}

// FromScalar reads the short form, the largest size alone.
func (c *Config) FromScalar(s string) (err error) {
	c.Max, err = size.Parse(s)
	return err
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "body-limit",
	Summary: "Limits how large a request's body may be.",
	Stage:   policy.Validate,
	Codes:   []exchange.Code{exchange.BodyTooLarge},
	Build:   build,
})

func build(c Config, _ policy.Env) (policy.Hooks, error) {
	l := &limit{max: int64(c.Max), detail: "At most " + c.Max.String() + " bytes are allowed."}
	if c.Max >= size.KiB {
		l.detail = "At most " + c.Max.String() + " are allowed."
	}
	return policy.Hooks{Request: policy.Step{Now: l.announced}, RequestBody: l.streamed}, nil
}
