package h2

import (
	"errors"
	"math"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
	"headgate/gateway/wire/h2/fields"
)

// blockKind is what a field section is for.
type blockKind uint8

const (
	ofRequest blockKind = iota
	ofTrailer
	ofNobody // decoded only because later ones build on it (RFC 9113 section 4.3)
)

// block is a field section that is being received (RFC 9113 section 4.3): HEADERS, and CONTINUATION until it ends.
type block struct {
	open      bool
	kind      blockKind
	id        uint32
	s         *stream // of a request
	ends      bool    // the stream ends with it
	refused   bool    // the stream is to be reset with REFUSED_STREAM when it has been decoded
	fragments int
	bytes     int // as they came
	size      int // decoded, 32 more for each field (section 6.5.2)
	head      fields.Head
	limits    *h1.Limits
}

// headers takes a HEADERS frame.
func (c *conn) headers(f *http2.HeadersFrame) bool {
	id := f.StreamID
	b := &c.in.block
	*b = block{open: true, id: id, ends: f.StreamEnded(), limits: c.server.Limits.Load()}
	if !c.place(b, f.HasPriority() && f.Priority.StreamDep == id) {
		return false
	}
	b.head.Begin()
	if b.kind == ofRequest {
		b.s = c.newStream(id)
	}
	if c.in.fields == nil {
		c.in.fields = hpack.NewDecoder(fields.MaxTable, c.field)
	}
	c.in.fields.SetMaxStringLength(2 * (b.limits.Head + blockRoom))
	c.in.fields.SetEmitEnabled(b.kind != ofNobody)
	c.in.trailer.Reset("")
	return c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
}

// place finds out what the field section is for.
func (c *conn) place(b *block, dependsOnItself bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &c.seen
	switch s := n.streams[b.id]; {
	case c.dead:
		return false
	case b.id%2 == 0:
		return c.fail(http2.ErrCodeProtocol, "a client's streams have odd numbers")
	case s != nil && s.remote && !s.reset:
		b.kind = ofNobody
		return c.fail(http2.ErrCodeStreamClosed, "HEADERS for a stream that its client has ended")
	case s != nil && !s.reset:
		b.kind = ofTrailer
	case s != nil:
		b.kind = ofNobody
		if s.left {
			return c.resetStream(b.id, http2.ErrCodeStreamClosed)
		}
	case b.id <= n.last:
		e, known := n.ended(b.id)
		if !known {
			return c.fail(http2.ErrCodeProtocol, "a stream's number is not higher than the last one's")
		}
		if !e.cut {
			return c.fail(http2.ErrCodeStreamClosed, "HEADERS for a stream that has ended")
		}
		b.kind = ofNobody
		return c.spend(emptyFlood)
	case c.parting == final: // the client learns by GOAWAY that it was not taken
		b.kind = ofNobody
	case n.open >= maxStreams || len(n.streams) >= maxCarried:
		n.last = b.id
		b.kind, b.refused = ofNobody, true
	default:
		n.last = b.id
	}
	if dependsOnItself {
		b.kind = ofNobody
		return c.resetStream(b.id, http2.ErrCodeProtocol)
	}
	return true
}

// continuation takes a CONTINUATION frame, of which the framer has seen that it is in its place.
func (c *conn) continuation(f *http2.ContinuationFrame) bool {
	return c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
}

// fragment decodes a part of the field section.
func (c *conn) fragment(p []byte, ends bool) bool {
	b := &c.in.block
	b.bytes += len(p)
	b.fragments++
	if b.bytes > b.limits.Head+blockRoom {
		return c.abused(headFlood)
	}
	if b.fragments > maxFragments {
		return c.abused(continuationFlood)
	}
	_, err := c.in.fields.Write(p)
	if err == nil && ends {
		err = c.in.fields.Close()
	}
	switch {
	case errors.Is(err, hpack.ErrStringLength):
		return c.abused(headFlood)
	case err != nil:
		return c.failed(http2.ErrCodeCompression, err.Error())
	case !ends:
		return true
	}
	b.open = false
	switch {
	case b.kind == ofRequest:
		return c.request(b)
	case b.kind == ofTrailer:
		return c.trailers(b)
	case b.refused:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.out.reset(b.id, http2.ErrCodeRefusedStream)
		c.seen.remember(b.id, true)
		return c.spend(refusedStreams)
	}
	return true
}

func (c *conn) abused(kind abuse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.abuse(kind)
}

// field takes one decoded field.
func (c *conn) field(f hpack.HeaderField) {
	b := &c.in.block
	b.size += len(f.Name) + len(f.Value) + 32
	if b.size > b.limits.Head {
		b.head.TooLarge()
		b.size = math.MaxInt / 2 // it stays too large
		c.in.fields.SetEmitEnabled(false)
		return
	}
	if b.kind == ofTrailer {
		b.head.Trailer(f.Name, f.Value, &c.in.trailer, b.limits.Fields)
		return
	}
	b.head.Field(f.Name, f.Value, &b.s.x.Request.Header, b.limits.Fields)
}

