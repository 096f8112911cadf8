package testkit

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// quiet is how long nothing must arrive for "<none". Longer proves no more: what is sent wrongly is sent at once.
const quiet = 200 * time.Millisecond

// client is the client's end of one connection to the gateway.
type client struct {
	*wire
	methods []string // of the requests that have no final reply yet
	reply   *message // the last head that was read
	status  int
	bare    bool // the reply has no body whatever its head says
}

var requestLine = regexp.MustCompile(`(?m)^([!-~]+) [^ \r\n]+ HTTP/1\.[01]\r$`)

// note remembers the methods of what is sent, since the reply to HEAD has no body.
func (c *client) note(text string) {
	for _, m := range requestLine.FindAllStringSubmatch(text, -1) {
		c.methods = append(c.methods, m[1])
	}
}

// do carries out a statement about a connection.
func (c *client) do(s statement, deadline time.Time) error {
	switch s.verb {
	case "half-close":
		return c.Conn.(*net.TCPConn).CloseWrite()
	case "hangup":
		return c.Close()
	case "reset":
		return errors.Join(c.Conn.(*net.TCPConn).SetLinger(0), c.Close())
	case "trickle":
		return c.trickle(s.arg, deadline)
	case "piecemeal":
		text, err := unescape(s.arg)
		if err != nil {
			return err
		}
		c.note(text)
		return c.piecemeal(text, deadline)
	case "closed":
		return c.closed(deadline)
	case "none":
		return c.none()
	case "take":
		return c.wire.raw(s.arg, deadline)
	case "reply":
		if status, err := strconv.Atoi(s.arg); err == nil {
			return c.next(status, deadline)
		}
	}
	if c.reply == nil {
		return errors.New("no reply was read yet")
	}
	switch s.verb {
	case "reply", "header-like", "absent":
		return c.reply.header(s.verb, s.arg)
	case "aborted":
		err := c.body(deadline)
		if errors.Is(err, errEnded) || errors.Is(err, errReset) {
			return nil
		}
		return fmt.Errorf("the body of %d bytes is whole or wrong (%v)", len(c.reply.body), err)
	}
	if err := c.body(deadline); err != nil {
		return fmt.Errorf("reading the body: %w after %d bytes", err, len(c.reply.body))
	}
	switch s.verb {
	case "body-has":
		if !strings.Contains(string(c.reply.body), s.arg) {
			return fmt.Errorf("the body is %s", shorten(c.reply.body))
		}
	case "body-is":
		if want, err := unescape(s.arg); err != nil || string(c.reply.body) != want {
			return errors.Join(fmt.Errorf("the body is %s", shorten(c.reply.body)), err)
		}
	case "length":
		if strconv.Itoa(len(c.reply.body)) != s.arg {
			return fmt.Errorf("the body has %d bytes", len(c.reply.body))
		}
	case "trailer":
		return (&message{fields: c.reply.trailer}).header("reply", s.arg)
	}
	return nil
}

func (c *client) body(deadline time.Time) error { return c.readBody(c.reply, c.bare, true, deadline) }

// next reads the head of the next reply; the body of the one before is read to its end first.
func (c *client) next(status int, deadline time.Time) error {
	if c.reply != nil && !c.reply.done {
		if err := c.body(deadline); err != nil {
			return fmt.Errorf("reading the body of the reply before: %w", err)
		}
	}
	m, err := c.head(deadline)
	if err != nil {
		return fmt.Errorf("reading a head: %w", err)
	}
	c.reply = m
	part := statusLine.FindStringSubmatch(m.line)
	if part == nil {
		return fmt.Errorf("%q is no status line", m.line)
	}
	c.status, err = strconv.Atoi(part[1])
	if err != nil {
		return err
	}
	interim := c.status >= 100 && c.status < 200 && c.status != 101
	method := "GET"
	if len(c.methods) > 0 {
		if method = c.methods[0]; !interim {
			c.methods = c.methods[1:]
		}
	}
	c.bare = interim || method == "HEAD" || c.status == 204 || c.status == 304 || c.status == 101
	m.done = c.bare
	if c.status != status {
		text := m.raw
		if err := c.body(deadline); err == nil {
			text += string(m.body)
		}
		return fmt.Errorf("the answer is %s", shorten([]byte(text)))
	}
	if a := m.ambiguous(); a != "" {
		return fmt.Errorf("the answer has %s", a)
	}
	return nil
}

var statusLine = regexp.MustCompile(`^HTTP/1\.1 ([1-5][0-9][0-9]) [ -~\t]*$`)

// trickle sends a text again and again, until the gateway has something to say: "DURATION TEXT".
func (c *client) trickle(arg string, deadline time.Time) error {
	pause, text, _ := strings.Cut(arg, " ")
	d, err := time.ParseDuration(pause)
	if err != nil {
		return err
	}
	if text, err = repeated(text); err != nil {
		return err
	}
	for time.Now().Before(deadline) {
		if err := c.send(text, deadline); err != nil {
			return err
		}
		if err := c.fill(time.Now().Add(d)); !errors.Is(err, errLate) {
			return nil // what it was is for the next statement to say
		}
	}
	return errLate
}

