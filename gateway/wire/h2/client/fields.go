package client

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// block is a field section on its way in. Its fields are read into memory of the reader's, and change places with the
// call's when it is complete.
type block struct {
	decoder *hpack.Decoder
	limit   int // of the list's size
	most    int // of fields

	id     uint32
	end    bool // it ends the stream
	pieces int
	bytes  int

	header  exchange.Header
	status  int
	length  int64 // Content-Length; -1: none
	size    int
	fields  int
	regular bool  // a field that is no pseudo-header field has come
	err     error // what is wrong with it, which its call alone suffers from
}

func (b *block) begin(terms *Terms) {
	b.limit, b.most = terms.Head, terms.Fields
	b.decoder = hpack.NewDecoder(maxTable, b.field)
	b.decoder.SetMaxStringLength(terms.Head)
}

// open prepares for the next section.
func (b *block) open(id uint32, end bool) {
	b.id, b.end, b.pieces, b.bytes = id, end, 0, 0
	b.header.Reset("")
	b.status, b.length, b.size, b.fields, b.regular, b.err = 0, -1, 0, 0, false, nil
	b.decoder.SetEmitEnabled(true)
}

// spoil notes what is wrong. The rest is decoded for the table's sake alone.
func (b *block) spoil(err error) {
	if b.err == nil {
		b.err = err
	}
	b.decoder.SetEmitEnabled(false)
}

// field takes a field (RFC 9113 section 8.2). The decoder calls it.
func (b *block) field(f hpack.HeaderField) {
	b.size += int(f.Size())
	if b.fields++; b.size > b.limit || b.fields > b.most {
		b.spoil(errHeadTooLarge)
		return
	}
	if f.IsPseudo() {
		b.pseudo(f)
		return
	}
	b.regular = true
	switch {
	case !lowerName(f.Name):
		b.spoil(errName)
		return
	case !exchange.ValidValue(f.Value):
		b.spoil(errValue)
		return
	}
	switch len(f.Name) {
	case 2, 7, 10, 16, 17:
		if aboutConnection(f.Name) {
			b.spoil(errConnection)
			return
		}
	case 14:
		if f.Name == "content-length" {
			n, err := h1.ParseLength(f.Value)
			if err != nil || b.length >= 0 {
				b.spoil(errLength)
			}
			b.length = n
			return
		}
	case 18, 19:
		if f.Name == "proxy-authenticate" || f.Name == "proxy-authorization" {
			return // between two neighbours (RFC 9110 section 11.7)
		}
	}
	b.header.Add(f.Name, f.Value)
}

// pseudo takes :status, the only one that a reply has.
func (b *block) pseudo(f hpack.HeaderField) {
	if f.Name != ":status" || b.regular || b.status != 0 {
		b.spoil(errPseudo)
		return
	}
	v := f.Value
	if len(v) != 3 || v[0] < '1' || v[0] > '5' || v[1] < '0' || v[1] > '9' || v[2] < '0' || v[2] > '9' {
		b.spoil(errStatus)
		return
	}
	b.status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
}

// lowerName reports whether s may be a field's name in HTTP/2.
func lowerName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !exchange.IsToken(c) || c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return s != ""
}

// aboutConnection reports whether the field, in lower case, is about a connection of HTTP/1.1 (RFC 9113 section 8.2.2).
func aboutConnection(name string) bool {
	switch name {
	case "te", "upgrade", "connection", "keep-alive", "proxy-connection", "transfer-encoding":
		return true
	}
	return false
}

// fragment takes the first piece of a field section.
func (in *inbound) fragment(id uint32, p []byte, ended, whole bool) error {
	in.block.open(id, ended)
	return in.piece(p, whole)
}

func (in *inbound) continuation(f *http2.ContinuationFrame) error {
	if in.block.pieces++; in.block.pieces > maxContinuations {
		return flood(errContinuations)
	}
	return in.piece(f.HeaderBlockFragment(), f.HeadersEnded())
}

func (in *inbound) piece(p []byte, whole bool) error {
	b := &in.block
	if b.bytes += len(p); b.bytes > maxBlockFactor*b.limit {
		return flood(errContinuations)
	}
	if _, err := b.decoder.Write(p); err != nil {
		return &codedError{errFields, http2.ErrCodeCompression}
	}
	if !whole {
		return nil
	}
	if err := b.decoder.Close(); err != nil {
		return &codedError{errFields, http2.ErrCodeCompression}
	}
	return in.conn.head(b)
}

// head takes a complete field section into its call.
func (c *Conn) head(b *block) error {
	c.mu.Lock()
	call := c.state.calls[b.id]
	if call == nil {
		err := c.known(b.id)
		c.mu.Unlock()
		if err == nil {
			err = c.in.idleChatter() // of a stream that we have given up
		}
		return err
	}
	why := b.err
	if why == nil {
		why = call.fields(b)
	}
	done := why == nil && call.finished()
	if done {
		delete(c.state.calls, b.id)
	}
	c.mu.Unlock()
	c.in.content()
	switch {
	case why != nil:
		return answered(c.abandon(b.id, why, http2.ErrCodeProtocol))
	case done:
		c.used.Store(true)
		c.vacate()
	}
	return nil
}

