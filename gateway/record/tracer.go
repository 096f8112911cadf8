package record

import (
	"context"
	"math"
	"net/url"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/event"
	"headgate/internal/metric"
)

const (
	// maxTraces is how many exchanges may wait to be sent as spans; each keeps the text of its request's head, so that a
	// collector that is away costs at most this many heads.
	maxTraces = 2048
	// traceBatch is how many exchanges go into one export.
	traceBatch = 256
	// exportTimeout is how long one export may take, its retries included.
	exportTimeout = 10 * time.Second
	// maxExporterAnswer bounds what a collector may answer.
	maxExporterAnswer = 64 << 10
)

// spanCounters are shared by the tracers of all configurations.
type spanCounters struct{ exported, overflowed, failed *metric.Counter }

func newSpanCounters(r *metric.Registry) spanCounters {
	dropped := func(reason string) *metric.Counter {
		return r.Counter("headgate_trace_spans_dropped_total", "Spans that did not reach the collector, by reason.",
			metric.Label{Name: "reason", Value: reason})
	}
	return spanCounters{
		exported:   r.Counter("headgate_trace_spans_exported_total", "Spans that the collector took."),
		overflowed: dropped("queue_full"), failed: dropped("export_failed"),
	}
}

func (c *spanCounters) lost() uint64 { return c.overflowed.Value() + c.failed.Value() }

// finished is an exchange that has ended, as far as its spans need it.
type finished struct {
	id        string
	start     time.Time
	duration  time.Duration
	trace     exchange.Trace
	client    exchange.Client
	original  exchange.Original
	scheme    string
	proto     string
	userAgent string
	consumer  string
	route     *exchange.Route
	usage     exchange.Usage
	status    int
	source    exchange.Source
	err       *exchange.Error
}

// asked reports whether there was an upstream to ask, and so a second span.
func (e *finished) asked() bool { return e.usage.Attempts > 0 }

func (e *finished) spans() uint64 {
	if e.asked() {
		return 2
	}
	return 1
}

// tracer sends the spans of one configuration to its collector. The exporter is made with the first span.
type tracer struct {
	endpoint string
	headers  map[string]string
	maker    *spanMaker
	queue    *event.Queue[finished]
	counters *spanCounters
	failure  atomic.Pointer[error]

	soft, hard context.Context // soft: no more spans come; hard: give up
	stop, kill context.CancelFunc
	done       chan struct{}
}

func newTracer(t *model.Tracing, version string, m *mask, counters *spanCounters) *tracer {
	headers := map[string]string{}
	for name, value := range t.Headers {
		headers[name] = value.Reveal()
	}
	tr := &tracer{
		endpoint: t.Endpoint, headers: headers, maker: newSpanMaker(t.Service, version, m),
		queue: event.NewQueue[finished](maxTraces), counters: counters, done: make(chan struct{}),
	}
	tr.soft, tr.stop = context.WithCancel(context.Background())
	tr.hard, tr.kill = context.WithCancel(context.Background())
	return tr
}

// threshold is the share as a number below which 63 random bits fall with that probability.
func threshold(ratio float64) uint64 {
	if ratio >= 1 {
		return math.MaxUint64
	}
	return uint64(ratio * (1 << 63))
}

// add queues the exchange's spans, or drops them when the collector is behind.
func (t *tracer) add(x *exchange.Exchange, d time.Duration) {
	e := finished{
		id: x.ID, start: x.Start, duration: d, trace: x.Trace, client: x.Client, original: x.Original,
		scheme: x.Request.Scheme, proto: x.Request.Proto, userAgent: x.Request.Header.Get("User-Agent"),
		consumer: consumer(x), route: route(x), usage: x.Usage, status: status(x), source: x.Reply.Source, err: x.Err,
	}
	if !t.queue.Put(x.Shard, &e) {
		t.counters.overflowed.Add(x.Shard, e.spans())
	}
}

// run exports until the tracer is closed, and then what is left.
func (t *tracer) run() {
	defer close(t.done)
	var exporter exporter
	defer func() {
		if exporter != nil {
			_ = exporter.Shutdown(t.hard) // closes idle connections; there is nothing left to lose
		}
	}()
	batch := make([]finished, traceBatch)
	for {
		n, err := t.queue.Next(t.soft, batch)
		if err != nil {
			n = t.queue.Drain(batch)
		}
		if n == 0 {
			return
		}
		if exporter == nil {
			exporter, err = t.dial()
		}
		if exporter != nil {
			err = exporter.ExportSpans(t.hard, t.maker.spans(batch[:n]))
		}
		t.settle(batch[:n], err)
		clear(batch[:n])
	}
}

// dial makes the exporter; it does not connect yet.
func (t *tracer) dial() (exporter, error) {
	endpoint, err := url.Parse(t.endpoint)
	if err != nil {
		return nil, err
	}
	if endpoint.Path == "" || endpoint.Path == "/" {
		endpoint.Path = "/v1/traces" // OTLP specification, "OTLP/HTTP Request"
	}
	e, err := otlptracehttp.New(t.hard,
		otlptracehttp.WithEndpointURL(endpoint.String()), otlptracehttp.WithHeaders(t.headers),
		otlptracehttp.WithTimeout(exportTimeout), otlptracehttp.WithMaxResponseSize(maxExporterAnswer),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: 500 * time.Millisecond, MaxInterval: 5 * time.Second, MaxElapsedTime: exportTimeout,
		}))
	if err != nil { // a nil *Exporter in the interface would not be nil
		return nil, err
	}
	return e, nil
}

func (t *tracer) settle(batch []finished, err error) {
	n := uint64(0)
	for i := range batch {
		n += batch[i].spans()
	}
	if err != nil {
		t.failure.Store(&err)
		t.counters.failed.Add(0, n)
		return
	}
	t.failure.Store(nil)
	t.counters.exported.Add(0, n)
}

// close waits until what is queued has been sent, or for closeTimeout.
func (t *tracer) close() {
	t.stop()
	timer := time.AfterFunc(closeTimeout, t.kill)
	defer timer.Stop()
	<-t.done
	t.kill()
}

// reason says why spans are dropped.
func (t *tracer) reason() string {
	if err := t.failure.Load(); err != nil {
		return (*err).Error()
	}
	return "spans come faster than the collector takes them"
}
