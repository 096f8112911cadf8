// Package apikey is the policy api-key: it finds out who calls by a key in a header, the query or a cookie.
//
// Keys belong to consumers, and the document keeps only their SHA-256. A key that was found good is remembered under a
// keyed hash, so that the next request with it pays for a look-up only.
package apikey

import (
	"errors"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/policy/credential"
)

// Config is the options of api-key.
type Config struct {
	From     credential.Sources `yaml:"from" doc:"Where the key may stand, in this order."`
	Required bool               `yaml:"required" doc:"Refuse requests without a key. A key that nobody owns is refused in any case."`
	Hide     bool               `yaml:"hide" doc:"Take the key out of the request before the upstream gets it."`
	Realm    string             `yaml:"realm" doc:"What WWW-Authenticate says that the key is for."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "api-key",
	Summary: "Finds out who calls by an API key.",
	Stage:   policy.Identify,
	Codes:   []exchange.Code{keyMissing, keyInvalid},
	Default: func() Config {
		return Config{From: credential.Sources{{Header: "X-Api-Key"}}, Required: true, Hide: true, Realm: "headgate"}
	},
	Check: check,
	Build: build,
})

var (
	keyMissing = exchange.Code{Name: "api_key_missing", Status: 401, Title: "This API needs an API key, and the request has none."}
	keyInvalid = exchange.Code{Name: "api_key_invalid", Status: 401, Title: "The API key is not valid."}
)

func check(c Config) error { return errors.Join(c.From.Check("from"), credential.CheckRealm(c.Realm)) }

func build(c Config, e policy.Env) (policy.Hooks, error) {
	g := &guard{
		from: c.From, required: c.Required, hide: c.Hide,
		challenge: `ApiKey realm="` + c.Realm + `"`,
		keys:      newIndex(e),
	}
	return policy.Hooks{Request: policy.Step{Now: g.identify}}, nil
}
