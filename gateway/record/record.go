// Package record keeps what happened to every exchange: its line in the access log, its numbers, its spans and its usage
// event. The engine calls Begin when a request's head is complete, StampReply on the head of its reply and End when the
// reply has ended; each costs at most a buffered append. Everything slow is done by Run.
package record

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/event"
	"headgate/internal/metric"
)

// reportEvery is how often the gateway's own log says that something was dropped: a full disk must not fill another one.
const reportEvery = 10 * time.Second

// The numbers of all exchanges.
const (
	totalBegun = iota
	totalEnded
	totals
)

// Config is what a Recorder needs for its whole life.
type Config struct {
	Clock   clock.Clock
	Metrics *metric.Registry
	Log     *slog.Logger // the gateway's own log
	Events  *event.Log   // where usage events go; nil: nowhere
	Version string       // of Headgate, for metrics and spans
}

// Settings is what a document says about recording.
type Settings struct {
	Access  model.AccessLog
	Tracing model.Tracing
	Expr    Compiler // for {expression} fields; nil: there may be none
}

// Recorder records exchanges. It lives as long as the process; a reload gives it new settings. It is safe for concurrent use.
type Recorder struct {
	clock   clock.Clock
	metrics *metric.Registry
	log     *slog.Logger
	events  *event.Log
	version string

	current  atomic.Pointer[settings]
	source   *source
	totals   *metric.Pack
	meters   *meters
	unrouted *RouteMeter
	reloads  *Reloads
	dropped  *metric.Counter
	spans    spanCounters
	every    time.Duration // reportEvery

	mu    sync.Mutex // held while settings change and while Run starts or stops
	phase phase
	early []*settings // those that were replaced before Run
	work  sync.WaitGroup
}

// phase is how far Run has come.
type phase uint8

const (
	waiting phase = iota
	running
	ended
)

// settings is the compiled form of Settings.
type settings struct {
	access    *accessLog // nil: off
	tracer    *tracer    // nil: no collector
	threshold uint64     // a trace begun here is kept when its random 63 bits are below
	parent    string     // whose sampled flag counts
	firstByte bool       // the access log names first_byte_ms
}

// New returns a recorder that logs nothing and traces nothing until it is configured. Nothing runs before Run.
func New(c Config) *Recorder {
	r := &Recorder{
		clock: c.Clock, metrics: c.Metrics, log: c.Log, events: cmp.Or(c.Events, new(event.Log)), version: c.Version,
		source: newSource(), totals: metric.NewPack(totals), meters: newMeters(), reloads: newReloads(c.Metrics),
		dropped: c.Metrics.Counter("headgate_log_dropped_total", "Lines of the access log that were dropped."),
		spans:   newSpanCounters(c.Metrics), every: reportEvery,
	}
	r.unrouted = r.meters.meter(&exchange.Route{API: "(none)", Name: "(none)"})
	r.current.Store(new(settings))
	c.Metrics.Collect("record", r.collect)
	c.Metrics.Source("record", r.meters.expose)
	return r
}

// Route returns the meter of a compiled route. Ask for it while the snapshot is compiled, and Release it when that has drained.
func (r *Recorder) Route(route *exchange.Route) *RouteMeter { return r.meters.meter(route) }

// Reloads returns where changes of the document are recorded.
func (r *Recorder) Reloads() *Reloads { return r.reloads }

// End is called once for each exchange, after its reply has ended, however it ended, and before its memory is used
// again. meter is that of its route; nil: no route was found.
func (r *Recorder) End(x *exchange.Exchange, meter *RouteMeter) {
	d := max(0, r.clock.Now().Sub(x.Start))
	if meter == nil {
		meter = r.unrouted
	}
	meter.count(x, timeToAnswer(x, d))
	r.totals.At(x.Shard)[totalEnded].Add(1)
	s := r.current.Load()
	for s.access != nil && !s.access.append(x, d) {
		next := r.current.Load()
		if next == s { // the gateway has stopped
			r.dropped.Inc(x.Shard)
			break
		}
		s = next
	}
	if s.tracer != nil && x.Trace.Span != [8]byte{} && (x.Trace.Sampled || failed(status(x), &x.Usage)) {
		s.tracer.add(x, d)
	}
	if r.events.Active() {
		r.publish(x, d)
	}
}

// timeToAnswer is what an exchange adds to the histogram: one whose connection was switched was answered long before it ended.
func timeToAnswer(x *exchange.Exchange, d time.Duration) time.Duration {
	if x.Usage.Closed != "" {
		return min(d, x.Usage.UpstreamStart+x.Usage.UpstreamTime)
	}
	return d
}

