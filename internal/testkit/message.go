package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// This file reads HTTP/1.1 messages as strictly as can be, and shares no code with the gateway: a slip of the gateway's
// codec must not be forgiven by the same slip here.

// errEnded is the other side closing in order, errReset its breaking the connection.
var (
	errEnded = errors.New("the connection was closed")
	errReset = errors.New("the connection was reset")
	errLate  = errors.New("nothing more arrived in time")
)

// wire is a connection whose bytes are kept.
type wire struct {
	net.Conn
	mu   sync.Mutex // guards in and out, which a failure prints
	in   []byte
	out  []byte
	used int   // how much of in has been understood
	err  error // why there is no more
}

// fill waits until more bytes have arrived or says why there are none.
func (w *wire) fill(deadline time.Time) error {
	if w.err != nil {
		return w.err
	}
	if err := w.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("set a deadline: %w", err)
	}
	buf := make([]byte, 64<<10)
	n, err := w.Read(buf)
	w.mu.Lock()
	w.in = append(w.in, buf[:n]...)
	w.mu.Unlock()
	switch {
	case n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errLate
	case errors.Is(err, io.EOF):
		w.err = errEnded
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		w.err = errReset
	default:
		w.err = err
	}
	return w.err
}

// send writes bytes. A peer that has closed meanwhile is no failure of sending: what it said is read next.
func (w *wire) send(text string, deadline time.Time) error {
	w.mu.Lock()
	w.out = append(w.out, text...)
	w.mu.Unlock()
	if err := w.SetWriteDeadline(deadline); err != nil {
		return fmt.Errorf("set a deadline: %w", err)
	}
	_, err := io.WriteString(w.Conn, text)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// piecemeal writes one byte at a time, each in a segment of its own as far as the kernel lets it.
func (w *wire) piecemeal(text string, deadline time.Time) error {
	for i := range len(text) {
		if err := w.send(text[i:i+1], deadline); err != nil {
			return err
		}
	}
	return nil
}

// raw reads exactly the bytes of a text with escapes, which are no message.
func (w *wire) raw(arg string, deadline time.Time) error {
	want, err := repeated(arg)
	if err != nil {
		return err
	}
	for len(w.in)-w.used < len(want) && strings.HasPrefix(want, string(w.in[w.used:])) {
		if err := w.fill(deadline); err != nil {
			return fmt.Errorf("got %s: %w", shorten(w.in[w.used:]), err)
		}
	}
	if got := w.in[w.used:]; !strings.HasPrefix(string(got), want) {
		return fmt.Errorf("got %s", shorten(got))
	}
	w.used += len(want)
	return nil
}

// transcript shows what was sent and received.
func (w *wire) transcript() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("  sent     %s\n  received %s\n", shorten(w.out), shorten(w.in))
}

// shorten quotes bytes, leaving out the middle of many.
func shorten(b []byte) string {
	const most = 3000
	if len(b) > most {
		return fmt.Sprintf("%q ... (%d bytes in all) ... %q", b[:most/2], len(b), b[len(b)-most/2:])
	}
	return strconv.Quote(string(b))
}

type field struct{ name, value string }

// message is a head and, once it was read, its body.
type message struct {
	raw     string // the head as it came
	line    string // request or status line
	fields  []field
	body    []byte
	trailer []field
	done    bool // the body has been read
}

func (m *message) values(name string) (vs []string) { return lookup(m.fields, name) }

func lookup(fields []field, name string) (vs []string) {
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			vs = append(vs, f.value)
		}
	}
	return vs
}

var fieldLine = regexp.MustCompile("^([!#$%&'*+\\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*$")

// maxHead bounds a head: no gateway of ours sends a longer one.
const maxHead = 1 << 20

// head reads one head from the wire.
func (w *wire) head(deadline time.Time) (*message, error) {
	end := -1
	for {
		if end = bytes.Index(w.in[w.used:], []byte("\r\n\r\n")); end >= 0 {
			break
		}
		if len(w.in)-w.used > maxHead {
			return nil, fmt.Errorf("a head without an end")
		}
		if err := w.fill(deadline); err != nil {
			return nil, err
		}
	}
	m := &message{raw: string(w.in[w.used : w.used+end+4])}
	w.used += end + 4
	lines := strings.Split(strings.TrimSuffix(m.raw, "\r\n\r\n"), "\r\n")
	m.line = lines[0]
	if strings.ContainsAny(m.line, "\r\n\x00") {
		return m, fmt.Errorf("the first line %q has a control character", m.line)
	}
	var err error
	m.fields, err = parseFields(lines[1:])
	return m, err
}

