// Package acl is the policy acl: it decides whether a known caller may, by consumer, group and the claims of a token.
//
// It stands after the policies that find out who calls (api-key, basic-auth, jwt).
package acl

import (
	"errors"
	"strings"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Config is the options of acl.
type Config struct {
	Allow  callers             `yaml:"allow" doc:"Who may. Without any: everybody known."`
	Deny   callers             `yaml:"deny" doc:"Who may not, even when allow has them."`
	Claims map[string][]string `yaml:"claims" max:"32" doc:"What a token must say: values by claim, such as scope or realm.roles."`
	Scheme string              `yaml:"challenge" pattern:"^[A-Za-z0-9-]+$" doc:"WWW-Authenticate of a 401, such as ApiKey."`
	Match  string              `yaml:"match" oneof:"any all" doc:"How many of a claim's values it must have."`
}

// callers is a list of who.
type callers struct {
	Groups    []string `yaml:"groups" doc:"Groups of consumers; one is enough."`
	Consumers []string `yaml:"consumers" doc:"Consumers by name."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "acl",
	Summary: "Decides by consumer, group or token claims who may.",
	Stage:   policy.Authorize,
	Codes:   []exchange.Code{notIdentified, notAllowed, insufficientScope},
	Default: func() Config { return Config{Match: "any", Scheme: "Bearer"} },
	Check:   check,
	Build:   build,
})

var (
	notIdentified     = exchange.Code{Name: "caller_missing", Status: 401, Title: "Nobody may do this without saying who they are."}
	notAllowed        = exchange.Code{Name: "caller_forbidden", Status: 403, Title: "This caller may not do this."}
	insufficientScope = exchange.Code{Name: "insufficient_scope", Status: 403, Title: "The token does not grant what this needs."}
)

func check(c Config) error {
	var errs []error
	for _, name := range sorted(c.Claims) {
		if len(c.Claims[name]) == 0 {
			empty := errors.New("has no values, so no token could pass; list at least one")
			errs = append(errs, &decode.PathError{Path: []string{"claims", name}, Err: empty})
		}
	}
	for _, l := range []struct {
		path string
		list []string
	}{
		{"allow.groups", c.Allow.Groups}, {"allow.consumers", c.Allow.Consumers},
		{"deny.groups", c.Deny.Groups}, {"deny.consumers", c.Deny.Consumers},
	} {
		for _, name := range l.list {
			if strings.TrimSpace(name) == "" {
				errs = append(errs, decode.At(l.path, "has an empty name; write the name of a group or consumer, or leave it out"))
			}
		}
	}
	return errors.Join(errs...)
}

func build(c Config, _ policy.Env) (policy.Hooks, error) {
	return policy.Hooks{Request: policy.Step{Now: newRules(c).authorize}}, nil
}
