package h1

import (
	"bytes"

	"headgate/gateway/exchange"
)

// ParseResponse parses a complete response head, which ends with an empty line, into r. The error is always an *Error.
// Whether a body follows depends on the request's method, too: see hasBody.
func ParseResponse(b []byte, l *Limits, method string, r *exchange.Reply) (Head, error) {
	head := Head{Length: -1}
	line := bytes.IndexByte(b, '\r')
	if err := head.statusLine(b[:line], r); err != nil {
		return head, err
	}
	if b[line+1] != '\n' {
		return head, errBareCR
	}
	s := string(b)
	r.Header.Reset(s)
	r.Trailer.Reset("")
	r.Source = exchange.FromUpstream
	if err := head.fields(s, b, line+2, l.Fields, &r.Header, nil); err != nil {
		return head, err
	}
	if err := head.framing(); err != nil {
		return head, err
	}
	if head.connection != "" {
		head.dropNamed(&r.Header)
	}
	head.Close = head.Close || (head.Old && !head.keepAlive)
	return head, head.bodiless(r.Status)
}

// statusLine parses "HTTP/1.x SP 3DIGIT SP reason"; the reason and its space may be missing.
func (head *Head) statusLine(b []byte, r *exchange.Reply) error {
	const shape = "HTTP/1.1 200"
	if len(b) < len(shape) || string(b[:7]) != "HTTP/1." || !isDigit(b[7]) || b[8] != ' ' {
		return errStatusLine
	}
	if len(b) > len(shape) && b[len(shape)] != ' ' {
		return errStatusLine
	}
	if valueEnd(b, len(shape)) != len(b) {
		return errStatusLine
	}
	head.Old = b[7] == '0'
	r.Status = 0
	for _, c := range b[9:12] {
		if !isDigit(c) {
			return errStatusLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || r.Status > 599 {
		return errStatusLine
	}
	return nil
}

// bodiless settles the framing of replies that never have a body. One that announces a body where none may be (1xx, 204)
// is ambiguous: another reader would take the next reply for it.
func (head *Head) bodiless(status int) error {
	if status < 200 || status == 204 {
		if head.Chunked || head.Length > 0 {
			return errBodiless
		}
		head.Length = 0
	}
	return nil
}

// hasBody reports whether a reply to the method with the status has a body on the wire.
func hasBody(method string, status int) bool {
	return method != "HEAD" && status >= 200 && status != 204 && status != 304
}
