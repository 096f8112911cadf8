package load

import (
	"bytes"
	"fmt"
)

// answer is how far the answer on one connection has come.
type answer struct {
	headDone bool
	at       int // bytes of the body that came
	close    bool

	status, length int
	retryAfter     bool
}

// feed takes bytes of an answer and returns those behind its end, whether it is complete, and what is wrong with it. While the
// head is incomplete it takes none.
func (a *answer) feed(data []byte, want *Expect) (rest []byte, done bool, wrong string) {
	if !a.headDone {
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 {
			return data, false, ""
		}
		if wrong = a.head(data[:end+2], want); wrong != "" {
			return nil, true, wrong
		}
		data, a.headDone = data[end+4:], true
	}
	n := min(len(data), a.length-a.at)
	if a.status == want.Status && !bytes.Equal(data[:n], want.Body[a.at:a.at+n]) {
		return nil, true, "the body differs from the upstream's"
	}
	a.at += n
	return data[n:], a.at == a.length, ""
}

// head checks a head, which ends with the CRLF of its last line.
func (a *answer) head(head []byte, want *Expect) string {
	line, section, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < 12 || string(line[:7]) != "HTTP/1." {
		return fmt.Sprintf("status line %q", line)
	}
	if a.status = number(line[9:12]); a.status != want.Status && !want.others {
		return fmt.Sprintf("status line %q", line)
	}
	var seen uint64 // of want.Fields, by index
	a.length = -1
	for len(section) > 0 {
		end := bytes.IndexByte(section, '\n')
		line, section = bytes.TrimSuffix(section[:end], []byte("\r")), section[end+1:]
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			return fmt.Sprintf("header line %q", line)
		}
		name, value := line[:colon], bytes.TrimSpace(line[colon+1:])
		switch {
		case len(name) == 14 && equalFold(name, "content-length"):
			a.length = number(value)
		case len(name) == 10 && equalFold(name, "connection"):
			a.close = bytes.EqualFold(value, []byte("close"))
		case len(name) == 11 && equalFold(name, "retry-after"):
			a.retryAfter = number(value) >= 0
		default:
			for i := range want.Fields {
				f := &want.Fields[i]
				if equalFold(name, f.Name) && len(value) > 0 && (f.Value == "" || string(value) == f.Value) {
					seen |= 1 << i
				}
			}
		}
	}
	if a.status != want.Status { // the gateway's own answer, of any length that it says
		if a.length < 0 {
			return fmt.Sprintf("no Content-Length with %q", line)
		}
		return ""
	}
	if a.length != len(want.Body) {
		return fmt.Sprintf("Content-Length %d instead of %d", a.length, len(want.Body))
	}
	for i, f := range want.Fields {
		if seen&(1<<i) == 0 {
			return fmt.Sprintf("no header field %s: %s", f.Name, f.Value)
		}
	}
	return ""
}

// equalFold compares a field's name with one in lower case.
func equalFold(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, b := range name {
		if b|0x20 != lower[i] && b != lower[i] {
			return false
		}
	}
	return true
}

// number reads up to nine decimal digits; -1 stands for anything else.
func number(digits []byte) int {
	if len(digits) == 0 || len(digits) > 9 {
		return -1
	}
	n := 0
	for _, b := range digits {
		if b < '0' || b > '9' {
			return -1
		}
		n = n*10 + int(b-'0')
	}
	return n
}
