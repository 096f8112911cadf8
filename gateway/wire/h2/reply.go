package h2

import (
	"errors"
	"io"
	"time"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// Inform implements exchange.Wire.
func (s *stream) Inform(_ *exchange.Exchange, status int, h *exchange.Header) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.makeRoom(); err != nil {
		return err
	}
	b := c.beginSection(s.id)
	*c.out.buf = c.encoder().Status(*c.out.buf, status)
	c.appendFields(h)
	c.endSection(b, s.id, false)
	c.hand()
	return nil
}

// Reply implements exchange.Wire: head and what is at hand of the body at once, then the rest as it comes.
func (s *stream) Reply(x *exchange.Exchange) error {
	r := &x.Reply
	switch {
	case r.Status == 101 && r.Switched != nil && s.extended:
		return s.switched(x)
	case s.extended && r.Status/100 == 2: // the client would take it for the tunnel that it asked for
		const detail = "This address does not switch to that protocol."
		x.Problem(exchange.NotImplemented, detail)
		x.Err = fromClient(exchange.NotImplemented, detail)
	}
	body := r.Body
	if s.bodiless || !h1.HasBody("GET", r.Status) {
		body.Reader = nil
	}
	w := reply{s: s, x: x, length: body.Length, bodiless: body.Reader == nil}
	if w.bodiless {
		return w.finish(nil)
	}
	if x.Request.Streaming {
		s.body.converse()
	}
	w.from.begin(body.Reader)
	defer w.from.end()
	return w.carry()
}

// reply is a reply on its way.
type reply struct {
	s        *stream
	x        *exchange.Exchange
	from     source
	length   int64
	bodiless bool
	sent     int64
	headed   bool // the head has been appended
}

// carry sends the body piece by piece. What has been appended is written when the next piece has to be waited for.
func (w *reply) carry() error {
	for {
		if w.from.waits() && !(w.length >= 0 && w.sent == w.length) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		piece, err := w.from.next()
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			w.headAlone() // so that the client sees a reply that broke off
			return err
		}
		w.sent += int64(len(piece))
		last = last || w.from.over()
		if w.length >= 0 && (w.sent > w.length || last && w.sent != w.length) {
			w.headAlone()
			return errShort
		}
		if last {
			return w.finish(piece)
		}
		if len(piece) > 0 {
			if err := w.send(piece); err != nil {
				return err
			}
		}
	}
}

// flush writes the head, if it has not been yet, and what has been appended since.
func (w *reply) flush() error {
	c := w.s.c
	c.mu.Lock()
	if err := w.head(false); err != nil {
		c.mu.Unlock()
		return err
	}
	w.push()
	return nil
}

// push lets go of the lock and writes.
func (w *reply) push() {
	c := w.s.c
	due, others := c.duty(), len(c.seen.streams) > 1
	c.mu.Unlock()
	if due {
		c.push(others)
	}
}

func (w *reply) headAlone() { _ = w.flush() } // the error is that of the body

// send appends a piece, waiting for windows and for room.
func (w *reply) send(piece []byte) error {
	c := w.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := w.head(false); err != nil {
		return err
	}
	return w.s.appendData(piece, false, &w.x.Usage.ReplyBytes)
}

