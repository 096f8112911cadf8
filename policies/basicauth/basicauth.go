// Package basicauth is the policy basic-auth: it finds out who calls by user name and password (RFC 7617).
//
// Passwords are kept as bcrypt hashes, which are slow on purpose: a pair that was verified lately passes at once, and
// the others share a small, bounded amount of work, so that a flood of wrong passwords cannot eat the processors.
package basicauth

import (
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/policy/credential"
)

// Config is the options of basic-auth.
type Config struct {
	Realm    string `yaml:"realm" doc:"What the password is for; browsers show it."`
	Required bool   `yaml:"required" doc:"Refuse requests without credentials. Wrong ones are refused in any case."`
	Hide     bool   `yaml:"hide" doc:"Take Authorization out of the request before the upstream gets it."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "basic-auth",
	Summary: "Finds out who calls by user name and password.",
	Stage:   policy.Identify,
	Codes:   []exchange.Code{credentialsMissing, credentialsInvalid, tooManyLogins, loginsBusy},
	Default: func() Config { return Config{Realm: "headgate", Required: true, Hide: true} },
	Check:   func(c Config) error { return credential.CheckRealm(c.Realm) },
	Build:   build,
})

var (
	credentialsMissing = exchange.Code{Name: "basic_auth_missing", Status: 401, Title: "This API needs a user name and a password."}
	credentialsInvalid = exchange.Code{Name: "basic_auth_invalid", Status: 401, Title: "The user name or the password is wrong."}
	tooManyLogins      = exchange.Code{Name: "basic_auth_too_many", Status: 429,
		Title: "Too many passwords from this address are being checked at one time."}
	loginsBusy = exchange.Code{Name: "basic_auth_busy", Status: 503, Title: "Too many passwords are being checked at one time."}
)

func build(c Config, e policy.Env) (policy.Hooks, error) {
	// Every basic-auth of the gateway shares one gate: the processors that it protects are shared as well.
	shared := e
	shared.Instance = "basic-auth"
	g := &guard{
		consumers: e.Consumers, required: c.Required, hide: c.Hide,
		challenge: `Basic realm="` + c.Realm + `", charset="UTF-8"`,
		gate:      policy.Keep(shared, "gate", newGate),
		checks: e.Metrics.Counter("headgate_basic_auth_password_checks_total",
			"Passwords that were checked the slow way, because the pair was not verified lately.", e.Labels...),
		refused: e.Metrics.Counter("headgate_basic_auth_busy_total",
			"Requests refused because too many passwords were being checked.", e.Labels...),
	}
	return policy.Hooks{Request: policy.Step{Now: g.now, Later: g.later}}, nil
}
