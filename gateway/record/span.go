package record

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkresource "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"headgate/gateway/exchange"
)

// exporter is what is needed of an OTLP exporter.
type exporter interface {
	ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error
	Shutdown(context.Context) error
}

// spanMaker turns exchanges that have ended into spans of the OpenTelemetry SDK. One goroutine uses it. Attributes follow the
// semantic conventions for HTTP spans; those of Headgate itself begin with "headgate.".
type spanMaker struct {
	tracer trace.Tracer
	mask   *mask
	ids    spanIDs
	ended  []sdktrace.ReadOnlySpan // what has ended
}

func newSpanMaker(service, version string, m *mask) *spanMaker {
	s := &spanMaker{mask: m}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // what comes here has been chosen
		sdktrace.WithIDGenerator(&s.ids),
		sdktrace.WithSpanProcessor(s),
		sdktrace.WithResource(sdkresource.NewSchemaless(
			attribute.String("service.name", service), attribute.String("service.version", version))))
	s.tracer = provider.Tracer("headgate")
	return s
}

// spanIDs hands out the ids that the exchange already has.
type spanIDs struct {
	trace trace.TraceID
	span  trace.SpanID
}

// NewIDs implements sdktrace.IDGenerator.
func (s *spanIDs) NewIDs(context.Context) (trace.TraceID, trace.SpanID) { return s.trace, s.span }

// NewSpanID implements sdktrace.IDGenerator.
func (s *spanIDs) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return s.span }

// OnStart implements sdktrace.SpanProcessor.
func (s *spanMaker) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor: it collects.
func (s *spanMaker) OnEnd(span sdktrace.ReadOnlySpan) { s.ended = append(s.ended, span) }

// Shutdown implements sdktrace.SpanProcessor.
func (s *spanMaker) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (s *spanMaker) ForceFlush(context.Context) error { return nil }

// spans returns the spans of the exchanges: one for the exchange, and one for asking the upstream below it.
func (s *spanMaker) spans(batch []finished) []sdktrace.ReadOnlySpan {
	s.ended = s.ended[:0]
	for i := range batch {
		e := &batch[i]
		ctx := s.server(e)
		if e.asked() {
			s.client(ctx, e)
		}
		trace.SpanFromContext(ctx).End(trace.WithTimestamp(e.start.Add(e.duration)))
	}
	return s.ended
}

// server begins the span of the exchange.
func (s *spanMaker) server(e *finished) context.Context {
	ctx := context.Background()
	if e.trace.Parent != [8]byte{} {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: e.trace.ID, SpanID: e.trace.Parent, Remote: true,
		}))
	}
	s.ids = spanIDs{e.trace.ID, e.trace.Span}
	ctx, span := s.tracer.Start(ctx, spanName(e), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(e.start),
		trace.WithAttributes(s.attributes(e)...))
	if kind := errorType(e); kind != "" {
		span.SetAttributes(attribute.String("error.type", kind))
		span.SetStatus(codes.Error, cause(e))
	}
	return ctx
}

// client makes the span of asking the upstream.
func (s *spanMaker) client(ctx context.Context, e *finished) {
	s.ids = spanIDs{e.trace.ID, clientSpan(e.trace.Span)}
	start := e.start.Add(e.usage.UpstreamStart)
	host, port := hostPort(e.usage.Target)
	name := method(e)
	if e.tcp() {
		name = "connect"
	}
	_, span := s.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(start),
		trace.WithAttributes(e.sane([]attribute.KeyValue{
			attribute.String("http.request.method", method(e)), attribute.String("server.address", host),
			attribute.Int("server.port", port), attribute.String("headgate.upstream", e.route.Upstream)})...))
	if e.usage.Variant != "" {
		span.SetAttributes(e.sane([]attribute.KeyValue{attribute.String("headgate.variant", e.usage.Variant)})...)
	}
	if e.usage.Attempts > 1 {
		span.SetAttributes(attribute.Int("http.request.resend_count", e.usage.Attempts-1))
	}
	if e.source == exchange.FromUpstream && !e.tcp() {
		span.SetAttributes(attribute.Int("http.response.status_code", e.status))
	}
	if kind := clientErrorType(e); kind != "" { // to a client span 4xx is an error too
		span.SetAttributes(attribute.String("error.type", kind))
		span.SetStatus(codes.Error, cause(e))
	}
	span.End(trace.WithTimestamp(start.Add(max(0, e.usage.UpstreamTime))))
}

