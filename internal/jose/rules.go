package jose

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rules are what a token must fulfil besides its signature.
type Rules struct {
	Algorithms []string // accepted ones
	Types      []string // accepted values of typ, in any case; "" for none
	Issuer     string   // what iss must be; "": anything
	Audience   []string // one of them must be in aud; "*" or an empty list: anything
	Required   []string // claims that must be there, by dotted path
	Leeway     time.Duration
	MaxAge     time.Duration // after iat; 0: as long as exp says
}

// Why is which rule a token breaks.
type Why uint8

// The rules that can be broken.
const (
	Invalid Why = iota // malformed, or of an algorithm that is not accepted
	Expired
	NotYetValid
	WrongIssuer
	WrongAudience
	WrongType
	ClaimMissing
)

// Violation says which rule a token breaks, and for the operator how.
type Violation struct {
	Why   Why
	Cause error
}

func broken(why Why, format string, args ...any) *Violation {
	return &Violation{why, fmt.Errorf(format, args...)}
}

// Head checks the token's algorithm and type, before anything is computed.
func (r *Rules) Head(t Token) *Violation {
	if !slices.Contains(r.Algorithms, t.Algorithm) {
		return broken(Invalid, "its algorithm %.20q is not accepted here", t.Algorithm)
	}
	const prefix = "application/" // may be left out (RFC 7515 section 4.1.9)
	typ := t.Type
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	if !slices.ContainsFunc(r.Types, func(s string) bool { return strings.EqualFold(s, typ) }) {
		return broken(WrongType, "its typ is %.40q", t.Type)
	}
	return nil
}

// Claims checks what RFC 7519 section 4.1 registers, and that the required claims are there. until is when the token
// expires by its own word, without leeway; zero: never.
func (r *Rules) Claims(c *Claims, now time.Time) (until time.Time, v *Violation) {
	for _, path := range r.Required {
		if c.Claim(path) == nil {
			return until, broken(ClaimMissing, "it has no %s", path)
		}
	}
	if until, v = r.times(c, now); v != nil {
		return until, v
	}
	if r.Issuer != "" && c.Claim("iss") != any(r.Issuer) {
		return until, broken(WrongIssuer, "its iss is %.100q", fmt.Sprint(c.Claim("iss")))
	}
	audience, err := c.Strings("aud")
	if err != nil {
		return until, &Violation{Invalid, err}
	}
	meant := func(s string) bool { return slices.Contains(r.Audience, s) }
	if len(r.Audience) > 0 && !meant("*") && !slices.ContainsFunc(audience, meant) {
		return until, broken(WrongAudience, "its aud is %.100q", audience)
	}
	return until, nil
}

func (r *Rules) times(c *Claims, now time.Time) (until time.Time, v *Violation) {
	exp, expires, err1 := c.Time("exp")
	nbf, begins, err2 := c.Time("nbf")
	iat, dated, err3 := c.Time("iat")
	if err := errors.Join(err1, err2, err3); err != nil {
		return until, &Violation{Invalid, err}
	}
	if r.MaxAge > 0 {
		if !dated {
			return until, broken(ClaimMissing, "it has no iat, which its greatest age is counted from")
		}
		if end := iat.Add(r.MaxAge); !expires || end.Before(exp) {
			exp, expires = end, true
		}
	}
	switch {
	case expires && !now.Before(exp.Add(r.Leeway)):
		return until, broken(Expired, "it was good until %s", exp.UTC().Format(time.RFC3339))
	case begins && now.Add(r.Leeway).Before(nbf):
		return until, broken(NotYetValid, "it is good from %s", nbf.UTC().Format(time.RFC3339))
	case dated && now.Add(r.Leeway).Before(iat):
		return until, broken(NotYetValid, "it was made at %s, which is yet to come", iat.UTC().Format(time.RFC3339))
	case expires:
		return exp, nil
	}
	return until, nil
}
