package policytest

import (
	"strings"
	"testing"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
)

// Bench is one policy in a world of its own whose hooks a test calls one by one.
type Bench struct {
	*World
	Hooks policy.Hooks

	kind    policy.Kind
	current *Policy
}

// Open builds a policy from its options in YAML. It is closed when the test ends.
func Open(t testing.TB, kind policy.Kind, options string) *Bench {
	t.Helper()
	b := &Bench{World: New(t), kind: kind}
	b.Reload(options)
	return b
}

// Reload builds the policy anew, as a reload does, while the old one still stands.
func (b *Bench) Reload(options string) {
	b.T.Helper()
	b.current = b.Build(b.kind, options)
	b.T.Cleanup(b.current.Close)
	b.Hooks = b.current.Hooks
}

// Run carries one exchange through the policy.
func (b *Bench) Run(x *exchange.Exchange, upstream Upstream) Outcome {
	return b.current.Run(x, upstream)
}

// Exchange returns an exchange for a request at the world's time, with places for the policy's slots.
func (b *Bench) Exchange(line string, header ...string) *exchange.Exchange {
	x := Request(line, header...)
	x.Start = b.Clock.Now()
	x.MakeSlots(b.current.slots)
	return x
}

// Count returns the value of one of the policy's counters.
func (b *Bench) Count(name string, labels ...metric.Label) uint64 {
	all := append([]metric.Label{{Name: "api", Value: "shop"}, {Name: "policy", Value: b.kind.Name}}, labels...)
	return b.Metrics.Counter(name, "", all...).Value()
}

// Wrong returns what is wrong with options, one line for each problem, without lines and columns.
func Wrong(t testing.TB, kind policy.Kind, options string) string {
	t.Helper()
	var lines []string
	for _, p := range New(t).Problems(kind, options) {
		p.Line, p.Col = 0, 0
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Lines returns a header's fields as "Name: value", in order.
func Lines(h *exchange.Header) []string {
	var lines []string
	for name, value := range h.All() {
		lines = append(lines, name+": "+value)
	}
	return lines
}

// Fill adds header lines ("Name: value").
func Fill(h *exchange.Header, lines ...string) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
}