func (r *Recorder) publish(x *exchange.Exchange, d time.Duration) {
	route := route(x)
	r.events.Publish(x.Shard, &event.Event{
		ID: x.ID, Consumer: consumer(x),
		API: route.API, Version: route.Version, Route: route.Name, Upstream: route.Upstream,
		Start: x.Start, Duration: d, RequestBytes: x.Usage.RequestBytes, ReplyBytes: x.Usage.ReplyBytes,
		Status: uint16(status(x)), Source: event.Source(x.Reply.Source), Cached: x.Usage.Cached, Aborted: x.Usage.Aborted,
		Code: code(x),
	})
}

// Check reports everything that Configure would refuse in the settings, short of opening the log's file: it only looks for
// its folder. Errors point into the document from its root (decode.PathError) and are joined.
func Check(s Settings) error {
	_, logErr := newLayout(&s.Access, newMask(s.Access.Mask), s.Expr)
	return errors.Join(logErr, checkAccess(&s.Access), checkTracing(&s.Tracing))
}

// Configure makes the settings those of every exchange from now on, or changes nothing and returns what is wrong with
// them. The access log's file is opened anew, so that a rotated one is let go: what waits for the old one is still
// written there.
func (r *Recorder) Configure(s Settings) error {
	if err := Check(s); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next := &settings{parent: s.Tracing.Parent}
	if s.Access.To != "off" {
		m := newMask(s.Access.Mask)
		y, err := newLayout(&s.Access, m, s.Expr)
		if err != nil {
			return err
		}
		file, err := open(s.Access.To)
		if err != nil {
			return err
		}
		next.firstByte = slices.Contains(s.Access.Fields, "first_byte_ms")
		next.access = newAccessLog(&s.Access, m, y, file, r.dropped)
	}
	old := r.current.Load()
	if s.Tracing.Endpoint != "" {
		next.threshold = threshold(s.Tracing.Ratio)
		next.tracer = newTracer(&s.Tracing, r.version, newMask(s.Access.Mask), &r.spans)
	}
	if r.phase == running {
		r.start(next, old)
	}
	r.current.Store(next)
	r.retire(old)
	return nil
}

// start begins the work of settings; old are those that they replace.
func (r *Recorder) start(s, old *settings) {
	if s.access != nil {
		go s.access.run(old.access) // retire waits for it as long as is sensible
	}
	if s.tracer != nil {
		go s.tracer.run()
	}
}

// retire ends the work of settings that are no longer current, or remembers them for Run.
func (r *Recorder) retire(s *settings) {
	switch {
	case r.phase == waiting:
		r.early = append(r.early, s)
		return
	case r.phase == ended:
		if s.access != nil {
			s.access.discard()
		}
		return
	}
	if s.access != nil {
		r.work.Go(func() {
			if !s.access.close() {
				r.log.Warn("the access log's destination takes nothing; what was waiting for it is lost", "to", s.access.to)
			}
		})
	}
	if s.tracer != nil {
		r.work.Go(s.tracer.close)
	}
}

// believesParent reports whether the caller's sampled flag counts.
func (s *settings) believesParent(x *exchange.Exchange) bool {
	return s.parent == "always" || (s.parent != "never" && x.Client.Trusted)
}

// Run writes what is recorded until ctx is done, and then what is still pending. It returns nil. It may run once.
func (r *Recorder) Run(ctx context.Context) error {
	r.mu.Lock()
	r.phase = running
	last := new(settings)
	for _, s := range r.early { // what waits for settings that were replaced meanwhile is written all the same
		r.start(s, last)
		r.retire(s)
		last = s
	}
	r.early = nil
	r.start(r.current.Load(), last)
	r.mu.Unlock()

	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	var told report
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			r.report(&told)
		}
	}
	r.mu.Lock()
	r.retire(r.current.Load())
	r.phase = ended
	r.mu.Unlock()
	r.work.Wait()
	r.report(&told)
	return nil
}

// report is how much has been told of what was dropped.
type report struct{ lines, spans uint64 }

// report says in the gateway's own log what was dropped since the last time.
func (r *Recorder) report(told *report) {
	s := r.current.Load()
	if n := r.dropped.Value(); n > told.lines && s.access != nil {
		r.log.Warn("lines of the access log were dropped", "lines", n-told.lines, "reason", s.access.reason(), "to", s.access.to)
		told.lines = n
	}
	if n := r.spans.lost(); n > told.spans && s.tracer != nil {
		r.log.Warn("spans were dropped", "spans", n-told.spans, "reason", s.tracer.reason(), "to", s.tracer.endpoint)
		told.spans = n
	}
}
