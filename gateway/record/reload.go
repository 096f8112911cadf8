package record

import (
	"sync"
	"time"

	"headgate/internal/metric"
)

// Reloads tells the metrics about changes of the document. It is safe for concurrent use.
type Reloads struct {
	success, failure *metric.Counter
	last             *metric.Float
	good             *metric.Gauge

	mu      sync.Mutex
	version string
}

func newReloads(r *metric.Registry) *Reloads {
	result := func(v string) *metric.Counter {
		return r.Counter("headgate_reloads_total", "Documents that were given to the gateway, by result.", metric.Label{Name: "result", Value: v})
	}
	reloads := &Reloads{
		success: result("success"), failure: result("failure"),
		last: r.Float("headgate_last_reload_success_timestamp_seconds", "When the document that is served went live, in Unix time."),
		good: r.Gauge("headgate_last_reload_successful", "1 when the last document given to the gateway was good, else 0."),
	}
	r.Collect("record/document", reloads.collect)
	return reloads
}

// Succeeded records that a document of that version went live at the time now.
func (r *Reloads) Succeeded(version string, now time.Time) {
	r.success.Inc(0)
	r.good.Set(1)
	r.last.Set(float64(now.UnixMilli()) / 1000)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version = version
}

// Failed records that a document was refused and the one before it goes on.
func (r *Reloads) Failed() {
	r.failure.Inc(0)
	r.good.Set(0)
}

func (r *Reloads) collect(emit metric.Emit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.version != "" {
		emit("headgate_document_info", "Always 1; the label is the version of the document that is served.", metric.TypeGauge, 1,
			metric.Label{Name: "version", Value: r.version})
	}
}
