package h3

import (
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go/quicvarint"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
	"headgate/internal/sock"
)

// section is a field section in the making.
type section struct {
	b       []byte
	encoder *qpack.Encoder
}

// Write implements io.Writer for the encoder.
func (f *section) Write(p []byte) (int, error) {
	f.b = append(f.b, p...)
	return len(p), nil
}

func (f *section) add(name, value string) {
	_ = f.encoder.WriteField(qpack.HeaderField{Name: name, Value: value}) // writing to memory does not fail
}

// header adds the fields of a header, but those that belong to a connection of HTTP/1.1 (RFC 9114 section 4.2).
func (f *section) header(h *exchange.Header) {
	for name, value := range h.All() {
		switch name = lower(name); name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
			continue
		}
		f.add(name, value)
	}
}

var sections = sync.Pool{New: func() any {
	f := new(section)
	f.encoder = qpack.NewEncoder(f)
	return f
}}

func newSection() *section { return sections.Get().(*section) }

// appendTo appends the section as a HEADERS frame and gives its memory back.
func (f *section) appendTo(b []byte) []byte {
	b = appendFrame(b, frameHeaders, uint64(len(f.b)))
	b = append(b, f.b...)
	f.b = f.b[:0]
	_ = f.encoder.Close() // it cannot fail
	sections.Put(f)
	return b
}

// statuses are made once.
var statuses = func() (s [600]string) {
	for i := range s {
		s[i] = strconv.Itoa(i)
	}
	return s
}()

// date is the Date field of one second.
type date struct {
	second int64
	value  string
}

// dateOf returns a Date field (RFC 9110 section 6.6.1), rendered once for each second.
func (s *Server) dateOf(now time.Time) string {
	d := s.date.Load()
	if second := now.Unix(); d == nil || d.second != second {
		d = &date{second, now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
		s.date.Store(d)
	}
	return d.value
}

// Inform implements exchange.Wire.
func (s *stream) Inform(_ *exchange.Exchange, status int, h *exchange.Header) error {
	f := newSection()
	f.add(":status", statuses[status])
	f.header(h)
	out := sock.Get()
	defer sock.Put(out)
	return s.write(f.appendTo((*out)[:0]))
}

// Reply implements exchange.Wire: head and first piece in one write if the piece is at hand, then the rest as it comes.
func (s *stream) Reply(x *exchange.Exchange) error {
	r := &x.Reply
	if r.Switched != nil && r.Status == 101 {
		return s.tunnel(x)
	}
	body := r.Body
	if !h1.HasBody(s.method, r.Status) {
		body.Reader = nil
	}
	out := sock.Get()
	defer sock.Put(out)
	b := s.appendHead((*out)[:0], x, &body)
	if body.Reader == nil {
		if err := s.write(b); err != nil {
			return err
		}
		return s.finish()
	}
	if x.Request.Streaming {
		s.body.converse()
	}
	if len(b) > sock.LargeBuffer/2 || !atHand(body.Reader) {
		if err := s.write(b); err != nil {
			return err
		}
		b = (*out)[:0]
	}
	n, err := s.stream(b, &body)
	x.Usage.ReplyBytes += n
	if err != nil {
		return err
	}
	if r.Trailer.Len() > 0 {
		f := newSection()
		f.header(&r.Trailer)
		if err := s.write(f.appendTo((*out)[:0])); err != nil {
			return err
		}
	}
	return s.finish()
}

// atHand reports whether the next piece of a body can be had without waiting.
func atHand(r io.Reader) bool {
	switch r := r.(type) {
	case interface{ Ready() bool }:
		return r.Ready()
	case interface{ Len() int }:
		return r.Len() > 0
	}
	return false
}

func (s *stream) appendHead(b []byte, x *exchange.Exchange, body *exchange.Body) []byte {
	r := &x.Reply
	f := newSection()
	f.add(":status", statuses[r.Status])
	f.header(&r.Header)
	if r.Status >= 200 && r.Status != 204 && (body.Length > 0 || body.Length == 0 && r.Status != 304) {
		f.add("content-length", strconv.FormatInt(body.Length, 10))
	}
	if !r.Header.Has("Date") {
		f.add("date", s.server.dateOf(x.Start))
	}
	return f.appendTo(b)
}

// frameRoom is what a DATA frame's type and length take here: a byte, and a length of fixed size.
const frameRoom = 1 + 4

func putFrame(b []byte, n int) {
	b[0] = frameData
	quicvarint.AppendWithLen(b[1:1], uint64(n), 4)
}

// stream writes what is pending in b, then the body.
func (s *stream) stream(b []byte, body *exchange.Body) (sent int64, err error) {
	pieces, piecewise := body.Reader.(exchange.Piecewise)
	for {
		var n int
		if piecewise {
			var p []byte
			p, err = pieces.Next()
			n = len(p)
			var werr error
			if b, werr = s.copyPiece(b, p); werr != nil {
				return sent, werr
			}
		} else {
			at := len(b)
			n, err = body.Reader.Read(b[at+frameRoom : cap(b)])
			if n > 0 {
				b = b[:at+frameRoom+n]
				putFrame(b[at:], n)
			}
		}
		sent += int64(n)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return sent, err
		}
		if body.Length >= 0 && (sent > body.Length || last && sent != body.Length) {
			return sent, errReplyLength
		}
		if len(b) > 0 {
			if werr := s.write(b); werr != nil {
				return sent, werr
			}
		}
		if last {
			return sent, nil
		}
		b = b[:0]
	}
}

// errReplyLength says that an upstream's body is not as long as announced; the client must notice.
var errReplyLength = &exchange.Error{
	Code: exchange.UpstreamInvalid, Source: exchange.FromUpstream, Cause: errors.New("the body is not as long as announced"),
}

// copyPiece appends a piece as DATA frames to b, writing b whenever it is full.
func (s *stream) copyPiece(b, p []byte) ([]byte, error) {
	for len(p) > 0 {
		room := cap(b) - len(b) - frameRoom
		if room <= 0 {
			if err := s.write(b); err != nil {
				return b, err
			}
			b = b[:0]
			continue
		}
		n, at := min(room, len(p)), len(b)
		b = append(b[:at+frameRoom], p[:n]...)
		putFrame(b[at:], n)
		p = p[n:]
	}
	return b, nil
}

// finish ends the reply. From now on a client that goes away has got everything that it wanted.
func (s *stream) finish() error {
	s.rest()
	if err := s.str.Close(); err != nil {
		return clientGone(err)
	}
	s.closed = true
	return nil
}

// write writes with a deadline for a client that does not read. It is set anew while the client takes bytes, as long as
// it does not take them all too slowly.
func (s *stream) write(p []byte) error {
	s.began = true
	patience := s.limits.BodyTime
	for {
		_ = s.str.SetWriteDeadline(due(patience)) // it never fails
		n, err := s.str.Write(p)
		if err == nil {
			return nil
		}
		if !isDeadline(err) || float64(n) < patience.Seconds()*leastReadRate {
			return clientGone(err)
		}
		p = p[n:]
	}
}

func clientGone(err error) error {
	return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
}