// common are names of fields as they are often spelled in HTTP/1.1, in lower case.
var common = func() map[string]string {
	names := map[string]string{}
	for name := range strings.FieldsSeq(`Accept Accept-Charset Accept-Encoding Accept-Language Access-Control-Request-Headers
		Access-Control-Request-Method Authorization Cache-Control Content-Disposition Content-Encoding Content-Language
		Content-Location Content-Range Content-Type Cookie Date DNT Forwarded From If-Match If-Modified-Since If-None-Match
		If-Range If-Unmodified-Since Last-Modified Link Max-Forwards Origin Pragma Priority Range Referer Sec-CH-UA
		Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Sec-WebSocket-Extensions
		Sec-WebSocket-Protocol Sec-WebSocket-Version Traceparent Tracestate Trailer Upgrade-Insecure-Requests User-Agent Via
		X-Amzn-Trace-Id X-API-Key X-Forwarded-For X-Forwarded-Host X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto
		X-Real-IP X-Request-ID X-Request-Id X-Correlation-ID X-Requested-With Grpc-Timeout Grpc-Encoding Grpc-Accept-Encoding`) {
		names[name] = strings.ToLower(name)
	}
	return names
}()

func lower(name string) string {
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			if known, ok := common[name]; ok {
				return known
			}
			return strings.ToLower(name)
		}
	}
	return name
}

// volatile reports whether a field has another value in each request, or is a secret: such a one is not put into the HPACK
// table, where it would push out what repeats, and where secrets could be guessed at (RFC 7541 section 7.1).
func volatile(name string) bool {
	switch name {
	case "authorization", "cookie", "x-api-key", "x-request-id", "x-correlation-id", "traceparent", "tracestate", "x-forwarded-for",
		"forwarded", "x-real-ip", "content-length", "grpc-timeout", "if-none-match", "if-modified-since", "range", "referer", "date",
		"x-amzn-trace-id", "via":
		return true
	}
	return false
}

func (e *encoder) add(name, value string, never bool) {
	_ = e.hpack.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: never}) // to memory
}

// request makes the field section of a request (RFC 9113 section 8.3.1).
func (e *encoder) request(r *exchange.Request, plan *Plan, host string) []byte {
	e.block = e.block[:0]
	path := r.Path
	if r.HasQuery {
		path += "?" + r.Query
	}
	grpc := isGRPC(&r.Header)
	method := r.Method
	if r.Upgrade != "" {
		method = "CONNECT" // RFC 8441 section 4
	}
	e.add(":method", method, false)
	e.add(":scheme", plan.Scheme, false)
	e.add(":authority", host, false)
	e.add(":path", path, !grpc)
	if r.Upgrade != "" {
		e.add(":protocol", r.Upgrade, false)
	}
	for name, value := range r.Header.All() {
		if name = lower(name); keeps(name, r.Upgrade != "") {
			e.add(name, value, volatile(name))
		}
	}
	if grpc {
		e.add("te", "trailers", false)
	}
	switch {
	case r.Upgrade != "":
	case r.Body.Reader != nil && r.Body.Length >= 0,
		r.Body.Reader == nil && r.Body.Length == 0 && (method == "POST" || method == "PUT" || method == "PATCH"): // RFC 9110 section 8.6
		e.add("content-length", strconv.FormatInt(r.Body.Length, 10), true)
	}
	if r.Expect {
		e.add("expect", "100-continue", false)
	}
	return e.block
}

// keeps reports whether a field of the request goes to the target. A policy may have set one that it must not.
func keeps(name string, upgrade bool) bool {
	switch len(name) {
	case 2, 7, 10, 16:
		return !aboutConnection(name)
	case 4:
		return name != "host"
	case 6:
		return name != "expect"
	case 14:
		return name != "content-length" && name != "http2-settings"
	case 17:
		return name != "transfer-encoding" && (!upgrade || name != "sec-websocket-key") // RFC 8441 section 5.1
	}
	return true
}

// isGRPC reports whether the request is one of gRPC's, whose targets want to hear that trailers are welcome.
func isGRPC(h *exchange.Header) bool {
	t := h.Get("content-type")
	const grpc = "application/grpc"
	return strings.HasPrefix(t, grpc) && (len(t) == len(grpc) || t[len(grpc)] == '+' || t[len(grpc)] == ';')
}

// trailer makes a trailer section.
func (e *encoder) trailer(h *exchange.Header) []byte {
	e.block = e.block[:0]
	for name, value := range h.All() {
		e.add(lower(name), value, true)
	}
	return e.block
}

// section writes a field section in as many frames as it takes. The lock is held.
func (o *outbound) section(id uint32, b []byte, end bool) {
	first := b[:min(len(b), frameSize)]
	_ = o.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(b),
	})
	for b = b[len(first):]; len(b) > 0; {
		piece := b[:min(len(b), frameSize)]
		b = b[len(piece):]
		_ = o.framer.WriteContinuation(id, len(b) == 0, piece)
	}
	o.spent++
}