func (s *spanMaker) attributes(e *finished) []attribute.KeyValue {
	host, port := hostPort(e.original.Host)
	all := []attribute.KeyValue{
		attribute.String("http.request.method", method(e)),
		attribute.String("url.scheme", e.scheme),
		attribute.String("url.path", e.original.Path),
		attribute.String("server.address", host),
		attribute.String("client.address", e.client.IP.String()),
		attribute.String("network.peer.address", e.client.Peer.Addr().String()),
		attribute.String("network.protocol.version", strings.TrimPrefix(e.proto, "HTTP/")),
		attribute.Int64("http.request.body.size", e.usage.RequestBytes),
		attribute.Int64("http.response.body.size", e.usage.ReplyBytes),
		attribute.String("headgate.request_id", e.id),
		attribute.String("headgate.source", e.source.String()),
	}
	if port > 0 {
		all = append(all, attribute.Int("server.port", port))
	}
	if e.status > 0 {
		all = append(all, attribute.Int("http.response.status_code", e.status))
	}
	if code, ok := e.usage.GRPC.Code(); ok {
		all = append(all, attribute.String("rpc.system", "grpc"), attribute.Int("rpc.grpc.status_code", code))
	}
	if m := method(e); m != e.original.Method {
		all = append(all, attribute.String("http.request.method_original", e.original.Method))
	}
	if e.usage.Aborted {
		all = append(all, attribute.Bool("headgate.aborted", true))
	}
	for _, a := range []struct{ name, value string }{
		{"url.query", string(s.mask.appendQuery(nil, e.original.Query))},
		{"user_agent.original", e.userAgent},
		{"headgate.api", e.route.API}, {"headgate.api.version", e.route.Version}, {"headgate.route", e.route.Name},
		{"headgate.consumer", e.consumer}, {"headgate.code", problemCode(e)},
	} {
		if a.value != "" {
			all = append(all, attribute.String(a.name, strings.ToValidUTF8(a.value, "\uFFFD")))
		}
	}
	return e.sane(all)
}

// tcp reports whether the exchange was a connection that carried no HTTP.
func (e *finished) tcp() bool { return e.proto == "TCP" }

// sane leaves out, of such a connection, what only a request has.
func (e *finished) sane(all []attribute.KeyValue) []attribute.KeyValue {
	if !e.tcp() {
		return all
	}
	all = slices.DeleteFunc(all, func(a attribute.KeyValue) bool {
		k := string(a.Key)
		return strings.HasPrefix(k, "http.") || strings.HasPrefix(k, "url.") || k == "network.protocol.version" ||
			k == "server.address" && a.Value.AsString() == ""
	})
	all = append(all, attribute.String("network.transport", "tcp"))
	if e.usage.Closed != "" {
		all = append(all, attribute.String("headgate.closed", e.usage.Closed), attribute.Int64("headgate.bytes_in", e.usage.RequestBytes),
			attribute.Int64("headgate.bytes_out", e.usage.ReplyBytes))
	}
	return all
}

// spanName is the method and the route, which are few; never the path, which a client makes up.
func spanName(e *finished) string {
	if e.tcp() {
		return "TCP " + e.route.Name
	}
	name := method(e)
	if name == "_OTHER" {
		name = "HTTP"
	}
	if e.route.API == "" {
		return name
	}
	return name + " " + e.route.API + "/" + e.route.Name
}

// method is the request's method if it is a known one, as the conventions ask, for names must stay few.
func method(e *finished) string {
	switch m := e.original.Method; m {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return m
	}
	return "_OTHER"
}

func problemCode(e *finished) string {
	if e.err == nil {
		return ""
	}
	return e.err.Code.Name
}

// errorType says why the exchange is an error to its server span; "": it is none.
func errorType(e *finished) string {
	call, isCall := e.usage.GRPC.Code()
	switch {
	case !failed(e.status, &e.usage):
		return ""
	case e.err != nil:
		return e.err.Code.Name
	case e.usage.Aborted:
		return "aborted"
	}
	if isCall {
		return grpcStatuses[min(call, len(grpcStatuses)-1)]
	}
	return strconv.Itoa(e.status)
}

// failed reports whether an exchange is an error to its server span: a reply of 5xx, one that the client did not get whole,
// or a call that ended with one of the status codes that the conventions name.
func failed(status int, u *exchange.Usage) bool {
	if status >= 500 || u.Aborted {
		return true
	}
	switch code, ok := u.GRPC.Code(); code {
	case 2, 4, 12, 13, 14, 15: // see grpcStatuses
		return ok
	}
	return false
}

func clientErrorType(e *finished) string {
	if e.source == exchange.FromUpstream && e.status >= 400 {
		return strconv.Itoa(e.status)
	}
	if e.err != nil && e.err.Source == exchange.FromUpstream {
		return e.err.Code.Name
	}
	return ""
}

func cause(e *finished) string {
	if e.err == nil || e.err.Cause == nil {
		return ""
	}
	return strings.ToValidUTF8(e.err.Cause.Error(), "\uFFFD")
}

// hostPort splits an authority; the port is 0 when there is none.
func hostPort(authority string) (host string, port int) {
	h, p, err := net.SplitHostPort(authority)
	if err != nil {
		return authority, 0
	}
	if n, err := strconv.ParseUint(p, 10, 16); err == nil {
		port = int(n)
	}
	return h, port
}
