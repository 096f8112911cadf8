package basicauth

import (
	"context"
	"errors"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
)

// guard is the policy of one place in the document.
type guard struct {
	consumers policy.Consumers
	required  bool
	hide      bool
	challenge string
	gate      *gate
	checks    *metric.Counter
	refused   *metric.Counter
}

// now decides unless the password must be checked the slow way.
func (g *guard) now(x *exchange.Exchange) policy.Verdict {
	username, password, result := credentials(&x.Request.Header)
	switch result {
	case missing:
		if !g.required {
			return policy.Continue
		}
		return g.refuse(x, credentialsMissing, "")
	case malformed:
		return g.refuse(x, credentialsInvalid, "The Authorization field is not one valid Basic credential (RFC 7617).")
	}
	consumer, ready := g.consumers.ByPassword(username, password, false)
	if !ready {
		return policy.Wait
	}
	return g.settle(x, consumer)
}

// later checks the password the slow way as soon as there is room.
func (g *guard) later(ctx context.Context, x *exchange.Exchange) policy.Verdict {
	username, password, result := credentials(&x.Request.Header)
	if result != present {
		return g.now(x)
	}
	if err := g.gate.enter(ctx, x.Client.IP); err != nil {
		g.refused.Inc(x.Shard)
		code := loginsBusy
		if errors.Is(err, errClientBusy) {
			code = tooManyLogins
		}
		v := policy.Refuse(x, code, "")
		x.Err.Cause = err
		x.Reply.Header.Add("Retry-After", "1")
		return v
	}
	defer g.gate.leave(x.Client.IP)
	g.checks.Inc(x.Shard)
	consumer, _ := g.consumers.ByPassword(username, password, true)
	return g.settle(x, consumer)
}

func (g *guard) settle(x *exchange.Exchange, consumer *exchange.Consumer) policy.Verdict {
	if consumer == nil {
		return g.refuse(x, credentialsInvalid, "")
	}
	x.Consumer = consumer
	if g.hide {
		x.Request.Header.Del("Authorization")
	}
	return policy.Continue
}

// refuse says how to log in (RFC 7617 section 2 and, for the charset, section 2.1).
func (g *guard) refuse(x *exchange.Exchange, code exchange.Code, detail string) policy.Verdict {
	v := policy.Refuse(x, code, detail)
	x.Reply.Header.Add("WWW-Authenticate", g.challenge)
	return v
}
