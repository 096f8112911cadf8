// Package ipfilter is the policy ip-filter: it admits callers by their address.
//
// The address is the client's own, behind trusted proxies if there are any (trusted_proxies of the listener).
package ipfilter

import (
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Config is the options of ip-filter.
type Config struct {
	Allow  []string `yaml:"allow" max:"100000" doc:"Addresses and CIDR ranges that may call. Without any: all that are not denied."`
	Deny   []string `yaml:"deny" max:"100000" doc:"Addresses and CIDR ranges that may not, even when allow has them."`
	Status int      `yaml:"status" oneof:"403 404" doc:"For others: 403, or 404 as if there were nothing."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "ip-filter",
	Summary: "Admits callers by their address.",
	Stage:   policy.Admit,
	Codes:   []exchange.Code{addressForbidden},
	Default: func() Config { return Config{Status: 403} },
	Check: func(c Config) error {
		_, err := compile(c)
		return err
	},
	Build: build,
})

var addressForbidden = exchange.Code{Name: "address_forbidden", Status: 403, Title: "Requests from this address are not allowed here."}

func build(c Config, _ policy.Env) (policy.Hooks, error) {
	f, err := compile(c)
	if err != nil {
		return policy.Hooks{}, err
	}
	refusal := addressForbidden
	if c.Status == 404 {
		refusal = exchange.RouteNotFound // in every byte what an address without an API answers
	}
	return policy.Hooks{Request: policy.Step{Now: func(x *exchange.Exchange) policy.Verdict {
		if f.admits(x.Client.IP) {
			return policy.Continue
		}
		return policy.Refuse(x, refusal, "")
	}}}, nil
}
