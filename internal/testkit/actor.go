package testkit

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// actor is an upstream that does what its section says, one statement after the other, whichever connection asks.
type actor struct {
	*origin
	accepted <-chan *wire
	asking   chan *wire // idle connections on which something has happened
	current  *wire
	last     *received
}

var errStopped = errors.New("the script has ended")

// play runs the statements. After the last one every further request is against the script.
func (a *actor) play() {
	a.asking = make(chan *wire, 1024)
	for _, s := range a.behave {
		if s.verb == "" {
			continue
		}
		a.change(func() { a.at = s.line })
		if err := a.do(s); err != nil {
			if !errors.Is(err, errStopped) {
				a.fault("line %d: %s: %v", s.line, s.text, err)
			}
			if a.current != nil {
				a.current.Close()
			}
			break
		}
	}
	a.change(func() { a.finished = true })
	a.release()
	for {
		w, err := a.next(time.Now().Add(time.Hour))
		if err != nil {
			return
		}
		if r, err := a.request(w, time.Now().Add(patience)); err == nil {
			a.fault("got a request that the script does not expect: %q", r.line)
		}
		w.Close()
	}
}

func (a *actor) do(s statement) error {
	deadline := time.Now().Add(patience)
	if w := a.current; w == nil && !strings.HasPrefix(s.verb, "expect") && s.verb != "stall" {
		return errors.New("no connection is open")
	}
	switch s.verb {
	case "expect", "expect-head":
		return a.expect(s, deadline)
	case "body":
		return a.readAll(a.current, a.last, deadline)
	case "send", "piecemeal":
		text, err := repeated(s.arg)
		if err != nil {
			return err
		}
		if s.verb == "piecemeal" {
			return a.current.piecemeal(text, deadline)
		}
		return a.current.send(text, deadline)
	case "flood":
		return a.flood(s.arg, deadline)
	case "close":
		err := a.current.Close()
		a.current = nil
		return err
	case "half-close":
		return a.current.Conn.(*net.TCPConn).CloseWrite()
	case "reset":
		err := errors.Join(a.current.Conn.(*net.TCPConn).SetLinger(0), a.current.Close())
		a.current = nil
		return err
	case "stall":
		return a.stall(s.arg)
	case "read":
		return a.current.raw(s.arg, deadline)
	case "wait-end":
		if err := a.current.fill(deadline); !errors.Is(err, errEnded) {
			return fmt.Errorf("the connection does not end here: %v, %s", err, shorten(a.current.in[a.current.used:]))
		}
		return nil
	case "wait-closed":
		return a.waitClosed(deadline)
	}
	return fmt.Errorf("cannot %s", s.verb)
}

// expect waits for a request on any connection and compares its method and target with the statement's, if it has them.
func (a *actor) expect(s statement, deadline time.Time) error {
	a.release()
	w, err := a.next(time.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	a.current = w
	r, err := a.request(w, deadline)
	if err != nil {
		return err
	}
	a.last = r
	if s.arg != "" && !strings.HasPrefix(r.line, s.arg+" ") {
		return fmt.Errorf("got %q", r.line)
	}
	if s.verb == "expect" {
		return a.readAll(w, r, deadline)
	}
	return nil
}

// release lets the current connection be used for another request.
func (a *actor) release() {
	if a.current != nil {
		a.watch(a.current)
		a.current = nil
	}
}

// watch waits for an idle connection's next bytes.
func (a *actor) watch(w *wire) {
	a.group.Go(func() {
		if w.used < len(w.in) || w.fill(time.Now().Add(time.Hour)) == nil {
			select {
			case a.asking <- w:
			case <-a.stop:
			}
			return
		}
		w.Close()
	})
}

// next returns a connection on which a request begins.
func (a *actor) next(deadline time.Time) (*wire, error) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	accepted := a.accepted
	for {
		select {
		case w, ok := <-accepted:
			if !ok {
				accepted = nil
				continue
			}
			a.watch(w)
		case w := <-a.asking:
			return w, nil
		case <-a.stop:
			return nil, errStopped
		case <-timer.C:
			return nil, errLate
		}
	}
}

// flood sends a text many times, until the gateway has had enough: that it closes is no fault.
func (a *actor) flood(arg string, deadline time.Time) error {
	n, text, err := counted(arg)
	if err != nil {
		return err
	}
	if text, err = repeated(text); err != nil {
		return err
	}
	for range n {
		if a.current.send(text, deadline) != nil {
			break
		}
	}
	return nil
}

// stall does nothing for a while, or until the script ends.
func (a *actor) stall(arg string) error {
	d := time.Hour
	if arg == "" {
		a.change(func() { a.finished = true })
	} else {
		var err error
		if d, err = time.ParseDuration(arg); err != nil {
			return err
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-a.stop:
		return errStopped
	}
}

// waitClosed proves that the gateway ends the connection; what it sends before does not matter.
func (a *actor) waitClosed(deadline time.Time) error {
	for {
		switch err := a.current.fill(deadline); {
		case err == nil:
			a.current.used = len(a.current.in)
		case errors.Is(err, errLate):
			return errors.New("the gateway keeps the connection open")
		default:
			a.current.Close()
			a.current = nil
			return nil
		}
	}
}