func parseFields(lines []string) (fields []field, err error) {
	for _, l := range lines {
		part := fieldLine.FindStringSubmatch(l)
		if part == nil {
			return fields, fmt.Errorf("%q is no header field", l)
		}
		fields = append(fields, field{part[1], part[2]})
	}
	return fields, nil
}

// ambiguous says what about a message's framing could be read in two ways, or "".
func (m *message) ambiguous() string {
	lengths, codings := m.values("Content-Length"), m.values("Transfer-Encoding")
	switch {
	case len(lengths) > 0 && len(codings) > 0:
		return "Content-Length and Transfer-Encoding"
	case len(lengths) > 1:
		return "more than one Content-Length"
	case len(codings) > 1 || len(codings) == 1 && !strings.EqualFold(codings[0], "chunked"):
		return fmt.Sprintf("Transfer-Encoding %q", codings)
	}
	return ""
}

// readBody reads a message's body. bare: the message has none whatever its head says; toEnd: without a length it goes to the
// end of the connection.
func (w *wire) readBody(m *message, bare, toEnd bool, deadline time.Time) (err error) {
	if m.done {
		return nil
	}
	if a := m.ambiguous(); a != "" {
		return fmt.Errorf("the head has %s", a)
	}
	lengths := m.values("Content-Length")
	switch {
	case bare:
	case len(m.values("Transfer-Encoding")) > 0:
		err = w.chunks(m, deadline)
	case len(lengths) > 0:
		n, bad := strconv.ParseUint(lengths[0], 10, 40)
		if bad != nil {
			return fmt.Errorf("the head has Content-Length %q", lengths[0])
		}
		err = w.take(m, int(n), deadline)
	case toEnd:
		for err == nil {
			err = w.take(m, max(1, len(w.in)-w.used), deadline)
		}
		if errors.Is(err, errEnded) {
			err = nil
		}
	}
	m.done = err == nil
	return err
}

// take moves n bytes from the wire to the body; what arrived of fewer is taken as well.
func (w *wire) take(m *message, n int, deadline time.Time) error {
	for n > 0 {
		if w.used == len(w.in) {
			if err := w.fill(deadline); err != nil {
				return err
			}
		}
		k := min(n, len(w.in)-w.used)
		m.body = append(m.body, w.in[w.used:w.used+k]...)
		w.used, n = w.used+k, n-k
	}
	return nil
}

var chunkSize = regexp.MustCompile(`^[0-9a-fA-F]{1,8}$`)

// chunks reads a chunked body; extensions are refused, since the gateway sends none.
func (w *wire) chunks(m *message, deadline time.Time) error {
	for {
		line, err := w.textLine(deadline)
		if err != nil {
			return err
		}
		if !chunkSize.MatchString(line) {
			return fmt.Errorf("%q is no chunk size", line)
		}
		size, err := strconv.ParseUint(line, 16, 40)
		if err != nil {
			return err
		}
		if size == 0 {
			return w.trailer(m, deadline)
		}
		if err := w.take(m, int(size), deadline); err != nil {
			return err
		}
		if line, err = w.textLine(deadline); err != nil || line != "" {
			return errors.Join(fmt.Errorf("a chunk of %d bytes is followed by %q", size, line), err)
		}
	}
}

func (w *wire) trailer(m *message, deadline time.Time) error {
	var lines []string
	for {
		line, err := w.textLine(deadline)
		if err != nil {
			return err
		}
		if line == "" {
			m.trailer, err = parseFields(lines)
			return err
		}
		lines = append(lines, line)
	}
}

// textLine reads up to the next CRLF.
func (w *wire) textLine(deadline time.Time) (string, error) {
	for {
		if i := bytes.Index(w.in[w.used:], []byte("\r\n")); i >= 0 {
			line := string(w.in[w.used : w.used+i])
			w.used += i + 2
			if strings.ContainsAny(line, "\r\n") {
				return "", fmt.Errorf("the line %q has a bare line break", line)
			}
			return line, nil
		}
		if err := w.fill(deadline); err != nil {
			return "", err
		}
	}
}
