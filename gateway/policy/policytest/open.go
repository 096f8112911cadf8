package policytest

import (
	"strings"
	"testing"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// Bench is one policy and the world that it stands in, for tests that call its hooks themselves. A test may build the
// policy again on the same bench, as a reload does.
type Bench struct {
	*World
	Hooks policy.Hooks

	kind  policy.Kind
	slots int
}

// Open builds a policy of that kind from its options in YAML and fails the test when they are not valid.
func Open(t testing.TB, kind policy.Kind, options string) *Bench {
	t.Helper()
	b := &Bench{World: New(t), kind: kind}
	b.Reload(t, options)
	return b
}

// Reload builds the policy anew, before the old one is closed, and returns the old hooks.
func (b *Bench) Reload(t testing.TB, options string) policy.Hooks {
	t.Helper()
	p := b.Build(b.kind, options)
	t.Cleanup(func() {
		if err := p.lease.Release(); err != nil {
			t.Error(err)
		}
	})
	old := b.Hooks
	b.Hooks, b.slots = p.Hooks, p.slots
	return old
}

// Problems returns what is wrong with options, one line for each problem, without places.
func Problems(t testing.TB, kind policy.Kind, options string) string {
	t.Helper()
	var lines []string
	for _, p := range New(t).Problems(kind, options) {
		p.Line, p.Col = 0, 0
		lines = append(lines, decode.Problem.String(p))
	}
	return strings.Join(lines, "\n")
}

// Exchange returns an exchange for a request with the given header lines ("Name: value"), from 192.0.2.1, at the
// bench's time.
func (b *Bench) Exchange(method, target string, lines ...string) *exchange.Exchange {
	x := Request(method+" "+target, lines...)
	x.Start = b.Clock.Now()
	x.MakeSlots(b.slots)
	return x
}

// Fill adds header lines ("Name: value").
func Fill(h *exchange.Header, lines ...string) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		h.Add(name, strings.TrimLeft(value, " "))
	}
}

// Lines returns a header's fields as "Name: value", in order.
func Lines(h *exchange.Header) []string {
	var lines []string
	for name, value := range h.All() {
		lines = append(lines, name+": "+value)
	}
	return lines
}
