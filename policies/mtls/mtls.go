// Package mtls is the policy mtls: it finds out who calls by the certificate that the client showed in the handshake.
//
// That the certificate is genuine, valid and not revoked the listener has verified before (client_auth). What is left is to
// find out whose it is.
package mtls

import (
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Config is the options of mtls.
type Config struct {
	By       []string `yaml:"by" oneof:"thumbprint subject dns uri email" doc:"Properties by which a consumer is looked for, in this order. Without any: all, in the order of this list."`
	Required bool     `yaml:"required" doc:"Refuse requests without a verified certificate."`
	Anybody  bool     `yaml:"anybody" doc:"Let pass whose certificate is no consumer's, as an unknown caller; otherwise it is refused."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "mtls",
	Summary: "Finds out who calls by the client's certificate.",
	Stage:   policy.Identify,
	Codes:   []exchange.Code{certificateMissing, certificateUnknown},
	Default: func() Config { return Config{Required: true} },
	Build:   build,
})

// There is no scheme to name in WWW-Authenticate for what happens in a handshake, so 401 cannot be said (RFC 9110
// section 15.5.2).
var (
	certificateMissing = exchange.Code{Name: "mtls_missing", Status: 403, Title: "This API needs a client certificate."}
	certificateUnknown = exchange.Code{Name: "mtls_unknown", Status: 403, Title: "The client certificate is not one of a known caller."}
)

func build(c Config, e policy.Env) (policy.Hooks, error) {
	by := c.By
	if len(by) == 0 {
		by = []string{"thumbprint", "subject", "dns", "uri", "email"}
	}
	g := &guard{consumers: e.Consumers, by: by, required: c.Required, anybody: c.Anybody}
	return policy.Hooks{Request: policy.Step{Now: g.now}}, nil
}
