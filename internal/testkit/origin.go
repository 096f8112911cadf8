package testkit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// patience is how long anything may take that a script waits for. It is generous: a loaded machine is no failure.
const patience = 30 * time.Second

// received is one request as an upstream got it.
type received struct {
	*message
	whole bool // the body has come to its end
}

// origin is an upstream that records every request. It echoes, or does what a script says.
type origin struct {
	name     string
	listener net.Listener
	behave   []statement // without any: echo
	stop     chan struct{}
	group    sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced with every change
	requests []*received
	wires    []*wire
	faults   []string // what went against the script
	at       int      // the line that the behaviour has come to
	finished bool     // the behaviour has come to its end
}

// newOrigin starts an upstream on a free port of the loopback address.
func newOrigin(name string, behave []statement) (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{name: name, listener: l, behave: behave, stop: make(chan struct{}), changed: make(chan struct{})}
	accepted := make(chan *wire, 1024)
	o.group.Go(func() { o.accept(l, accepted) })
	if behave == nil {
		o.finished = true
		o.group.Go(func() {
			for w := range accepted {
				o.group.Go(func() { o.echo(w) })
			}
		})
	} else {
		o.group.Go(func() { (&actor{origin: o, accepted: accepted}).play() })
	}
	return o, nil
}

// url is what the document calls the upstream.
func (o *origin) url() string { return "http://" + o.listener.Addr().String() }

func (o *origin) accept(l net.Listener, accepted chan<- *wire) {
	defer close(accepted)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		w := &wire{Conn: c}
		o.change(func() { o.wires = append(o.wires, w) })
		select {
		case accepted <- w:
		case <-o.stop:
			return
		}
	}
}

// close ends the upstream and everything it serves.
func (o *origin) close() {
	close(o.stop)
	o.listener.Close()
	o.mu.Lock()
	for _, w := range o.wires {
		w.Close()
	}
	o.mu.Unlock()
	o.group.Wait()
}

// change applies f and wakes those who wait.
func (o *origin) change(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
	close(o.changed)
	o.changed = make(chan struct{})
}

// wait returns when what is asked for holds (which is called with the lock held), or false at the deadline.
func (o *origin) wait(deadline time.Time, holds func() bool) bool {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		o.mu.Lock()
		ok, changed := holds(), o.changed
		o.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// since returns the requests from number n on.
func (o *origin) since(n int) []*received {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]*received(nil), o.requests[min(n, len(o.requests)):]...)
}

func (o *origin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.requests)
}

func (o *origin) fault(format string, args ...any) {
	o.change(func() { o.faults = append(o.faults, o.name+": "+fmt.Sprintf(format, args...)) })
}

// request reads and records the head of one request. What the gateway forwards must never be ambiguous.
func (o *origin) request(w *wire, deadline time.Time) (*received, error) {
	m, err := w.head(deadline)
	if err != nil {
		if m != nil {
			o.fault("got a request that is not valid: %v\n%q", err, m.raw)
		}
		return nil, err
	}
	r := &received{message: m}
	if a := m.ambiguous(); a != "" {
		o.fault("got a request with %s:\n%q", a, m.raw)
	}
	o.change(func() { o.requests = append(o.requests, r) })
	return r, nil
}

// readAll reads the rest of a request.
func (o *origin) readAll(w *wire, r *received, deadline time.Time) error {
	copied := &message{fields: r.fields}
	err := w.readBody(copied, false, false, deadline)
	o.change(func() {
		r.body, r.trailer, r.done, r.whole = copied.body, copied.trailer, err == nil, err == nil
	})
	return err
}

// echo answers every request of a connection with what arrived.
func (o *origin) echo(w *wire) {
	defer w.Close()
	forever := time.Now().Add(time.Hour)
	for {
		r, err := o.request(w, forever)
		if err != nil {
			return
		}
		if strings.EqualFold(strings.Join(r.values("Expect"), ""), "100-continue") {
			if err := w.send("HTTP/1.1 100 Continue\r\n\r\n", forever); err != nil {
				return
			}
		}
		if err := o.readAll(w, r, forever); err != nil {
			return
		}
		method, _, _ := strings.Cut(r.line, " ")
		body := r.json()
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
		if method != "HEAD" {
			answer += body
		}
		if err := w.send(answer, forever); err != nil {
			return
		}
	}
}

// json tells a request: {"method","path","headers","body","trailers"}, headers in order of arrival.
func (r *received) json() string {
	method, rest, _ := strings.Cut(r.line, " ")
	path, _, _ := strings.Cut(rest, " ")
	object := func(fields []field) string {
		var parts []string
		seen := map[string]bool{}
		for _, f := range fields {
			if !seen[f.name] {
				parts = append(parts, quote(f.name)+":"+quote(strings.Join(lookup(fields, f.name), ", ")))
			}
			seen[f.name] = true
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	return fmt.Sprintf(`{"method":%s,"path":%s,"headers":%s,"body":%s,"trailers":%s}`,
		quote(method), quote(path), object(r.fields), quote(string(r.body)), object(r.trailer))
}

func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return `"?"`
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// transcript shows what came and went on every connection.
func (o *origin) transcript() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for i, w := range o.wires {
		fmt.Fprintf(&b, "%s, connection %d:\n%s", o.name, i+1, w.transcript())
	}
	return b.String()
}

// hold closes the door (nobody can connect, and open connections are broken) and returns how to open it again.
func (o *origin) hold() (open func() error, err error) {
	address := o.listener.Addr().String()
	if err := o.listener.Close(); err != nil {
		return nil, err
	}
	o.mu.Lock()
	for _, w := range o.wires {
		w.Close()
	}
	o.mu.Unlock()
	return func() error {
		if o.behave != nil {
			return errors.New("only an echoing upstream can come back")
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		o.listener = l
		accepted := make(chan *wire, 1024)
		o.group.Go(func() { o.accept(l, accepted) })
		o.group.Go(func() {
			for w := range accepted {
				o.group.Go(func() { o.echo(w) })
			}
		})
		return nil
	}, nil
}
