package record

import (
	"encoding/hex"
	"strconv"
	"time"

	"headgate/gateway/exchange"
)

// line is what the fields of one line are taken from.
type line struct {
	x        *exchange.Exchange
	duration time.Duration
	mask     *mask
	stamp    stamp
}

// put appends a field's value, or nothing when there is none.
type put func(b []byte, l *line) []byte

// spec is one field of the access log. One of text, ascii and number is given.
type spec struct {
	name   string
	bare   bool               // the readable form writes the value without its name
	text   func(*line) string // may hold anything; "" when there is none
	ascii  put                // needs no escaping
	number put                // a JSON number or true
}

// specs returns the fields by name, in the order of the default line, followed by those that must be asked for.
func specs() []spec {
	return []spec{
		{name: "time", bare: true, ascii: func(b []byte, l *line) []byte { return l.stamp.append(b, l.x.Start) }},
		{name: "id", text: func(l *line) string { return l.x.ID }},
		{name: "client", bare: true, ascii: putClient},
		{name: "method", bare: true, text: func(l *line) string { return l.x.Original.Method }},
		{name: "host", text: func(l *line) string { return l.x.Original.Host }},
		{name: "path", bare: true, ascii: putPath},
		{name: "status", bare: true, number: func(b []byte, l *line) []byte { return strconv.AppendInt(b, int64(status(l.x)), 10) }},
		{name: "source", text: func(l *line) string { return l.x.Reply.Source.String() }},
		{name: "code", text: func(l *line) string { return code(l.x) }},
		{name: "cause", text: textCause},
		{name: "bytes_in", number: func(b []byte, l *line) []byte { return strconv.AppendInt(b, l.x.Usage.RequestBytes, 10) }},
		{name: "bytes_out", number: func(b []byte, l *line) []byte { return strconv.AppendInt(b, l.x.Usage.ReplyBytes, 10) }},
		{name: "duration_ms", number: func(b []byte, l *line) []byte { return appendMillis(b, l.duration) }},
		{name: "api", text: func(l *line) string { return route(l.x).API }},
		{name: "route", text: func(l *line) string { return route(l.x).Name }},
		{name: "consumer", text: func(l *line) string { return consumer(l.x) }},
		{name: "target", text: func(l *line) string { return l.x.Usage.Target }},
		{name: "variant", text: func(l *line) string { return l.x.Usage.Variant }},
		{name: "upstream_ms", number: putUpstream},
		{name: "attempts", number: func(b []byte, l *line) []byte { return putPositive(b, l.x.Usage.Attempts) }},
		{name: "fallback", text: func(l *line) string { return l.x.Usage.Fallback }},
		{name: "user_agent", text: func(l *line) string { return l.x.Request.Header.Get("User-Agent") }},
		{name: "aborted", number: func(b []byte, l *line) []byte { return putTrue(b, l.x.Usage.Aborted) }},
		{name: "grpc_status", number: putGRPCStatus},
		{name: "upgrade", text: func(l *line) string { return upgrade(l.x) }},
		{name: "closed", text: func(l *line) string { return l.x.Usage.Closed }},
		{name: "close_status", number: func(b []byte, l *line) []byte { return putPositive(b, int(l.x.Usage.CloseStatus)) }},
		{name: "first_byte_ms", number: func(b []byte, l *line) []byte { return putMillis(b, l.x.Usage.FirstByte) }},
		{name: "events", number: func(b []byte, l *line) []byte { return putPositive(b, l.x.Usage.Events) }},
		{name: "largest_gap_ms", number: func(b []byte, l *line) []byte { return putMillis(b, l.x.Usage.LargestGap) }},
		{name: "trace", ascii: func(b []byte, l *line) []byte { return putHex(b, l.x.Trace.ID[:]) }},
		{name: "span", ascii: func(b []byte, l *line) []byte { return putHex(b, l.x.Trace.Span[:]) }},
		{name: "version", text: func(l *line) string { return route(l.x).Version }},
		{name: "upstream", text: func(l *line) string { return route(l.x).Upstream }},
		{name: "scheme", text: func(l *line) string { return l.x.Request.Scheme }},
		{name: "proto", text: func(l *line) string { return l.x.Request.Proto }},
		{name: "peer", ascii: putPeer},
		{name: "tls_version", text: func(l *line) string { return overTLS(l.x).Version }},
		{name: "tls_cipher", text: func(l *line) string { return overTLS(l.x).Cipher }},
		{name: "server_name", text: func(l *line) string { return overTLS(l.x).ServerName }},
		{name: "client_cert", text: clientCertificate},
		{name: "cached", number: func(b []byte, l *line) []byte { return putTrue(b, l.x.Usage.Cached) }},
	}
}

// defaultFields is how many of specs make the default line.
const defaultFields = 31

func putClient(b []byte, l *line) []byte {
	if !l.x.Client.IP.IsValid() {
		return b
	}
	return l.x.Client.IP.AppendTo(b)
}

func putPeer(b []byte, l *line) []byte {
	if !l.x.Client.Peer.IsValid() {
		return b
	}
	return l.x.Client.Peer.AppendTo(b)
}

func putPath(b []byte, l *line) []byte {
	b = appendText(b, l.x.Original.Path)
	if l.x.Original.Query != "" {
		b = l.mask.appendQuery(append(b, '?'), l.x.Original.Query)
	}
	return b
}

// textCause is what the operator should know about a failure: its cause, or else what the caller was told.
func textCause(l *line) string {
	switch e := l.x.Err; {
	case e == nil:
		return ""
	case e.Cause == nil:
		return e.Detail
	default:
		return e.Cause.Error()
	}
}

func putUpstream(b []byte, l *line) []byte {
	if l.x.Usage.Attempts == 0 {
		return b
	}
	return appendMillis(b, l.x.Usage.UpstreamTime)
}

func putGRPCStatus(b []byte, l *line) []byte {
	if code, ok := l.x.Usage.GRPC.Code(); ok {
		return strconv.AppendInt(b, int64(code), 10)
	}
	return b
}

func putPositive(b []byte, n int) []byte {
	if n <= 0 {
		return b
	}
	return strconv.AppendInt(b, int64(n), 10)
}

func putMillis(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return b
	}
	return appendMillis(b, d)
}

// upgrade returns the protocol that the connection was switched to, or "".
func upgrade(x *exchange.Exchange) string {
	if x.Usage.Closed == "" {
		return ""
	}
	return x.Request.Upgrade
}

func putTrue(b []byte, v bool) []byte {
	if !v {
		return b
	}
	return append(b, "true"...)
}

func putHex(b, id []byte) []byte {
	for _, c := range id {
		if c != 0 {
			return hex.AppendEncode(b, id)
		}
	}
	return b
}

var noRoute = exchange.Route{}

// route returns the route, or an empty one for an exchange that ended before any matched.
func route(x *exchange.Exchange) *exchange.Route {
	if x.Route == nil {
		return &noRoute
	}
	return x.Route
}

func consumer(x *exchange.Exchange) string {
	if x.Consumer == nil {
		return ""
	}
	return x.Consumer.Name
}

func code(x *exchange.Exchange) string {
	if x.Err == nil {
		return ""
	}
	return x.Err.Code.Name
}

// status returns the reply's status, or that of what prevented one; 0: there is neither.
func status(x *exchange.Exchange) int {
	if x.Reply.Status == 0 && x.Err != nil {
		return x.Err.Code.Status
	}
	return x.Reply.Status
}
