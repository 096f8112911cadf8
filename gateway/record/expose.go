package record

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"headgate/internal/metric"
)

// reading is the numbers of one route or upstream at a scrape.
type reading struct {
	key   seriesKey
	words []uint64
}

// read returns the numbers of everything that was used, in order of name. The lock is held for the list alone.
func (m *meters) read(all map[seriesKey]*series, of func(*series) *metric.Pack) []reading {
	m.mu.Lock()
	list := slices.Collect(maps.Values(all))
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b *series) int {
		return cmp.Or(cmp.Compare(a.key.api, b.key.api), cmp.Compare(a.key.name, b.key.name))
	})
	readings := make([]reading, 0, len(list))
	for _, s := range list {
		if p := of(s); p != nil {
			readings = append(readings, reading{s.key, p.Sum(nil)})
		}
	}
	return readings
}

// expose writes the families of routes and upstreams. A series appears with its first exchange.
func (m *meters) expose(t *metric.Text) {
	numbers := func(s *series) *metric.Pack { return s.numbers.Load() }
	routes := m.read(m.routes, numbers)
	labels := func(r reading) []metric.Label {
		return []metric.Label{{Name: "api", Value: r.key.api}, {Name: "route", Value: r.key.name}}
	}
	counts(t, "headgate_requests_total", "Exchanges that have ended, by class of the reply's status.", routes, labels,
		"status_class", routeClass, classes[:])
	histogram(t, "headgate_request_duration_seconds", "From the end of a request's head to the end of its reply.",
		routes, labels, routeBucket, routeNanos)
	count(t, "headgate_request_body_bytes_total", "Body bytes received from clients.", routes, labels, routeIn)
	count(t, "headgate_reply_body_bytes_total", "Body bytes sent to clients.", routes, labels, routeOut)
	count(t, "headgate_requests_aborted_total", "Exchanges whose client did not get a whole reply.", routes, labels, routeAborted)

	calls := m.read(m.routes, func(s *series) *metric.Pack { return s.calls.Load() })
	counts(t, "headgate_grpc_calls_total", "gRPC calls that have ended, by the status that their clients got.", calls, labels,
		"grpc_status", 0, grpcStatuses[:])

	upstreams := m.read(m.upstreams, numbers)
	labels = func(r reading) []metric.Label { return []metric.Label{{Name: "upstream", Value: r.key.name}} }
	counts(t, "headgate_upstream_requests_total", "Exchanges for which the upstream was asked, by class of its answer's status.",
		upstreams, labels, "status_class", upstreamClass, classes[:])
	counts(t, "headgate_upstream_errors_total", "Exchanges that failed because of the upstream, by kind.", upstreams, labels,
		"kind", upstreamError, upstreamErrors[:])
	count(t, "headgate_upstream_retries_total", "Attempts after the first one.", upstreams, labels, upstreamRetry)
	histogram(t, "headgate_upstream_duration_seconds", "From asking the upstream to the head of its answer.",
		upstreams, labels, upstreamBucket, upstreamNanos)
}

type labelsOf func(reading) []metric.Label

// counts writes a counter for each value of a label that was ever counted.
func counts(t *metric.Text, name, help string, all []reading, labels labelsOf, label string, at int, values []string) {
	if len(all) == 0 || !t.Family(name, help, metric.TypeCounter) {
		return
	}
	for _, r := range all {
		for i, v := range values {
			if n := r.words[at+i]; n > 0 {
				t.Sample(float64(n), append(labels(r), metric.Label{Name: label, Value: v})...)
			}
		}
	}
}

func count(t *metric.Text, name, help string, all []reading, labels labelsOf, at int) {
	if len(all) == 0 || !t.Family(name, help, metric.TypeCounter) {
		return
	}
	for _, r := range all {
		t.Sample(float64(r.words[at]), labels(r)...)
	}
}

func histogram(t *metric.Text, name, help string, all []reading, labels labelsOf, at, nanos int) {
	if len(all) == 0 || !t.Family(name, help, metric.TypeHistogram) {
		return
	}
	for _, r := range all {
		cumulative := r.words[at : at+buckets]
		metric.Accumulate(cumulative)
		t.Histogram(bounds, cumulative, float64(r.words[nanos])/float64(time.Second), labels(r)...)
	}
}
