package health

import (
	"cmp"
	"fmt"
	"strings"

	"headgate/config/model"
)

// Rules are what a document says about health, in words.
type Rules struct {
	Probes   string `json:"probes"`
	Ejection string `json:"ejection"`
	AllOut   string `json:"when_all_are_out"`
}

// Rules says by what the targets are judged.
func (g *Group) Rules() Rules {
	return Rules{probesInWords(g.probe), ejectionInWords(&g.rules), cmp.Or(g.rules.OnAllDown, "ask-all")}
}

func probesInWords(h *model.Health) string {
	if h == nil {
		return "none"
	}
	how, expected := "GET "+h.Path, ""
	switch {
	case h.TCP:
		how = "a connection"
	case h.GRPC != nil:
		how = strings.TrimSpace("gRPC's Health/Check " + h.GRPC.Service)
	}
	if e := h.Expect; e != nil {
		var all []string
		if len(e.Status) > 0 {
			all = append(all, "status "+numbers(e.Status))
		}
		if e.Body != "" {
			all = append(all, "a body that matches "+e.Body)
		}
		if e.JSON != "" {
			all = append(all, e.JSON)
		}
		expected = "; expecting " + strings.Join(all, " and ")
	}
	return fmt.Sprintf("%s every %s (%s when unhealthy), within %s; out after %d failures, back after %d successes%s", how,
		Span(h.Interval), Span(cmp.Or(h.Sick, h.Interval)), Span(h.Timeout), h.Unhealthy, h.Healthy, expected)
}

func ejectionInWords(e *model.Ejection) string {
	var causes []string
	for _, c := range []struct {
		given bool
		text  string
	}{
		{e.Failures > 0, fmt.Sprintf("%d failures in a row", e.Failures)},
		{e.Connects > 0, fmt.Sprintf("%d failed connections in a row", e.Connects)},
		{e.Share > 0, fmt.Sprintf("%d %% failures of %d or more requests in %s", e.Share, leastRequests, Span(span))},
		{e.Latency > 0, fmt.Sprintf("%g times the others' latency", e.Latency)},
	} {
		if c.given {
			causes = append(causes, c.text)
		}
	}
	if len(causes) == 0 || e.MaxShare == 0 {
		return "never"
	}
	return fmt.Sprintf("after %s; for %s, up to %s; at most %d %% of the targets", strings.Join(causes, ", or "),
		Span(e.For), Span(maxFactor*e.For), e.MaxShare)
}
