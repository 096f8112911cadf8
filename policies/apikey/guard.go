package apikey

import (
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/policy/credential"
)

// guard is the policy of one place in the document.
type guard struct {
	from      credential.Sources
	required  bool
	hide      bool
	challenge string
	keys      *index
}

// identify finds the consumer that owns the request's key.
func (g *guard) identify(x *exchange.Exchange) policy.Verdict {
	key, result := g.from.Find(x)
	switch result {
	case credential.Missing:
		if !g.required {
			return policy.Continue
		}
		return g.refuse(x, keyMissing, "")
	case credential.Ambiguous:
		return g.refuse(x, keyInvalid, "The key was sent more than once.")
	}
	consumer := g.keys.owner(x, key)
	if consumer == nil {
		return g.refuse(x, keyInvalid, "")
	}
	x.Consumer = consumer
	if g.hide {
		g.from.Hide(x)
	}
	return policy.Continue
}

// refuse says in WWW-Authenticate how to do better (RFC 9110 section 11.6.1).
func (g *guard) refuse(x *exchange.Exchange, code exchange.Code, detail string) policy.Verdict {
	v := policy.Refuse(x, code, detail)
	x.Reply.Header.Add("WWW-Authenticate", g.challenge)
	return v
}
