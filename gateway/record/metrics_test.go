package record

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"headgate/gateway/exchange"
	"headgate/internal/event"
	"headgate/internal/metric"
)

// scrape returns what the handler serves.
func (g *rig) scrape(t testing.TB) string {
	t.Helper()
	w := httptest.NewRecorder()
	g.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if got := w.Header().Get("Content-Type"); w.Code != 200 || got != metric.TextType {
		t.Fatalf("%d %s", w.Code, got)
	}
	return w.Body.String()
}

// only returns the samples whose names begin with one of the prefixes, without zero buckets' noise.
func only(text string, prefixes ...string) (lines []string) {
	for line := range strings.Lines(text) {
		for _, p := range prefixes {
			if strings.HasPrefix(line, p) {
				lines = append(lines, strings.TrimSuffix(line, "\n"))
			}
		}
	}
	return lines
}

func TestExchangesAreCountedByRouteAndByUpstream(t *testing.T) {
	g := newRig(t)
	x := shop()
	meter := g.Route(x.Route)
	defer meter.Release()
	g.Begin(x)
	answer(x)
	x.Usage.Attempts = 3
	g.End(x, meter)

	for _, e := range []struct {
		code     exchange.Code
		source   exchange.Source
		attempts int
	}{
		{exchange.UpstreamTimeout, exchange.FromUpstream, 1},
		{exchange.NoTarget, exchange.FromGateway, 0},
		{exchange.Code{Name: "new_kind", Status: 502}, exchange.FromUpstream, 1},
	} {
		g.Begin(x)
		x.Usage = exchange.Usage{Attempts: e.attempts}
		x.Problem(e.code, "")
		x.Err = &exchange.Error{Code: e.code, Source: e.source}
		g.End(x, meter)
	}
	g.Begin(x) // the client went away before there was a reply
	x.Err, x.Usage, x.Reply = nil, exchange.Usage{Aborted: true}, exchange.Reply{}
	g.End(x, meter)
	g.Begin(x) // refused before any route was looked for
	x.Problem(exchange.BadRequest, "")
	g.End(x, nil)
	g.Begin(x) // and one that has not ended

	text := g.scrape(t)
	want := []string{
		`headgate_requests_total{api="(none)",route="(none)",status_class="4xx"} 1`,
		`headgate_requests_total{api="shop",route="place order",status_class="none"} 1`,
		`headgate_requests_total{api="shop",route="place order",status_class="2xx"} 1`,
		`headgate_requests_total{api="shop",route="place order",status_class="5xx"} 3`,
		`headgate_request_body_bytes_total{api="(none)",route="(none)"} 0`,
		`headgate_request_body_bytes_total{api="shop",route="place order"} 17`,
		`headgate_reply_body_bytes_total{api="(none)",route="(none)"} 0`,
		`headgate_reply_body_bytes_total{api="shop",route="place order"} 230`,
		`headgate_requests_aborted_total{api="(none)",route="(none)"} 1`,
		`headgate_requests_aborted_total{api="shop",route="place order"} 1`,
		`headgate_upstream_requests_total{upstream="orders",status_class="none"} 3`,
		`headgate_upstream_requests_total{upstream="orders",status_class="2xx"} 1`,
		`headgate_upstream_errors_total{upstream="orders",kind="upstream_timeout"} 1`,
		`headgate_upstream_errors_total{upstream="orders",kind="no_target"} 1`,
		`headgate_upstream_errors_total{upstream="orders",kind="other"} 1`,
		`headgate_upstream_retries_total{upstream="orders"} 2`,
		`headgate_upstream_duration_seconds_sum{upstream="orders"} 0.000987`,
		`headgate_upstream_duration_seconds_count{upstream="orders"} 1`,
		`headgate_requests_in_flight 1`,
		`headgate_request_duration_seconds_bucket{api="shop",route="place order",le="0.001"} 0`,
		`headgate_request_duration_seconds_bucket{api="shop",route="place order",le="0.0025"} 5`,
	}
	got := only(text, "headgate_requests_", "headgate_request_body", "headgate_reply_body", "headgate_upstream_requests",
		"headgate_upstream_errors", "headgate_upstream_retries", "headgate_upstream_duration_seconds_sum",
		"headgate_upstream_duration_seconds_count", `headgate_request_duration_seconds_bucket{api="shop",route="place order",le="0.00`)
	slices.Sort(want)
	slices.Sort(got)
	got = slices.DeleteFunc(got, func(l string) bool { return strings.Contains(l, `le="0.005"`) || strings.Contains(l, `le="0.0005"`) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEveryMetricPassesPromlint(t *testing.T) {
	g := newRig(t)
	x := shop()
	meter := g.Route(x.Route)
	g.Begin(x)
	answer(x)
	g.End(x, meter)
	g.Reloads().Succeeded("v7", began)
	g.Reloads().Failed()
	text := g.scrape(t)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	for _, want := range []string{
		"\ngo_goroutines ", "\nprocess_resident_memory_bytes ", `headgate_build_info{version="1.2.3",revision=`,
		`headgate_document_info{version="v7"} 1`, `headgate_reloads_total{result="success"} 1`,
		`headgate_reloads_total{result="failure"} 1`,
		"headgate_last_reload_successful 0",
		"headgate_last_reload_success_timestamp_seconds " + strconv.FormatFloat(float64(began.UnixMilli())/1000, 'g', -1, 64) + "\n",
		"headgate_log_dropped_total 0",
		"headgate_usage_events_dropped_total 0", `headgate_trace_spans_dropped_total{reason="queue_full"} 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestMetricsAreCompressedWhenAsked(t *testing.T) {
	g := newRig(t)
	q := httptest.NewRequest("GET", "/metrics", nil)
	q.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	g.Handler().ServeHTTP(w, q)
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil || !bytes.Contains(b, []byte("headgate_requests_in_flight 0\n")) {
		t.Errorf("%v %.200s", err, b)
	}
}

func TestAScrapeThatBreaksOffIsNoTrouble(t *testing.T) {
	g := newRig(t)
	if err := g.expose(brokenWriter{}, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestNumbersOutliveAReloadAndAreForgottenWithTheirRoute(t *testing.T) {
	g := newRig(t)
	x := shop()
	old := g.Route(x.Route)
	count := func(m *RouteMeter) {
		g.Begin(x)
		answer(x)
		g.End(x, m)
	}
	count(old)
	moved := *x.Route
	moved.Upstream = "orders2" // the reload changes the route's upstream
	next := g.Route(&moved)
	old.Release()
	old.Release() // a second time does nothing
	count(next)
	count(old) // an exchange that still ends on the old snapshot
	text := g.scrape(t)
	if !strings.Contains(text, `headgate_requests_total{api="shop",route="place order",status_class="2xx"} 3`) {
		t.Error("the numbers did not outlive the reload")
	}
	if !strings.Contains(text, `headgate_upstream_requests_total{upstream="orders2",status_class="2xx"} 1`) ||
		strings.Contains(text, `upstream="orders",`) {
		t.Error("the upstreams are wrong")
	}
	next.Release()
	if text := g.scrape(t); strings.Contains(text, `api="shop"`) || strings.Contains(text, "orders2") {
		t.Error("a route that is gone is still told")
	}
}

// TestManyRoutesTakeLittleMemory is about 50,000 routes: first as compiled, then each with an exchange.
func TestManyRoutesTakeLittleMemory(t *testing.T) {
	g := newRig(t)
	const n = 50_000
	routes, held := make([]*exchange.Route, n), make([]*RouteMeter, n)
	for i := range routes {
		routes[i] = &exchange.Route{API: "shop", Name: fmt.Sprintf("route %d", i), Upstream: "orders"}
	}
	x := shop()
	step := func(what string, most int64, f func(i int)) {
		before := heap()
		for i := range n {
			f(i)
		}
		if each := (heap() - before) / n; each > most {
			t.Errorf("%s: %d bytes for each route, at most %d", what, each, most)
		} else {
			t.Logf("%s: %d bytes for each route", what, each)
		}
	}
	step("compiled", 350, func(i int) { held[i] = g.Route(routes[i]) })
	step("used", 300, func(i int) { g.Begin(x); answer(x); g.End(x, held[i]) })
	runtime.KeepAlive(held)
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestRoutesBeyondTheLimitShareOneSeries(t *testing.T) {
	m := newMeters()
	for i := range maxRoutes + 5 {
		m.meter(&exchange.Route{API: "shop", Name: fmt.Sprint(i)})
	}
	if n := len(m.routes); n != maxRoutes+1 {
		t.Errorf("%d series", n)
	}
	if s := m.routes[seriesKey{"(other)", "(other)"}]; s == nil || s.uses != 5 {
		t.Errorf("%+v", s)
	}
}

func TestAUsageEventSaysWhoDidWhatWhenHowMuchAndHowItEnded(t *testing.T) {
	g := newRig(t)
	events, err := g.events.Subscribe(8)
	if err != nil {
		t.Fatal(err)
	}
	x := shop()
	g.Begin(x)
	answer(x)
	x.Usage.Cached = true
	x.Err = &exchange.Error{Code: exchange.UpstreamClosed}
	g.End(x, nil)
	batch := make([]event.Event, 2)
	if n := events.Drain(batch); n != 1 {
		t.Fatalf("%d events", n)
	}
	want := event.Event{
		ID: x.ID, Consumer: "mobile-app", API: "shop", Version: "v1", Route: "place order", Upstream: "orders",
		Start: began, Duration: 1234567 * time.Nanosecond, RequestBytes: 17, ReplyBytes: 230,
		Status: 201, Source: event.FromUpstream, Cached: true, Code: "upstream_closed",
	}
	if diff := cmp.Diff(want, batch[0]); diff != "" {
		t.Error(diff)
	}
	for i, name := range []exchange.Source{event.FromGateway: exchange.FromGateway, event.FromClient: exchange.FromClient,
		event.FromUpstream: exchange.FromUpstream} {
		if exchange.Source(i) != name {
			t.Errorf("source %d of events is not that of exchanges", i)
		}
	}
}
