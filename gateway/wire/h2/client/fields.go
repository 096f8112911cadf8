package client

import (
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

// request makes the field section of a request (RFC 9113 section 8.3.1). The lock is held.
func (o *outbound) request(r *exchange.Request, plan *Plan, host string) []byte {
	e, method := o.fields, r.Method
	if r.Upgrade != "" {
		method = "CONNECT" // RFC 8441 section 4
	}
	b := e.Begin(o.block[:0])
	b = e.Field(b, ":method", method)
	b = e.Field(b, ":scheme", plan.Scheme)
	b = e.Field(b, ":authority", host)
	path := r.Path
	if r.HasQuery {
		path += "?" + r.Query
	}
	b = e.Field(b, ":path", path)
	if r.Upgrade != "" {
		b = e.Field(b, ":protocol", r.Upgrade)
	}
	for i := range r.Header.Len() {
		switch f := r.Header.At(i); {
		case !keeps(f.Name, r.Upgrade != ""):
		case secret(f.Name):
			b = e.Secret(b, f.Name, f.Value)
		default:
			b = e.Field(b, f.Name, f.Value)
		}
	}
	if isGRPC(&r.Header) {
		b = e.Field(b, "te", "trailers")
	}
	switch {
	case r.Upgrade != "":
	case r.Body.Reader != nil && r.Body.Length >= 0,
		r.Body.Reader == nil && r.Body.Length == 0 && (method == "POST" || method == "PUT" || method == "PATCH"): // RFC 9110 section 8.6
		b = e.Length(b, r.Body.Length)
	}
	if r.Expect {
		b = e.Field(b, "expect", "100-continue")
	}
	o.block = b
	return b
}

// secret reports whether a field's value is one that those who share the connection must not be able to guess at.
func secret(name string) bool {
	switch len(name) {
	case 6:
		return exchange.EqualFold(name, "cookie")
	case 9:
		return exchange.EqualFold(name, "x-api-key")
	case 13:
		return exchange.EqualFold(name, "authorization")
	}
	return false
}

// keeps reports whether a field of the request goes to the target. A policy may have set one that it must not.
func keeps(name string, upgrade bool) bool {
	switch len(name) {
	case 2:
		return !exchange.EqualFold(name, "te")
	case 4:
		return !exchange.EqualFold(name, "host")
	case 6:
		return !exchange.EqualFold(name, "expect")
	case 7:
		return !exchange.EqualFold(name, "upgrade")
	case 10:
		return !exchange.EqualFold(name, "connection") && !exchange.EqualFold(name, "keep-alive")
	case 14:
		return !exchange.EqualFold(name, "content-length") && !exchange.EqualFold(name, "http2-settings")
	case 16:
		return !exchange.EqualFold(name, "proxy-connection")
	case 17:
		return !exchange.EqualFold(name, "transfer-encoding") && (!upgrade || !exchange.EqualFold(name, "sec-websocket-key")) // RFC 8441
	}
	return true
}

// isGRPC reports whether the request is one of gRPC's, whose targets want to hear that trailers are welcome.
func isGRPC(h *exchange.Header) bool {
	t := h.Get("content-type")
	const grpc = "application/grpc"
	return strings.HasPrefix(t, grpc) && (len(t) == len(grpc) || t[len(grpc)] == '+' || t[len(grpc)] == ';')
}

// trailer makes a trailer section. The lock is held.
func (o *outbound) trailer(h *exchange.Header) []byte {
	b := o.fields.Begin(o.block[:0])
	for i := range h.Len() {
		if f := h.At(i); keeps(f.Name, false) {
			b = o.fields.Field(b, f.Name, f.Value)
		}
	}
	o.block = b
	return b
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