// finish appends the last piece and the end.
func (w *reply) finish(piece []byte) error {
	c, trailer := w.s.c, &w.x.Reply.Trailer
	c.mu.Lock()
	trailed := trailer.Len() > 0 && !w.s.bodiless
	err := w.head(len(piece) == 0 && !trailed)
	if err == nil && (len(piece) > 0 || !w.s.local && !trailed) {
		err = w.s.appendData(piece, !trailed, &w.x.Usage.ReplyBytes)
	}
	if err == nil && trailed {
		if err = w.s.makeRoom(); err == nil {
			b := c.beginSection(w.s.id)
			c.appendFields(trailer)
			c.endSection(b, w.s.id, true)
			w.s.endLocal()
		}
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	w.push()
	return nil
}

// head appends the reply's head, once. ends: nothing follows. The lock is held.
func (w *reply) head(ends bool) error {
	if w.headed {
		return w.s.broken()
	}
	s, r := w.s, &w.x.Reply
	c := s.c
	if err := s.makeRoom(); err != nil {
		return err
	}
	w.headed = true
	start := c.beginSection(s.id)
	e, b := c.encoder(), c.out.buf
	*b = e.Status(*b, r.Status)
	c.appendFields(&r.Header)
	if r.Status >= 200 && r.Status != 204 && (w.length > 0 || w.length == 0 && r.Status != 304) {
		*b = e.Length(*b, w.length)
	}
	if !r.Header.Has("Date") {
		*b = e.Field(*b, "date", c.server.dateOf(w.x.Start))
	}
	c.endSection(start, s.id, ends)
	if ends {
		s.endLocal()
	}
	return nil
}

// beginSection begins a field section at the end of what is to be written, and returns where.
func (c *conn) beginSection(id uint32) int {
	b := c.out.bytes()
	start := len(*b)
	*b = appendFrame(*b, 0, http2.FrameHeaders, 0, id)
	*b = c.encoder().Begin(*b)
	return start
}

// appendFields appends what is a header field in HTTP/2 (RFC 9113 section 8.2.2).
func (c *conn) appendFields(h *exchange.Header) {
	e, b := c.encoder(), c.out.buf
	for i := range h.Len() {
		f := h.At(i)
		if f.Name != "" && !ofConnection(f.Name) {
			*b = e.Field(*b, f.Name, f.Value)
		}
	}
}

func ofConnection(name string) bool {
	switch len(name) {
	case 7:
		return exchange.EqualFold(name, "upgrade")
	case 10:
		return exchange.EqualFold(name, "connection") || exchange.EqualFold(name, "keep-alive")
	case 16:
		return exchange.EqualFold(name, "proxy-connection")
	case 17:
		return exchange.EqualFold(name, "transfer-encoding")
	}
	return false
}

// endSection makes frames of the section: HEADERS, and CONTINUATION for what does not fit into the client's frames.
func (c *conn) endSection(start int, id uint32, ends bool) {
	b := c.out.buf
	var flags http2.Flags
	if ends {
		flags = http2.FlagHeadersEndStream
	}
	length := len(*b) - start - frameHead
	if length <= c.peer.frame {
		appendFrame((*b)[start:start], length, http2.FrameHeaders, flags|http2.FlagHeadersEndHeaders, id)
		return
	}
	rest := append([]byte(nil), (*b)[start+frameHead:]...)
	*b = (*b)[:start]
	for kind := http2.FrameHeaders; len(rest) > 0; kind = http2.FrameContinuation {
		n := min(len(rest), c.peer.frame)
		if n == len(rest) {
			flags |= http2.FlagHeadersEndHeaders
		}
		*b = append(appendFrame(*b, n, kind, flags, id), rest[:n]...)
		rest, flags = rest[n:], 0
	}
}

// makeRoom waits until there is room for a head. The lock is held, but not while it waits.
func (s *stream) makeRoom() error {
	for {
		if err := s.broken(); err != nil {
			return err
		}
		if s.c.out.room() >= leastPiece {
			return nil
		}
		if err := s.await(s.c.server.Limits.Load().BodyTime); err != nil {
			return err
		}
	}
}

// appendData appends a piece as DATA, waiting for windows and for room, and counts in sent how much of it was appended. The
// lock is held, but not while it waits.
func (s *stream) appendData(p []byte, ends bool, sent *int64) error {
	c := s.c
	var stalled time.Duration // since when, on the coarse clock
	began, total := c.server.Sweeper.Coarse(), len(p)
	for len(p) > 0 {
		if err := s.broken(); err != nil {
			return err
		}
		n := min(int64(len(p)), s.window, c.peer.window, int64(c.peer.frame), int64(c.out.room()-frameHead))
		if n <= 0 || n < leastPiece && n < int64(len(p)) && c.out.room() < 2*leastPiece {
			limit := c.server.Limits.Load().BodyTime
			if limit > 0 {
				worth := limit + time.Duration(total-len(p))*time.Second/leastReadRate
				limit = max(min(limit, worth-stalled), time.Millisecond)
			}
			if err := s.await(limit); err != nil {
				return err
			}
			stalled = c.server.Sweeper.Coarse() - began
			continue
		}
		var flags http2.Flags
		if ends && int(n) == len(p) {
			flags = http2.FlagDataEndStream
		}
		b := c.out.bytes()
		*b = append(appendFrame(*b, int(n), http2.FrameData, flags, s.id), p[:n]...)
		s.window -= n
		c.peer.window -= n
		c.purse.frames++
		*sent += n
		p = p[n:]
	}
	if !ends {
		return nil
	}
	if total == 0 {
		if err := s.makeRoom(); err != nil {
			return err
		}
		b := c.out.bytes()
		*b = appendFrame(*b, 0, http2.FrameData, http2.FlagDataEndStream, s.id)
	}
	s.endLocal()
	return nil
}

// await waits for room, or for the client to open a window; for no longer than patience unless that is 0. What has been
// appended is written first. A client that takes too long has the stream reset. The lock is not held meanwhile.
func (s *stream) await(patience time.Duration) error {
	c := s.c
	if !s.waits {
		s.waits = true
		c.out.waiters = append(c.out.waiters, s)
	}
	due := c.duty()
	c.mu.Unlock()
	if due {
		c.push(false)
	}
	inTime := s.waitWrite(patience)
	c.mu.Lock()
	if inTime || s.broken() != nil {
		return s.broken()
	}
	if m := c.server.Metrics; m != nil {
		m.abuse[slowReader].Inc(c.shard)
	}
	c.out.reset(s.id, http2.ErrCodeCancel)
	s.reset = true
	c.hand()
	return errStalled
}

func (s *stream) waitWrite(patience time.Duration) bool {
	if patience <= 0 {
		<-s.canWrite
		return true
	}
	if s.timer == nil {
		s.timer = time.NewTimer(patience)
	} else {
		s.timer.Reset(patience)
	}
	defer s.timer.Stop()
	select {
	case <-s.canWrite:
		return true
	case <-s.timer.C:
		return false
	}
}
