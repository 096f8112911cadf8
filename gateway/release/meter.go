package release

import (
	"headgate/gateway/exchange"
	"headgate/internal/metric"
)

// durations are the upper bounds of the histogram of a variant, in seconds.
var durations = []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

// classes are the status classes of answers, by their first digit; the first is for exchanges without an answer.
var classes = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// meter counts the exchanges of one variant. Its numbers outlive reloads: the registry has them by name.
type meter struct {
	answers [len(classes)]*metric.Counter
	time    *metric.Histogram
}

func newMeter(r *metric.Registry, split, name string) *meter {
	labels := []metric.Label{{Name: "upstream", Value: split}, {Name: "variant", Value: name}}
	m := &meter{time: r.Histogram("headgate_variant_duration_seconds",
		"Time from asking a variant of a split to the head of its answer.", durations, labels...)}
	for i, class := range classes {
		m.answers[i] = r.Counter("headgate_variant_requests_total",
			"Exchanges that a variant of a split was chosen for, by the class of its answer's status.",
			append(labels[:2:2], metric.Label{Name: "status_class", Value: class})...)
	}
	return m
}

// count counts an exchange that has its answer, or has none.
func (m *meter) count(x *exchange.Exchange, err error) {
	if err != nil {
		m.answers[0].Inc(x.Shard)
		return
	}
	class := x.Reply.Status / 100
	if class >= len(classes) {
		class = 0
	}
	m.answers[class].Inc(x.Shard)
	m.time.Observe(x.Shard, x.Usage.UpstreamTime.Seconds())
}
