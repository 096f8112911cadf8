package jwt

import (
	"context"
	"errors"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/policy/credential"
	"headgate/internal/jose"
	"headgate/internal/jwks"
	"headgate/internal/metric"
	"headgate/internal/recall"
)

// verifier is the policy of one place in the document.
type verifier struct {
	config    Config
	static    *jwks.Set      // keys of the document
	provider  *jwks.Provider // nil: there are no others
	consumers policy.Consumers
	own       credential.Own // set by claim_headers
	rules     jose.Rules
	memory    *recall.Memory[*identity] // nil: nothing is remembered
	challenge string
	verified  *metric.Counter
}

// refusal is why a token is not accepted: what the caller is told, and the cause for the operator's log.
type refusal struct {
	code  exchange.Code
	cause error
}

var errUnknownKey = errors.New("no key fits the token's kid and alg")

// strip drops forged claim headers, whoever the caller turns out to be.
func (v *verifier) strip(x *exchange.Exchange) { v.own.Drop(&x.Request.Header) }

// now decides unless the provider must be asked.
func (v *verifier) now(x *exchange.Exchange) policy.Verdict {
	raw, result := v.config.From.Find(x)
	switch {
	case result == credential.Missing && !v.config.Required:
		return policy.Continue
	case result == credential.Missing:
		return v.refuse(x, &refusal{code: tokenMissing})
	case result == credential.Ambiguous:
		return v.refuse(x, &refusal{code: tokenRepeated})
	case len(raw) > int(v.config.MaxSize):
		return v.refuse(x, &refusal{tokenInvalid, errors.New("it is longer than max_size")})
	}
	fetched := v.current(x.Start)
	key, version := recall.Sum(raw), v.version(fetched)
	if v.memory != nil {
		if id, ok := v.memory.Get(key, version, x.Start.UnixNano()); ok {
			return v.admit(x, id)
		}
	}
	return v.decide(x, raw, fetched, v.provider != nil)
}

// later asks the provider for its keys or for those that it has added, and decides.
func (v *verifier) later(ctx context.Context, x *exchange.Exchange) policy.Verdict {
	raw, _ := v.config.From.Find(x)
	fetched := v.current(x.Start) // others may have waited for the same key
	if verdict := v.decide(x, raw, fetched, true); !verdict.Waits() {
		return verdict
	}
	fetched, err := v.provider.Lookup(ctx, x.Start, x.Client.IP)
	if fetched == nil || ctx.Err() != nil {
		return policy.Fail(&exchange.Error{Code: keysUnavailable, Source: exchange.FromGateway, Cause: err})
	}
	verdict := v.decide(x, raw, fetched, false)
	if x.Err != nil && err != nil {
		x.Err.Cause = errors.Join(x.Err.Cause, err)
	}
	return verdict
}

// decide verifies the token. With ask set it returns Wait when only the provider can tell.
func (v *verifier) decide(x *exchange.Exchange, raw string, fetched *jwks.Set, ask bool) policy.Verdict {
	token, err := jose.Parse(raw)
	if err != nil {
		return v.refuse(x, &refusal{tokenInvalid, err})
	}
	if broken := v.rules.Head(token); broken != nil {
		return v.refuse(x, &refusal{codes[broken.Why], broken.Cause})
	}
	v.verified.Inc(x.Shard)
	payload, tried, err := v.static.Verify(token)
	if payload == nil && fetched != nil {
		var more bool
		payload, more, err = fetched.Verify(token)
		tried = tried || more
	}
	if payload == nil {
		known := v.static.Knows(token.KeyID) || fetched.Knows(token.KeyID)
		switch {
		case ask && (fetched == nil || (token.KeyID != "" && !known)):
			return policy.Wait
		case !tried || (token.KeyID != "" && !known):
			return v.refuse(x, &refusal{tokenKeyUnknown, errUnknownKey})
		}
		return v.refuse(x, &refusal{tokenInvalid, err})
	}
	claims, err := jose.ParseClaims(payload)
	if err != nil {
		return v.refuse(x, &refusal{tokenInvalid, err})
	}
	until, broken := v.rules.Claims(claims, x.Start)
	if broken != nil {
		return v.refuse(x, &refusal{codes[broken.Why], broken.Cause})
	}
	id, r := v.identify(claims)
	if r != nil {
		return v.refuse(x, r)
	}
	if now := x.Start.UnixNano(); v.memory != nil && (until.IsZero() || until.After(x.Start)) {
		v.memory.Put(recall.Sum(raw), v.version(fetched), now, nanos(until), identitySize+claimsFactor*len(payload), id)
	}
	return v.admit(x, id)
}

const (
	// identitySize and claimsFactor estimate the memory of a remembered token: parsed claims take several times their text.
	identitySize = 512
	claimsFactor = 8
)

// current returns the provider's keys that may be used now.
func (v *verifier) current(now time.Time) *jwks.Set {
	if v.provider == nil {
		return nil
	}
	return v.provider.Current(now)
}

// version is the state in which a token is verified: the provider's keys and the consumers.
func (v *verifier) version(fetched *jwks.Set) recall.Version {
	version := recall.Version{0, v.consumers.Generation()}
	if fetched != nil {
		version[0] = fetched.Version
	}
	return version
}

// nanos is 0 for no time at all, and never for any other.
func nanos(t time.Time) int64 {
	if t.IsZero() || t.Year() > 2200 {
		return 0
	}
	return t.UnixNano()
}

// refuse answers as RFC 6750 section 3 says.
func (v *verifier) refuse(x *exchange.Exchange, r *refusal) policy.Verdict {
	verdict := policy.Refuse(x, r.code, "")
	x.Err.Cause = r.cause
	challenge := v.challenge
	switch r.code.Status {
	case 400:
		challenge += `, error="invalid_request"`
	case 401:
		if r.code != tokenMissing {
			challenge += `, error="invalid_token", error_description="` + r.code.Title + `"`
		}
	default:
		return verdict
	}
	x.Reply.Header.Add("WWW-Authenticate", challenge)
	return verdict
}
