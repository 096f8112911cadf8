package record

import (
	"compress/gzip"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"headgate/internal/metric"
)

// Handler serves every metric, and those of the Go runtime and the process, in the Prometheus text format, as a stream.
func (r *Recorder) Handler() http.Handler {
	golang := prometheus.NewRegistry()
	golang.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", metric.TextType)
		w.Header().Set("Vary", "Accept-Encoding")
		var out io.Writer = w
		if strings.Contains(q.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			out = z
		}
		if err := r.expose(out, golang); err != nil {
			r.log.Debug("the reader of /metrics went away", "error", err)
		}
	})
}

func (r *Recorder) expose(out io.Writer, golang prometheus.Gatherer) error {
	t := metric.NewText(out)
	r.metrics.Expose(t)
	if err := t.Close(); err != nil {
		return err
	}
	families, err := golang.Gather()
	if err != nil {
		r.log.Warn("metrics of the runtime are incomplete", "error", err)
	}
	encoder := expfmt.NewEncoder(out, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

// collect emits what is read at a scrape.
func (r *Recorder) collect(emit metric.Emit) {
	n := r.totals.Sum(nil)
	// The two are not read at one moment, so that the difference may be below zero for a blink.
	emit("headgate_requests_in_flight", "Exchanges that have begun and not ended.", metric.TypeGauge,
		max(0, float64(n[totalBegun])-float64(n[totalEnded])))
	emit("headgate_usage_events_dropped_total", "Usage events that did not fit into a subscriber's queue.", metric.TypeCounter,
		float64(r.events.Dropped()))
	emit("headgate_build_info", "Always 1; the labels say what runs.", metric.TypeGauge, 1,
		metric.Label{Name: "version", Value: r.version}, metric.Label{Name: "revision", Value: revision()},
		metric.Label{Name: "go_version", Value: runtime.Version()})
}

// revision is the commit that the binary was built from, if the build knew it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
