package secure

import (
	"crypto/tls"
	"time"

	"headgate/internal/metric"
)

// meters count the handshakes of one listener. They belong to its name and survive reloads.
type meters struct {
	ok     [2][2]*metric.Counter // by version (1.2, 1.3) and whether the session was resumed
	errors [causes]*metric.Counter
	took   *metric.Histogram
}

func newMeters(listener string, r *metric.Registry) *meters {
	m := &meters{}
	name := metric.Label{Name: "listener", Value: listener}
	for v, version := range []string{"TLS 1.2", "TLS 1.3"} {
		for i, resumed := range []string{"false", "true"} {
			m.ok[v][i] = r.Counter("headgate_tls_handshakes_total",
				"Handshakes that succeeded, by version of TLS and whether they resumed a session.",
				name, metric.Label{Name: "version", Value: version}, metric.Label{Name: "resumed", Value: resumed})
		}
	}
	for c := range causes {
		m.errors[c] = r.Counter("headgate_tls_handshake_errors_total", "Handshakes that failed, by cause.", name,
			metric.Label{Name: "cause", Value: c.String()})
	}
	m.took = r.Histogram("headgate_tls_handshake_duration_seconds", "From a connection's start to the end of its handshake.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, name)
	return m
}

func (m *meters) done(s *tls.ConnectionState, took time.Duration) {
	v, resumed := 0, 0
	if s.Version >= tls.VersionTLS13 {
		v = 1
	}
	if s.DidResume {
		resumed = 1
	}
	m.ok[v][resumed].Inc(0)
	m.took.Observe(0, took.Seconds())
}

func (m *meters) failed(c cause) { m.errors[c].Inc(0) }
