package testkit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// play runs the client's statements. After a failure it goes on at the next connect, so that one run shows every case
// that fails.
func (r *runner) play(statements []statement) {
	var pending strings.Builder
	skipping := false
	for i, s := range statements {
		if s.verb == "" {
			continue
		}
		begins := i == 0 || statements[i-1].verb == ""
		if skipping && s.verb != "connect" {
			continue
		}
		skipping = false
		if begins {
			r.begin()
		}
		s.arg = r.expand(s.arg)
		text, sends, err := s.outgoing()
		if err == nil && sends {
			pending.WriteString(text)
			if more := i+1 < len(statements) && sending(statements[i+1].verb); more {
				continue
			}
			err = r.send(pending.String())
			pending.Reset()
		} else if err == nil {
			err = r.do(s)
		}
		if err != nil {
			pending.Reset()
			r.fail(s.line, "%s: %v", s.text, err)
			skipping = true
		}
	}
}

// begin starts an exchange: what upstreams receive from here on belongs to it.
func (r *runner) begin() {
	for i, o := range r.origins {
		r.from[i] = o.count()
	}
	r.within = 0
}

func (r *runner) deadline() time.Time {
	if r.within > 0 {
		return time.Now().Add(r.within)
	}
	return time.Now().Add(patience)
}

func sending(verb string) bool { return verb == "line" || verb == "raw" || verb == "repeat" }

// outgoing returns the bytes that a statement sends.
func (s statement) outgoing() (text string, sends bool, err error) {
	switch s.verb {
	case "line":
		return s.arg + "\r\n", true, nil
	case "raw":
		text, err = repeated(s.arg)
		return text, true, err
	case "repeat":
		n, line, err := counted(s.arg)
		return strings.Repeat(line+"\r\n", n), true, err
	}
	return "", false, nil
}

func (r *runner) send(text string) error {
	if r.current == nil {
		if err := r.connect(""); err != nil {
			return err
		}
	}
	r.current.note(text)
	return r.current.send(text, r.deadline())
}

// do carries out a statement that sends nothing.
func (r *runner) do(s statement) error {
	if strings.HasPrefix(s.verb, "got") {
		return r.got(s)
	}
	switch s.verb {
	case "connect":
		return r.connect(s.arg)
	case "on":
		c := r.conns[s.arg]
		if c == nil {
			return fmt.Errorf("no connection is called %q", s.arg)
		}
		r.current = c
		return nil
	case "within":
		d, err := time.ParseDuration(s.arg)
		r.within = d
		return err
	case "crowd":
		return r.gather(s.arg)
	case "await":
		return r.awaitEnd(s.arg)
	case "upstream":
		return r.door(s.arg)
	case "file":
		name, arg, _ := strings.Cut(s.arg, " ")
		return r.match(arg, func() (string, error) {
			text, err := os.ReadFile(filepath.Join(r.dir, name))
			return string(text), err
		})
	case "advance", "reload", "replace", "signal", "exit", "status", "metrics", "log", "limit":
		return r.operate(s)
	}
	if r.current == nil && s.verb == "piecemeal" {
		if err := r.connect(""); err != nil {
			return err
		}
	}
	if r.current == nil {
		return errors.New("no connection is open")
	}
	return r.current.do(s, r.deadline())
}

// connect opens a connection: "[NAME] [to ADDRESS]".
func (r *runner) connect(arg string) error {
	name, address, given := strings.Cut(" "+arg, " to ")
	if name = strings.TrimSpace(name); name == "" {
		name = "main"
	}
	if !given {
		address = r.expand("${LISTEN}")
	}
	c, err := net.DialTimeout("tcp", address, patience)
	if errors.Is(err, syscall.ECONNRESET) { // it was open, and reset before we looked: a connection that is closed
		c, err = closedConn(), nil
	}
	if err != nil {
		return err
	}
	if old := r.conns[name]; old != nil {
		if extra := old.extra(); extra != "" {
			err = fmt.Errorf("the connection before this one received more than the script reads: %s", extra)
		}
		r.transcripts = append(r.transcripts, fmt.Sprintf("client, an earlier connection %s:\n%s", name, old.transcript()))
		old.Close()
		r.begin()
	}
	r.current = &client{wire: &wire{Conn: c}}
	r.conns[name] = r.current
	return err
}

// closedConn is a connection whose other end is gone.
func closedConn() net.Conn {
	near, far := net.Pipe()
	_ = far.Close()
	return near
}

