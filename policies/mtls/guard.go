package mtls

import (
	"strings"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// guard is the policy of one place in the document.
type guard struct {
	consumers         policy.Consumers
	by                []string
	required, anybody bool
}

func (g *guard) now(x *exchange.Exchange) policy.Verdict {
	if x.Client.TLS == nil || x.Client.TLS.Certificate == nil {
		if g.required {
			return policy.Refuse(x, certificateMissing, "")
		}
		return policy.Continue
	}
	if owner := g.owner(x.Client.TLS.Certificate); owner != nil {
		x.Consumer = owner
		return policy.Continue
	}
	if g.anybody {
		return policy.Continue
	}
	return policy.Refuse(x, certificateUnknown, "")
}

// owner looks for the first property that is a consumer's.
func (g *guard) owner(c *exchange.Certificate) *exchange.Consumer {
	for _, kind := range g.by {
		var owner *exchange.Consumer
		switch kind {
		case "thumbprint":
			owner = g.consumers.ByCertificate(kind, c.Thumbprint)
		case "subject":
			owner = g.consumers.ByCertificate(kind, c.Subject)
		case "dns":
			owner = g.anyOf(kind, c.DNS)
		case "uri":
			for _, u := range c.URIs { // their paths tell case apart
				if owner = g.consumers.ByCertificate(kind, u); owner != nil {
					break
				}
			}
		case "email":
			owner = g.anyOf(kind, c.Emails)
		}
		if owner != nil {
			return owner
		}
	}
	return nil
}

// anyOf looks for names that are the same in any case.
func (g *guard) anyOf(kind string, values []string) *exchange.Consumer {
	for _, v := range values {
		if owner := g.consumers.ByCertificate(kind, strings.ToLower(v)); owner != nil {
			return owner
		}
	}
	return nil
}
