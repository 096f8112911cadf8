package record

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"headgate/gateway/exchange"
	"headgate/internal/secret"
)

// collector is an OTLP collector: it takes what the real exporter sends over real HTTP.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	spans    []*tracepb.Span
	service  string
	requests []*http.Request
	refuse   int // status to answer with instead; 0: take everything
}

func newCollector(t *testing.T) *collector {
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests = append(c.requests, q)
		if c.refuse != 0 {
			w.WriteHeader(c.refuse)
			return
		}
		z, err := gzip.NewReader(q.Body)
		if err != nil {
			t.Error(err)
			return
		}
		body, err := io.ReadAll(z)
		var export coltrace.ExportTraceServiceRequest
		if err := errors.Join(err, proto.Unmarshal(body, &export)); err != nil {
			t.Error(err)
			return
		}
		for _, r := range export.ResourceSpans {
			c.service = r.Resource.Attributes[0].Value.GetStringValue()
			for _, s := range r.ScopeSpans {
				c.spans = append(c.spans, s.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) got() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spans
}

// tracing starts a recorder that sends spans to the collector.
func tracing(t *testing.T, c *collector, ratio float64) *rig {
	g := newRig(t)
	s := logTo("off")
	s.Tracing.Endpoint, s.Tracing.Ratio = c.URL, ratio
	s.Tracing.Headers = map[string]secret.String{"X-Token": secret.New("hunter2")}
	g.configure(t, s)
	g.run()
	return g
}

func attributes(s *tracepb.Span) map[string]any {
	all := map[string]any{}
	for _, a := range s.Attributes {
		switch v := a.Value.Value.(type) {
		case *commonpb.AnyValue_IntValue:
			all[a.Key] = v.IntValue
		case *commonpb.AnyValue_BoolValue:
			all[a.Key] = v.BoolValue
		default:
			all[a.Key] = a.Value.GetStringValue()
		}
	}
	return all
}

func TestAnExchangeBecomesTwoSpansAtTheCollector(t *testing.T) {
	c := newCollector(t)
	g := tracing(t, c, 1)
	x := shop()
	x.Request.Header.Add("traceparent", parentA)
	x.Client.Trusted = true
	g.Begin(x)
	answer(x)
	x.Usage.Attempts, x.Reply.Status = 2, 404
	g.End(x, nil)
	g.finish() // what is pending is sent
	spans := c.got()
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	client, server := spans[0], spans[1]
	sent, _ := parseTraceparent(x.Request.Header.Get("traceparent"))
	if string(server.TraceId) != string(x.Trace.ID[:]) || string(server.ParentSpanId) != string(x.Trace.Parent[:]) ||
		string(client.ParentSpanId) != string(server.SpanId) || string(client.SpanId) != string(sent.Parent[:]) {
		t.Error("caller, exchange, call and upstream are not parent and child, one after the other")
	}
	if server.Name != "POST shop/place order" || server.Kind != tracepb.Span_SPAN_KIND_SERVER || client.Kind != tracepb.Span_SPAN_KIND_CLIENT {
		t.Errorf("%s %s %s", server.Name, server.Kind, client.Kind)
	}
	if d := server.EndTimeUnixNano - server.StartTimeUnixNano; d != 1234567 || server.StartTimeUnixNano != uint64(began.UnixNano()) {
		t.Errorf("the exchange took %d", d)
	}
	if client.StartTimeUnixNano-server.StartTimeUnixNano != 100_000 || client.EndTimeUnixNano-client.StartTimeUnixNano != 987_000 {
		t.Error("the times of the call are wrong")
	}
	if server.Status.Code == tracepb.Status_STATUS_CODE_ERROR || client.Status.Code != tracepb.Status_STATUS_CODE_ERROR {
		t.Error("404 is an error of the client span alone")
	}
	want := map[string]any{
		"http.request.method": "POST", "url.scheme": "https", "url.path": "/shop/orders", "url.query": "page=2&api_key=<secret>",
		"server.address": "shop.example.com", "client.address": "192.0.2.7", "network.peer.address": "10.0.0.1",
		"network.protocol.version": "1.1", "http.request.body.size": int64(17), "http.response.body.size": int64(230),
		"http.response.status_code": int64(404), "user_agent.original": "curl/8.5.0", "headgate.request_id": x.ID,
		"headgate.source": "upstream", "headgate.api": "shop", "headgate.api.version": "v1", "headgate.route": "place order",
		"headgate.consumer": "mobile-app",
	}
	if diff := cmp.Diff(want, attributes(server)); diff != "" {
		t.Error(diff)
	}
	want = map[string]any{
		"http.request.method": "POST", "server.address": "10.0.0.4", "server.port": int64(9000), "headgate.upstream": "orders",
		"http.request.resend_count": int64(1), "http.response.status_code": int64(404), "error.type": "404",
	}
	if diff := cmp.Diff(want, attributes(client)); diff != "" {
		t.Error(diff)
	}
	if q := c.requests[0]; q.URL.Path != "/v1/traces" || q.Header.Get("X-Token") != "hunter2" || c.service != "headgate" {
		t.Errorf("%s %v %s", q.URL, q.Header, c.service)
	}
	if n := g.spans.exported.Value(); n != 2 {
		t.Errorf("%d spans counted as sent", n)
	}
}

func TestErrorsAreKeptAlthoughTheirTraceIsNotSampled(t *testing.T) {
	c := newCollector(t)
	g := tracing(t, c, 0)
	for _, e := range []struct {
		status  int
		aborted bool
		err     *exchange.Error
	}{
		{200, false, nil}, {404, false, nil}, // not kept
		{503, false, nil}, {200, true, nil},
		{502, false, &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream, Cause: errors.New("EOF \xff")}},
	} {
		x := shop()
		x.Request.Method = "BREW"
		g.Begin(x)
		x.Reply.Status, x.Usage.Aborted, x.Err = e.status, e.aborted, e.err
		g.End(x, nil)
	}
	g.finish()
	var got []string
	for _, s := range c.got() {
		got = append(got, s.Name+": "+attributes(s)["error.type"].(string)+" "+s.Status.Message)
	}
	want := []string{"HTTP shop/place order: 503 ", "HTTP shop/place order: aborted ", "HTTP shop/place order: upstream_closed EOF \uFFFD"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestACollectorThatIsAwayCostsSpansAndNothingElse(t *testing.T) {
	c := newCollector(t)
	c.refuse = http.StatusBadRequest // not to be tried again
	g := tracing(t, c, 1)
	x := shop()
	g.Begin(x)
	answer(x)
	g.End(x, nil)
	eventually(t, "the gateway's own log says why", func() bool {
		return strings.Contains(g.own.String(), "spans were dropped") && strings.Contains(g.own.String(), "400")
	})
	if strings.Contains(g.own.String(), "hunter2") {
		t.Error("the collector's token is in the log")
	}
	if n := g.spans.failed.Value(); n != 2 {
		t.Errorf("%d spans counted as failed", n)
	}
}

func TestSpansBeyondTheQueueAreDroppedAndCounted(t *testing.T) {
	g := newRig(t)
	s := logTo("off")
	s.Tracing.Endpoint, s.Tracing.Ratio = "http://127.0.0.1:1", 1
	g.configure(t, s) // nothing runs, so nothing is taken out
	for i := range maxTraces + 100 {
		x := shop()
		x.Shard = uint32(i)
		g.Begin(x)
		g.End(x, nil)
	}
	if n := g.spans.overflowed.Value(); n != 100 {
		t.Errorf("%d spans counted as dropped, want 100", n)
	}
}

func TestACollectorThatHangsDelaysAStopByTheCloseTimeoutAtMost(t *testing.T) {
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	g := newRig(t)
	s := logTo("off")
	s.Tracing.Endpoint, s.Tracing.Ratio = hanging.URL, 1
	g.configure(t, s)
	g.run()
	x := shop()
	g.Begin(x)
	g.End(x, nil)
	start := time.Now()
	g.finish()
	if d := time.Since(start); d > closeTimeout+20*time.Second {
		t.Errorf("stopping took %s", d)
	}
	if n := g.spans.failed.Value(); n != 1 {
		t.Errorf("%d spans counted as failed", n)
	}
}

func TestAReloadSendsWhatTheOldCollectorIsOwed(t *testing.T) {
	a, b := newCollector(t), newCollector(t)
	g := tracing(t, a, 1)
	one := func() {
		x := shop()
		g.Begin(x)
		g.End(x, nil)
	}
	one()
	s := logTo("off")
	s.Tracing.Endpoint, s.Tracing.Ratio = b.URL+"/custom/path", 1
	g.configure(t, s)
	one()
	g.finish()
	if len(a.got()) != 1 || len(b.got()) != 1 || b.requests[0].URL.Path != "/custom/path" {
		t.Errorf("%d and %d spans", len(a.got()), len(b.got()))
	}
}
