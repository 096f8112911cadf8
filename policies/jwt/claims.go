package jwt

import (
	"encoding/json"
	"fmt"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/jose"
)

// identity is what a verified token comes to. It is immutable.
type identity struct {
	claims   *jose.Claims
	consumer *exchange.Consumer
	headers  []exchange.Field // for the upstream
}

// identify finds the consumer and makes the header fields for the upstream.
func (v *verifier) identify(c *jose.Claims) (*identity, *refusal) {
	id := &identity{claims: c}
	if subject, ok := c.Claim(v.config.Consumer.Claim).(string); ok && subject != "" {
		id.consumer = v.consumers.BySubject(subject)
	}
	if id.consumer == nil && v.config.Consumer.Required {
		return nil, &refusal{consumerUnknown, fmt.Errorf("no consumer has the subject that is in %s", v.config.Consumer.Claim)}
	}
	for _, name := range v.own {
		if value, ok := fieldValue(c.Claim(v.config.ClaimHeaders[name])); ok {
			id.headers = append(id.headers, exchange.Field{Name: name, Value: value})
		}
	}
	return id, nil
}

// fieldValue writes a claim as a field's value: text as it is, anything else as JSON, so that a list with a comma in an
// element stays a list. A text that cannot stand in a field is left out.
func fieldValue(claim any) (string, bool) {
	switch v := claim.(type) {
	case nil:
		return "", false
	case string:
		return v, exchange.ValidValue(v)
	}
	b, err := json.Marshal(claim)
	return string(b), err == nil
}

// admit makes the exchange the caller's.
func (v *verifier) admit(x *exchange.Exchange, id *identity) policy.Verdict {
	x.Claims = id.claims
	if id.consumer != nil {
		x.Consumer = id.consumer
	}
	if !v.config.Forward {
		v.config.From.Hide(x)
	}
	for i := range id.headers {
		x.Request.Header.Add(id.headers[i].Name, id.headers[i].Value)
	}
	return policy.Continue
}