// header checks one field: "Name: value" that must be there, "Name: regexp", or "Name" that must not be.
func (m *message) header(verb, arg string) error {
	name, want, _ := strings.Cut(arg, ":")
	want = strings.TrimSpace(want)
	values := m.values(strings.TrimSpace(name))
	switch verb {
	case "absent", "got-absent":
		if len(values) > 0 {
			return fmt.Errorf("it is there: %q", values)
		}
		return nil
	case "header-like", "got-like":
		re, err := regexp.Compile("^(?:" + want + ")$")
		if err != nil || !slices.ContainsFunc(values, re.MatchString) {
			return errors.Join(fmt.Errorf("its values are %q", values), err)
		}
		return nil
	}
	if !slices.Contains(values, want) {
		return fmt.Errorf("its values are %q", values)
	}
	return nil
}

// closed proves that the gateway closes the connection, after the body of the reply if one was begun.
func (c *client) closed(deadline time.Time) error {
	if c.reply != nil && !c.reply.done {
		if err := c.body(deadline); err != nil {
			return fmt.Errorf("reading the body: %w", err)
		}
	}
	for c.used == len(c.in) {
		switch err := c.fill(deadline); {
		case errors.Is(err, errLate):
			return errors.New("the connection stays open")
		case err != nil:
			return nil
		}
	}
	return fmt.Errorf("received %s", shorten(c.in[c.used:]))
}

// none proves that nothing arrives and that the connection is open.
func (c *client) none() error {
	if c.reply != nil && !c.reply.done {
		if err := c.body(time.Now().Add(patience)); err != nil {
			return fmt.Errorf("reading the body: %w", err)
		}
	}
	if c.used == len(c.in) {
		if err := c.fill(time.Now().Add(quiet)); errors.Is(err, errLate) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return fmt.Errorf("received %s", shorten(c.in[c.used:]))
}

// extra returns what has arrived and was not read by the script.
func (c *client) extra() string {
	if c.reply != nil && !c.reply.done {
		return "" // the script did not care for the rest of this body
	}
	if c.used == len(c.in) && c.err == nil {
		if err := c.fill(time.Now().Add(time.Millisecond)); err != nil {
			return ""
		}
	}
	if c.used < len(c.in) {
		return shorten(c.in[c.used:])
	}
	return ""
}

// got checks what an upstream received in this exchange, waiting for it if need be.
func (r *runner) got(s statement) error {
	number, arg, _ := strings.Cut(s.arg, "\x00")
	index := int(number[0] - '1')
	if index >= len(r.origins) {
		return fmt.Errorf("there is no upstream %s", number)
	}
	o, from := r.origins[index], r.from[index]
	switch s.verb {
	case "got-nothing":
		if all := o.since(from); len(all) > 0 {
			return fmt.Errorf("it received %q", all[0].raw)
		}
		return nil
	case "got-unfinished":
		for _, m := range o.since(from) {
			if m.whole {
				return fmt.Errorf("it received all of %q with the body %s", m.line, shorten(m.body))
			}
		}
		return nil
	case "got-count":
		n, err := strconv.Atoi(arg)
		if err == nil && !o.wait(r.deadline(), func() bool { return len(o.requests)-from == n }) {
			err = fmt.Errorf("it received %d", len(o.since(from)))
		}
		return err
	}
	whole := s.verb == "got-body" || s.verb == "got-trailer"
	if !o.wait(r.deadline(), func() bool {
		return len(o.requests) > from && (!whole || o.requests[len(o.requests)-1].whole)
	}) {
		return fmt.Errorf("it received %d requests, and none that is whole", len(o.since(from)))
	}
	all := o.since(from)
	return all[len(all)-1].check(s.verb, arg)
}

func (m *received) check(verb, arg string) error {
	switch verb {
	case "got-head":
		if want, err := unescape(arg); err != nil || m.raw != want {
			return errors.Join(fmt.Errorf("it received %q", m.raw), err)
		}
	case "got-has":
		if !strings.Contains(m.raw, arg) {
			return fmt.Errorf("it received %q", m.raw)
		}
	case "got-body":
		if want, err := unescape(arg); err != nil || string(m.body) != want {
			return errors.Join(fmt.Errorf("it received the body %s", shorten(m.body)), err)
		}
	case "got-trailer":
		return (&message{fields: m.trailer}).header("got", arg)
	case "got":
		if strings.HasSuffix(arg, " HTTP/1.1") {
			if m.line != arg {
				return fmt.Errorf("it received %q", m.line)
			}
			return nil
		}
		return m.header(verb, arg)
	default:
		return m.header(verb, arg)
	}
	return nil
}
