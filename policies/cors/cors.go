// Package cors is the policy cors: which web pages of other origins may read this API's replies (the CORS protocol of the
// Fetch standard).
package cors

import (
	"errors"
	"slices"
	"time"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Config is the options of cors.
type Config struct {
	Origins        []string      `yaml:"origins" required:"true" doc:"Who may: exact origins such as https://app.example.com, all below a domain as https://*.example.com, or * alone for everybody."`
	Methods        []string      `yaml:"methods" doc:"What pages may send; * for any."`
	Headers        []string      `yaml:"headers" doc:"Request fields that pages may set, besides those that every page may; * for any."`
	Expose         []string      `yaml:"expose" doc:"Reply fields that pages may read, besides those that every page may; * for any, which means nothing with credentials."`
	Credentials    bool          `yaml:"credentials" doc:"Pages may send cookies and client certificates. Not with origin *."`
	MaxAge         time.Duration `yaml:"max_age" min:"0s" max:"24h" doc:"How long browsers remember a preflight's answer."`
	PrivateNetwork bool          `yaml:"private_network" doc:"Pages on public addresses may ask this API on a private one."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "cors",
	Summary: "Says which web pages of other origins may use an API.",
	Stage:   policy.Admit,
	Default: func() Config {
		return Config{
			Methods: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"},
			Headers: []string{"Authorization", "Content-Type"},
			MaxAge:  10 * time.Minute,
		}
	},
	Check: check,
	Build: build,
})

func check(c Config) error {
	var wrong []error
	for i, o := range c.Origins {
		if _, err := parseOrigin(o); err != nil {
			wrong = append(wrong, decode.At(at("origins", i), "%w", err))
		}
	}
	if len(c.Origins) > 1 && slices.Contains(c.Origins, "*") {
		wrong = append(wrong, decode.At("origins", `"*" stands beside other origins, which it includes; write ["*"] or the others`))
	}
	if c.Credentials && slices.Contains(c.Origins, "*") {
		wrong = append(wrong, decode.At("credentials", `credentials with origin "*" would let every web page act as its visitors; `+
			"name the origins"))
	}
	if c.Credentials && slices.Contains(c.Origins, "null") {
		wrong = append(wrong, decode.At("credentials", `credentials with origin "null" would let any page in a sandboxed frame act as its visitors; `+
			"name the origins"))
	}
	wrong = append(wrong, tokens("methods", c.Methods)...)
	wrong = append(wrong, tokens("headers", c.Headers)...)
	wrong = append(wrong, tokens("expose", c.Expose)...)
	return errors.Join(wrong...)
}

// tokens says which words of a list are no tokens (RFC 9110 section 5.6.2); * is one.
func tokens(key string, list []string) (wrong []error) {
	for i, word := range list {
		if !exchange.ValidName(word) {
			wrong = append(wrong, decode.At(at(key, i), "%q is not a name of a method or header field", word))
		}
	}
	return wrong
}

func build(c Config, e policy.Env) (policy.Hooks, error) {
	s := newSharing(c, e)
	return policy.Hooks{Request: policy.Step{Now: s.preflight}, Response: policy.Step{Now: s.share}}, nil
}
