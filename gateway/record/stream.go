package record

import (
	"bytes"
	"io"
	"strings"
	"time"

	"headgate/gateway/exchange"
)

// Watch measures the reply's body as it comes from the upstream, before any policy changes it: when its first byte came
// and, of an event stream, how many events there were and how long the longest pause between two of them was. It does so for
// event streams, and for every reply when the access log names first_byte_ms; all others pass unseen.
func (r *Recorder) Watch(x *exchange.Exchange) {
	body := &x.Reply.Body
	events := body.Length < 0 && isEventStream(x.Reply.Header.Get("Content-Type"))
	if !events && !r.current.Load().firstByte {
		return
	}
	w := &watched{x: x, recorder: r, events: events, in: body.Reader}
	w.ready, _ = body.Reader.(interface{ Ready() bool })
	if p, ok := body.Reader.(exchange.Piecewise); ok {
		body.Reader = &watchedPieces{*w, p}
		return
	}
	body.Reader = w
}

// isEventStream reports whether a media type is that of server-sent events (HTML, section 9.2).
func isEventStream(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return exchange.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}

// watched is a body that is measured as it passes.
type watched struct {
	x        *exchange.Exchange
	recorder *Recorder
	in       io.Reader
	ready    interface{ Ready() bool } // nil: it does not know
	events   bool
	last     time.Time // when the last event ended
	line     bool      // the line that has begun has something in it
	block    bool      // there is a line since the last blank one that is no comment
}

// watchedPieces is watched for a body that comes in pieces.
type watchedPieces struct {
	watched
	pieces exchange.Piecewise
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.in.Read(p)
	w.note(p[:n])
	return n, err
}

// Next implements exchange.Piecewise.
func (w *watchedPieces) Next() ([]byte, error) {
	p, err := w.pieces.Next()
	w.note(p)
	return p, err
}

// Ready reports whether the next read returns without waiting, as far as that is known.
func (w *watched) Ready() bool { return w.ready != nil && w.ready.Ready() }

func (w *watched) note(p []byte) {
	u := &w.x.Usage
	if len(p) == 0 || !w.events && u.FirstByte != 0 {
		return
	}
	n := 0
	if w.events {
		n = w.count(p)
	}
	if u.FirstByte != 0 && n == 0 {
		return
	}
	now := w.recorder.clock.Now()
	if u.FirstByte == 0 {
		u.FirstByte = max(now.Sub(w.x.Start), 1)
	}
	if n == 0 {
		return
	}
	if u.Events > 0 {
		u.LargestGap = max(u.LargestGap, now.Sub(w.last))
	}
	u.Events += n
	w.last = now
}

// count returns how many events end in a piece: blank lines behind a line that is no comment. Lines end with LF or CRLF;
// the lone CR that HTML allows, too, is used by nobody.
func (w *watched) count(p []byte) (n int) {
	for len(p) > 0 {
		if !w.line && p[0] != '\n' && p[0] != '\r' {
			w.line = true
			w.block = w.block || p[0] != ':'
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			break
		}
		p = p[end+1:]
		if !w.line && w.block {
			w.block = false
			n++
		}
		w.line = false
	}
	return n
}
