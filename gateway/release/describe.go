package release

import (
	"fmt"
	"time"

	"headgate/gateway/exchange"
)

// describer is a service that can say what it does with an exchange.
type describer interface {
	Describe(*exchange.Exchange) []string
}

// below describes the service that another one stands in front of.
func below(s Service, x *exchange.Exchange) []string {
	if d, ok := s.(describer); ok {
		return d.Describe(x)
	}
	return nil
}

// Describe says what shares the variants have at the exchange's time and which of them it gets, for people.
func (s *Split) Describe(x *exchange.Exchange) (lines []string) {
	all := 0.0
	for i := range s.variants {
		all += s.variants[i].at(x.Start)
	}
	for i := range s.variants {
		v := &s.variants[i]
		line := fmt.Sprintf("variant %s gets %s from upstream %s", v.name, share(v.at(x.Start), all), v.asks)
		if r := v.ramp; r != nil {
			line += fmt.Sprintf(" (weight %.4g, %.4g from %s on)", v.at(x.Start), r.to, r.start.Add(r.over).UTC().Format(time.RFC3339))
		}
		lines = append(lines, line)
	}
	switch v, why := s.choose(x, 0); {
	case v == nil:
		lines = append(lines, "all weights are 0 now: 503 no_target, unless the request names a variant")
	case why == byOverride:
		lines = append(lines, "this request gets "+v.name+": it names it, and it may")
	case why == byKey:
		lines = append(lines, "this request gets "+v.name+" by its key")
	case s.key != nil:
		lines = append(lines, "this request has no key: the sticky cookie decides, or chance")
	default:
		lines = append(lines, "the sticky cookie decides, or chance")
	}
	return lines
}

// Describe says who gets copies, and what is behind the mirror.
func (m *Mirror) Describe(x *exchange.Exchange) []string {
	what := "are thrown away"
	if m.compare != nil {
		what = "are compared"
	}
	line := fmt.Sprintf("upstream %s gets copies of %.4g %% of the requests, whose answers %s", m.asks, m.percent, what)
	return append([]string{line}, below(m.to, x)...)
}

func share(part, all float64) string {
	if all <= 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.4g %%", 100*part/all)
}

// Describe says what the cookie does, and what is behind it.
func (p *Pinned) Describe(x *exchange.Exchange) []string {
	what := "target"
	if p.inner != nil {
		what = "variant and target"
	}
	return append([]string{"the cookie " + p.cookie.Name() + " keeps a client at its " + what}, below(p.to, x)...)
}
