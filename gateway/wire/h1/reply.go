package h1

import (
	"errors"
	"io"
	"strconv"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// statusLines are made once; a status without a reason phrase has none (RFC 9112 section 4: it may be empty).
var statusLines = func() (lines [600]string) {
	for status := range lines {
		lines[status] = "HTTP/1.1 " + strconv.Itoa(1000 + status)[1:] + " " + exchange.StatusText(status) + "\r\n"
	}
	lines[exchange.ClientGone.Status] = "HTTP/1.1 499 Client Closed Request\r\n"
	return lines
}()

// dateLine is the Date field's line of one second.
type dateLine struct {
	second int64
	line   string
}

// appendDate appends a Date field (RFC 9110 section 6.6.1), rendered once for each second.
func (s *Server) appendDate(b []byte, now time.Time) []byte {
	d := s.date.Load()
	if second := now.Unix(); d == nil || d.second != second {
		d = &dateLine{second, "Date: " + now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") + "\r\n"}
		s.date.Store(d)
	}
	return append(b, d.line...)
}

// Inform implements exchange.Wire. HTTP/1.0 knows no informational replies.
func (c *conn) Inform(_ *exchange.Exchange, status int, h *exchange.Header) error {
	if c.head.Old {
		return nil
	}
	out := sock.Get()
	defer sock.Put(out)
	b := append((*out)[:0], statusLines[status]...)
	b = h.AppendTo(b)
	_, err := c.write(append(b, "\r\n"...))
	return err
}

// Reply implements exchange.Wire: head and first piece in one write, then the rest as it comes.
func (c *conn) Reply(x *exchange.Exchange) error {
	r := &x.Reply
	if r.Status == 101 && r.Switched != nil && r.Tunnel != nil {
		return c.replySwitch(x)
	}
	body := r.Body
	if !hasBody(c.method, r.Status) {
		body.Reader = nil
	}
	openEnded(&body, &r.Header)
	chunked := body.Reader != nil && body.Length < 0
	if chunked && c.head.Old {
		chunked, c.closes = false, true // the end of the connection is the end of the body
	}
	if !c.closes && (c.server.draining.Load() || !c.canGoOn(x)) {
		c.closes = true
	}
	out := sock.Get()
	defer sock.Put(out)
	b := c.appendHead((*out)[:0], x, &body, chunked)
	if body.Reader == nil {
		_, err := c.write(b)
		return err
	}
	if x.Request.Streaming {
		c.body.spoken.Store(true)
		c.Disarm() // who reads the body has armed it, and does so no more
	}
	broken := c.broken
	c.broken, c.reset = true, true // until all of it is written, also if a body's reader panics: never a silently short body
	n, err := c.stream(b, cap(*out), body, chunked, &r.Trailer)
	x.Usage.ReplyBytes += n
	if err != nil {
		return err
	}
	c.broken, c.reset = broken, false
	return nil
}

// openEnded forgets the length of a body behind which a trailer section is announced, as other versions of HTTP allow:
// here only a chunked one can have it. A body of this codec has either.
func openEnded(b *exchange.Body, h *exchange.Header) {
	if _, own := b.Reader.(*Body); !own && b.Reader != nil && b.Length >= 0 && h.Has("Trailer") {
		b.Length = -1
	}
}

// canGoOn reports whether the request has been read as far as it will be: what is still to come of its body would be
// taken for the next request. A body that has arrived is skipped in finish.
func (c *conn) canGoOn(x *exchange.Exchange) bool {
	if c.broken || x.Request.Streaming {
		return false
	}
	arrived := c.body.kind == byLength && c.body.err == nil && c.body.left <= int64(len(c.in.Buffered()))
	return arrived || c.body.Done()
}

func (c *conn) appendHead(b []byte, x *exchange.Exchange, body *exchange.Body, chunked bool) []byte {
	r := &x.Reply
	b = append(b, statusLines[r.Status]...)
	b = r.Header.AppendTo(b)
	switch {
	case r.Status < 200 || r.Status == 204:
	case chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case body.Length > 0 || (body.Length == 0 && r.Status != 304):
		b = appendLength(b, body.Length)
	}
	if !r.Header.Has("Date") {
		b = c.server.appendDate(b, x.Start)
	}
	if r.Status == 426 && r.Header.Has("Sec-WebSocket-Version") { // RFC 9110 section 15.5.22: says what to switch to
		b = appendUpgrade(b, webSocket)
	}
	switch {
	case c.closes:
		b = append(b, "Connection: close\r\n"...)
	case c.head.Old:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// stream writes b, which holds the head, and the body.
func (c *conn) stream(b []byte, room int, body exchange.Body, chunked bool, trailer *exchange.Header) (int64, error) {
	next, buf := piecesOf(body.Reader)
	if buf != nil {
		defer sock.Put(buf)
	}
	if r, ok := body.Reader.(interface{ Ready() bool }); ok && body.Length < 0 && !r.Ready() {
		if err := c.writeTwo(b, nil); err != nil { // the head of a stream, whose first piece may be long in coming
			return 0, err
		}
		b = b[:0]
	}
	upstream, relayable := body.Reader.(*Body)
	var sent int64
	for {
		if len(b) == 0 && relayable && !chunked && upstream.relayable() {
			n, _, err := upstream.relay(c.Conn, c.server.Limits.Load().BodyTime)
			return sent + n, err
		}
		piece, err := next()
		sent += int64(len(piece))
		last := errors.Is(err, io.EOF) || (body.Length >= 0 && sent == body.Length) || (relayable && err == nil && upstream.Done())
		if err != nil && !last {
			if len(b) > 0 { // the head alone, so that the client sees a reply that broke off
				_, _ = c.write(b) // the body's error is the one to report
			}
			return sent, err
		}
		if last && body.Length >= 0 && sent != body.Length {
			return sent, errShortBody
		}
		if werr := c.writeAll(b, piece, room, chunked, last, trailer); werr != nil {
			return sent, werr
		}
		if last {
			return sent, nil
		}
		b = b[:0]
	}
}

// writeAll writes what is pending in b and a piece of the body, in one write if they fit together in room bytes, and
// behind the last piece of a chunked body its end.
func (c *conn) writeAll(b, piece []byte, room int, chunked, last bool, trailer *exchange.Header) error {
	if chunked && len(piece) > 0 {
		b = appendChunkSize(b, len(piece))
	}
	if len(b) > 0 && len(b)+len(piece) <= room {
		b = append(b, piece...)
	} else if len(piece) > 0 {
		if err := c.writeTwo(b, piece); err != nil {
			return err
		}
		b = b[:0]
	}
	if chunked && len(piece) > 0 {
		b = append(b, crlf...)
	}
	if chunked && last {
		b = append(b, "0\r\n"...)
		b = trailer.AppendTo(b)
		b = append(b, crlf...)
	}
	return c.writeTwo(b, nil)
}

func (c *conn) writeTwo(a, b []byte) error {
	for _, p := range [...][]byte{a, b} {
		if len(p) == 0 {
			continue
		}
		if _, err := c.write(p); err != nil {
			return err
		}
	}
	return nil
}

// write writes with a deadline for a client that does not read.
func (c *conn) write(b []byte) (int, error) {
	c.Arm(sock.PhaseWrite, c.server.Limits.Load().BodyTime)
	n, err := c.Conn.Write(b)
	c.Disarm()
	return n, err
}
