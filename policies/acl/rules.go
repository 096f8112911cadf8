package acl

import (
	"maps"
	"slices"
	"strings"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// rules is what the options come to.
type rules struct {
	allow, deny set
	claims      []claim
	scheme      string // for nobody: a 401 must say how to log in (RFC 9110 section 15.5.2)
	challenge   string // for a token without the needed scope (RFC 6750 section 3.1)
}

type set struct {
	groups    []string
	consumers map[string]bool
}

type claim struct {
	path   string
	values []string
	all    bool
}

func newRules(c Config) *rules {
	r := &rules{allow: newSet(c.Allow), deny: newSet(c.Deny), scheme: c.Scheme, challenge: `Bearer error="insufficient_scope"`}
	for _, path := range sorted(c.Claims) {
		r.claims = append(r.claims, claim{path, c.Claims[path], c.Match == "all"})
		if scope := strings.Join(c.Claims[path], " "); path == "scope" && plain(scope) {
			r.challenge += `, scope="` + scope + `"`
		}
	}
	return r
}

func newSet(c callers) set {
	s := set{groups: c.Groups, consumers: make(map[string]bool, len(c.Consumers))}
	for _, name := range c.Consumers {
		s.consumers[name] = true
	}
	return s
}

// sorted returns the claims' names in an order that does not change.
func sorted(claims map[string][]string) []string { return slices.Sorted(maps.Keys(claims)) }

// plain reports whether s may stand in a quoted string as it is.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' })
}

func (s set) empty() bool { return len(s.groups) == 0 && len(s.consumers) == 0 }

func (s set) has(c *exchange.Consumer) bool {
	return c != nil && (s.consumers[c.Name] || slices.ContainsFunc(s.groups, c.InGroup))
}

// authorize decides about the caller that earlier policies found: 401 when they found nobody, since logging in could
// help, and 403 when it could not.
func (r *rules) authorize(x *exchange.Exchange) policy.Verdict {
	switch {
	case x.Consumer == nil && x.Claims == nil:
		v := policy.Refuse(x, notIdentified, "")
		x.Reply.Header.Add("WWW-Authenticate", r.scheme)
		return v
	case r.deny.has(x.Consumer), !r.allow.empty() && !r.allow.has(x.Consumer):
		return policy.Refuse(x, notAllowed, "")
	}
	for i := range r.claims {
		if x.Claims == nil || !r.claims[i].holds(x.Claims) {
			v := policy.Refuse(x, insufficientScope, "")
			x.Reply.Header.Add("WWW-Authenticate", r.challenge)
			return v
		}
	}
	return policy.Continue
}

// holds reports whether the token says what is asked.
func (c *claim) holds(claims exchange.Claims) bool {
	said := claims.Claim(c.path)
	for _, want := range c.values {
		if says(said, want) != c.all {
			return !c.all // any: the first that is there; all: the first that is missing
		}
	}
	return c.all
}

// says reports whether a claim has the value: a list holds it, a text is it or has it among its words (scope is a
// space-separated list, RFC 8693 section 4.2), true and false are written so. Numbers and objects have no values.
func says(claim any, want string) bool {
	switch v := claim.(type) {
	case string:
		if v == want {
			return true
		}
		for word := range strings.SplitSeq(v, " ") {
			if word == want && want != "" {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if s, ok := e.(string); ok && s == want {
				return true
			}
		}
	case bool:
		return want == "true" && v || want == "false" && !v
	}
	return false
}