// gather opens many connections that each send a text and are then left alone: "N text".
func (r *runner) gather(arg string) error {
	n, text, err := counted(arg)
	if err != nil {
		return err
	}
	if text, err = unescape(text); err != nil {
		return err
	}
	for range n {
		c, err := net.DialTimeout("tcp", r.expand("${LISTEN}"), patience)
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(r.crowd)+1, err)
		}
		w := &wire{Conn: c}
		r.crowd = append(r.crowd, w)
		if err := w.send(text, r.deadline()); err != nil {
			return fmt.Errorf("connection %d: %w", len(r.crowd), err)
		}
	}
	return nil
}

// awaitEnd waits for the end of the upstream's behaviour, or until the gateway has closed every connection of the crowd.
func (r *runner) awaitEnd(arg string) error {
	switch arg {
	case "upstream":
		o := r.origins[0]
		if !o.wait(r.deadline(), func() bool { return o.finished }) {
			return fmt.Errorf("it has come to line %d", o.at)
		}
		return nil
	case "crowd closed":
		deadline := r.deadline()
		for i, w := range r.crowd {
			var err error
			for err == nil {
				err = w.fill(deadline)
			}
			if errors.Is(err, errLate) {
				return fmt.Errorf("connection %d of %d is still open", i+1, len(r.crowd))
			}
		}
		return nil
	}
	return fmt.Errorf("cannot wait for %q; there are upstream and crowd closed", arg)
}

// door closes or opens the first upstream's listener.
func (r *runner) door(arg string) (err error) {
	switch {
	case arg == "down" && r.open[0] == nil:
		r.open[0], err = r.origins[0].hold()
		return err
	case arg == "up" && r.open[0] != nil:
		err = r.open[0]()
		delete(r.open, 0)
		return err
	}
	return fmt.Errorf("an upstream goes down, then up; not %q", arg)
}

// operate does what an operator does.
func (r *runner) operate(s statement) error {
	g := r.gateway
	switch s.verb {
	case "advance":
		status, body, err := g.ask("POST", "/test/advance?d="+s.arg)
		if err == nil && status >= 300 {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	case "reload", "replace":
		return r.reload(s)
	case "signal":
		sig := unix.SignalNum("SIG" + s.arg)
		if sig == 0 {
			return fmt.Errorf("no signal is called %s", s.arg)
		}
		return g.cmd.Process.Signal(sig)
	case "exit":
		g.expects = true
		code, err := g.waitExit()
		if err == nil && strconv.Itoa(code) != s.arg {
			err = fmt.Errorf("it exits with code %d", code)
		}
		return err
	case "limit":
		n, err := strconv.ParseUint(strings.TrimPrefix(s.arg, "nofile "), 10, 32)
		if err != nil {
			return fmt.Errorf("%q is no limit; write nofile N", s.arg)
		}
		return unix.Prlimit(g.cmd.Process.Pid, syscall.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}, nil)
	case "log":
		return r.match(s.arg, func() (string, error) { return g.out.String(), nil })
	}
	return r.match(s.arg, func() (string, error) {
		_, body, err := g.ask("GET", "/"+s.verb)
		return body, err
	})
}

// reload puts the next document, if the script has one, in place of the last. "reload" asks the gateway to read it, and
// says that it does; "reload refused" that it does not; "replace" leaves the gateway to notice.
func (r *runner) reload(s statement) error {
	if doc, ok := r.script.section(fmt.Sprintf("headgate.yaml %d", r.document+1)); ok {
		if err := r.write(doc); err != nil {
			return err
		}
		r.document++
	}
	if s.verb == "replace" {
		return nil
	}
	status, body, err := r.gateway.ask("POST", "/reload")
	if err != nil {
		return err
	}
	if refused := s.arg == "refused"; refused != (status >= 400) {
		return fmt.Errorf("POST /reload is answered %d %s", status, body)
	}
	return nil
}

// match waits until a text fits "~ regexp", or says that it fits "! regexp" now.
func (r *runner) match(arg string, text func() (string, error)) error {
	sign, expr, _ := strings.Cut(arg, " ")
	re, err := regexp.Compile("(?m)" + expr)
	if err != nil {
		return err
	}
	switch sign {
	case "!":
		t, err := text()
		if err == nil && re.MatchString(t) {
			err = fmt.Errorf("it says %q", re.FindString(t))
		}
		return err
	case "~":
		most := patience
		if r.within > 0 {
			most = r.within
		}
		return r.gateway.await(most, func() (bool, string) {
			t, err := text()
			if err != nil {
				return false, err.Error()
			}
			return re.MatchString(t), t
		})
	}
	return fmt.Errorf("%q is neither ~ (is there) nor ! (is not)", sign)
}