// request opens a stream for a request whose head is complete.
func (c *conn) request(b *block) bool {
	s := b.s
	b.s = nil
	fault := b.head.Finish(&s.x.Request, b.limits, b.ends)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.served++
	if fault != nil && fault.Malformed() {
		if m := c.server.Metrics; m != nil {
			m.malformed.Inc(c.shard)
		}
		c.server.Log.Debug("an HTTP/2 request is malformed", "peer", c.client.Addr, "reason", fault.Reason)
		c.seen.remember(s.id, true)
		s.over = true
		s.recycle()
		return c.resetStream(b.id, http2.ErrCodeProtocol)
	}
	s.refusal, s.bodiless, s.extended = fault, b.head.Method == "HEAD", b.head.Extended()
	s.window = c.peer.initial
	s.body.begin(b.head.Length, s.x.Request.Expect)
	c.seen.streams[s.id] = s
	c.seen.open++
	if b.ends {
		s.body.ended = true
		s.endRemote()
	}
	c.deadline.set(c, forNothing)
	spent := b.limits.Requests > 0 && c.seen.served >= b.limits.Requests
	if c.parting == staying && (spent || c.server.leaving.Load()) {
		c.announce()
	}
	if b.limits.Requests > 0 && c.seen.served >= b.limits.Requests+maxStreams && c.parting != final {
		c.sayFinal(http2.ErrCodeNo, "") // the client does not listen
	}
	c.in.fresh = append(c.in.fresh, s)
	return true
}

// trailers ends a request's body with the fields behind it.
func (c *conn) trailers(b *block) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen.streams[b.id]
	if s == nil || s.reset {
		return true // it has ended meanwhile
	}
	fault := b.head.Fault()
	if fault != nil && !fault.Malformed() { // too many, or too large
		s.body.fail(fault.Exchange())
		fault = nil
	}
	if fault != nil || !b.ends {
		return c.resetStream(b.id, http2.ErrCodeProtocol)
	}
	if s.body.err == nil {
		s.body.trailer.CopyFrom(&c.in.trailer)
	}
	return s.ended()
}

// data takes a DATA frame. All of it counts against the windows, padding and what is thrown away, too.
func (c *conn) data(f *http2.DataFrame) bool {
	n, data := int64(f.Length), f.Data()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	if len(data) == 0 && !f.StreamEnded() && !c.spend(emptyFlood) {
		return false
	}
	if c.peer.room -= n; c.peer.room < 0 {
		return c.fail(http2.ErrCodeFlowControl, "DATA beyond the connection's window")
	}
	s := c.seen.streams[f.StreamID]
	if s == nil {
		return c.strayData(f.StreamID, n)
	}
	b := &s.body
	if b.room -= n; b.room < 0 && !s.reset {
		c.consumed(n)
		return c.resetStream(s.id, http2.ErrCodeFlowControl)
	}
	switch {
	case s.reset && !s.left: // it was on its way
		c.consumed(n)
		return true
	case s.reset, s.remote:
		c.consumed(n)
		return c.resetStream(s.id, http2.ErrCodeStreamClosed)
	}
	b.got += int64(len(data))
	if b.declared >= 0 && b.got > b.declared {
		c.consumed(n)
		return c.resetStream(s.id, http2.ErrCodeProtocol)
	}
	if b.max > 0 && b.got > b.max {
		b.fail(errBodyTooLarge())
	}
	if b.err != nil || b.interrupted { // nobody will take it, and no more is asked for
		c.consumed(n)
	} else {
		padding := n - int64(len(data))
		c.consumed(padding)
		b.give(padding)
		b.add(data)
		b.wake()
	}
	if f.StreamEnded() {
		return s.ended()
	}
	return true
}

// strayData takes DATA of a stream that is not there.
func (c *conn) strayData(id uint32, n int64) bool {
	if id > c.seen.last || id%2 == 0 {
		return c.fail(http2.ErrCodeProtocol, "DATA for a stream that was never opened")
	}
	c.consumed(n)
	if e, known := c.seen.ended(id); known && e.cut {
		return true // it was on its way
	}
	return c.resetStream(id, http2.ErrCodeStreamClosed)
}

// ended notes that the client has sent everything.
func (s *stream) ended() bool {
	b := &s.body
	s.endRemote()
	if b.declared >= 0 && b.got != b.declared && b.err == nil {
		return s.c.resetStream(s.id, http2.ErrCodeProtocol)
	}
	b.ended = true
	b.wake()
	return true
}

// fail makes the body one that cannot be read any more. What it holds is thrown away.
func (b *body) fail(err *exchange.Error) {
	if b.err != nil {
		return
	}
	b.err = err
	for i, chunk := range b.chunks {
		putChunk(chunk)
		b.chunks[i] = nil
	}
	b.chunks, b.off = b.chunks[:0], 0
	b.s.c.consumed(b.buffered)
	b.buffered = 0
	b.wake()
}
