// Package jwt is the policy jwt: it finds out who calls by a signed token (RFC 7519), as RFC 8725 advises.
//
// Tokens that were verified are remembered until they expire, so that a repeat costs one hash. Keys stand in the document
// or are fetched from an identity provider; whoever knows a key never waits for the provider.
package jwt

import (
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/policy/credential"
	"headgate/internal/jose"
	"headgate/internal/jwks"
	"headgate/internal/size"
)

// Config is the options of jwt.
type Config struct {
	From         credential.Sources `yaml:"from" doc:"Where the token may stand, in this order."`
	Required     bool               `yaml:"required" doc:"Refuse requests without a token."`
	Keys         []jose.Material    `yaml:"keys" max:"64" doc:"Keys of whoever makes the tokens."`
	JWKS         jwks.Options       `yaml:"jwks" doc:"Keys that are fetched from an identity provider."`
	Issuer       string             `yaml:"issuer" doc:"What iss must be. Without keys and jwks.url, keys are found there."`
	Audience     []string           `yaml:"audience" max:"64" doc:"One of them must be in aud; * for any. Required with fetched keys."`
	Algorithms   []string           `yaml:"algorithms" max:"16" doc:"Accepted signature algorithms; the key decides further."`
	Types        []string           `yaml:"types" max:"16" doc:"What typ may be, in any case; an empty text for a token without typ."`
	Leeway       time.Duration      `yaml:"leeway" min:"0s" max:"5m" doc:"By how much clocks may differ."`
	MaxAge       time.Duration      `yaml:"max_age" min:"0s" doc:"How long after iat a token is good at most. 0: as long as exp says."`
	Claims       []string           `yaml:"required_claims" max:"32" doc:"Claims that must be there, by dotted path."`
	MaxSize      size.Bytes         `yaml:"max_size" min:"256" max:"64KiB" doc:"Longest token; a longer one is not even read."`
	Consumer     mapping            `yaml:"consumer" doc:"Which consumer the token is."`
	Forward      bool               `yaml:"forward_token" doc:"Leave the token in the request that the upstream gets."`
	ClaimHeaders map[string]string  `yaml:"claim_headers" max:"32" doc:"Header fields for the upstream, each with the claim it holds."`
	Remember     memory             `yaml:"remember" doc:"Verified tokens that are kept until they expire."`
	Realm        string             `yaml:"realm" doc:"What the token is for, in WWW-Authenticate."`
}

// mapping says which consumer a token is.
type mapping struct {
	Claim    string `yaml:"claim" doc:"The claim that names it, by dotted path; subjects of consumers list its values."`
	Required bool   `yaml:"required" doc:"Refuse tokens that are no consumer's."`
}

// memory bounds the tokens that are remembered.
type memory struct {
	Tokens int        `yaml:"tokens" min:"0" max:"1000000" doc:"How many; 0 for none."`
	Size   size.Bytes `yaml:"size" min:"64KiB" max:"1GiB" doc:"How much memory they may take, about."`
}

// Kind is the policy's entry in the catalogue.
var Kind = policy.New(policy.Spec[Config]{
	Name:    "jwt",
	Summary: "Finds out who calls by a signed token.",
	Stage:   policy.Identify,
	Codes: []exchange.Code{
		tokenMissing, tokenRepeated, tokenInvalid, tokenKeyUnknown, tokenExpired, tokenNotYetValid, tokenWrongIssuer,
		tokenWrongAudience, tokenWrongType, tokenClaimMissing, consumerUnknown, keysUnavailable,
	},
	Default: defaults,
	Check:   check,
	Build:   build,
})

func defaults() Config {
	return Config{
		From: credential.Sources{{Header: "Authorization", Scheme: "Bearer"}}, Required: true,
		JWKS:       jwks.Options{Refresh: 5 * time.Minute, Timeout: 5 * time.Second},
		Algorithms: jose.Algorithms(), Types: []string{"", "JWT", "at+jwt"},
		Leeway: 30 * time.Second, Claims: []string{"exp"}, MaxSize: 8 * size.KiB,
		Consumer: mapping{Claim: "sub"}, Forward: true,
		Remember: memory{Tokens: 16384, Size: 32 * size.MiB}, Realm: "headgate",
	}
}

var (
	tokenMissing       = exchange.Code{Name: "token_missing", Status: 401, Title: "This API needs a token, and the request has none."}
	tokenRepeated      = exchange.Code{Name: "token_repeated", Status: 400, Title: "The token was sent more than once."}
	tokenInvalid       = exchange.Code{Name: "token_invalid", Status: 401, Title: "The token is not valid."}
	tokenKeyUnknown    = exchange.Code{Name: "token_key_unknown", Status: 401, Title: "The token is signed with a key that is not known here."}
	tokenExpired       = exchange.Code{Name: "token_expired", Status: 401, Title: "The token has expired."}
	tokenNotYetValid   = exchange.Code{Name: "token_not_yet_valid", Status: 401, Title: "The token is not valid yet."}
	tokenWrongIssuer   = exchange.Code{Name: "token_wrong_issuer", Status: 401, Title: "The token is from an issuer that is not trusted."}
	tokenWrongAudience = exchange.Code{Name: "token_wrong_audience", Status: 401, Title: "The token is meant for another API."}
	tokenWrongType     = exchange.Code{Name: "token_wrong_type", Status: 401, Title: "Tokens of this type are not accepted."}
	tokenClaimMissing  = exchange.Code{Name: "token_claim_missing", Status: 401, Title: "The token lacks a claim that this API needs."}
	consumerUnknown    = exchange.Code{Name: "consumer_unknown", Status: 403, Title: "The token belongs to nobody known here."}
	keysUnavailable    = exchange.Code{Name: "keys_unavailable", Status: 503, Title: "The keys to check the token with are not available."}
)

// codes tells callers which rule their token breaks.
var codes = [...]exchange.Code{
	jose.Invalid: tokenInvalid, jose.Expired: tokenExpired, jose.NotYetValid: tokenNotYetValid, jose.WrongIssuer: tokenWrongIssuer,
	jose.WrongAudience: tokenWrongAudience, jose.WrongType: tokenWrongType, jose.ClaimMissing: tokenClaimMissing,
}
