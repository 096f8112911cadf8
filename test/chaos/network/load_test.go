//go:build linux

package network

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/internal/testkit/lab"
)

// outcome is what became of a request.
type outcome struct {
	status int
	code   string // of a problem
	from   string // the service that has answered
	body   string
	took   time.Duration
	err    error
}

func (o outcome) ok() bool { return o.err == nil && o.status == http.StatusOK && o.from != "" }

// String says it in a word, such as "504 upstream_timeout".
func (o outcome) String() string {
	if o.err != nil {
		return o.err.Error()
	}
	return strings.TrimSpace(fmt.Sprint(o.status, " ", o.code))
}

// request writes a request with the lines given, without its body.
func request(line string, fields ...string) string {
	return line + " HTTP/1.1\r\nHost: chaos\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

// client is one connection on which requests are sent one after the other. It never retries.
type client struct {
	net.Conn
	in *bufio.Reader
}

func connect(from *lab.Machine, address string) (*client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReader(c)}, nil
}

// exchange sends one request as it is and reads its answer.
func (c *client) exchange(raw string) (o outcome) {
	began := time.Now()
	defer func() { o.took = time.Since(began) }()
	if o.err = c.SetDeadline(began.Add(patience)); o.err != nil {
		return o
	}
	method, _, _ := strings.Cut(raw, " ")
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c, raw) // the answer says what became of it
	}()
	defer func() { <-sent }()
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		o.err = fmt.Errorf("head: %w", err)
		c.Close()
		return o
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	o.status, o.from, o.body = r.StatusCode, r.Header.Get("X-From"), string(b)
	if err != nil {
		o.err = fmt.Errorf("body: %w", err)
	}
	if r.Header.Get("Content-Type") == "application/problem+json" {
		var p struct{ Code string }
		if o.err = json.Unmarshal(b, &p); o.err == nil {
			o.code = p.Code
		}
	}
	return o
}

// ask makes one exchange on a connection of its own.
func ask(from *lab.Machine, address, raw string) outcome {
	c, err := connect(from, address)
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	return c.exchange(raw)
}

// ask asks the gateway once, from its own machine.
func (w *world) ask(raw string) outcome { return ask(w.machine, w.machine.At(httpPort), raw) }

// load is clients of which each sends one request after the other.
type load struct {
	world *world
	raw   string
	pause time.Duration
	stop  chan struct{}
	group sync.WaitGroup
	sent  atomic.Int64

	mu      sync.Mutex
	from    map[string]int // answers by service
	wrong   map[string]int // anything else, by what it was
	total   int
	longest time.Duration
}

// begin starts a load of so many clients, which ends with the test at the latest.
func (w *world) begin(t *testing.T, clients int, raw string) *load {
	t.Helper()
	l := &load{world: w, raw: raw, pause: 5 * time.Millisecond, stop: make(chan struct{}), from: map[string]int{}, wrong: map[string]int{}}
	for range clients {
		l.group.Go(l.work)
	}
	t.Cleanup(func() { l.end() })
	return l
}

func (l *load) work() {
	var c *client
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(l.pause):
		}
		if c == nil {
			var err error
			if c, err = connect(l.world.machine, l.world.machine.At(httpPort)); err != nil {
				l.note(outcome{err: err})
				continue
			}
		}
		l.sent.Add(1)
		o := c.exchange(l.raw)
		if l.note(o); o.err != nil {
			c.Close()
			c = nil
		}
	}
}

func (l *load) note(o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest = max(l.longest, o.took)
	if o.ok() {
		l.total++
		l.from[o.from]++
	} else {
		l.wrong[o.String()]++
	}
}

// answered returns how many requests were answered by services.
func (l *load) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// by returns how many requests a service has answered.
func (l *load) by(s *target) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.from[s.Name]
}

// failures returns what went wrong so far, and how much.
func (l *load) failures() (by map[string]int, all int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.wrong {
		all += n
	}
	return maps.Clone(l.wrong), all
}

// flows waits until so many more requests have been answered.
func (l *load) flows(t *testing.T, more int) {
	t.Helper()
	from := l.answered()
	eventually(t, "answers arrive", func() (bool, string) {
		now := l.answered()
		return now >= from+more, fmt.Sprintf("%d of %d more; wrong: %s", now-from, more, l)
	})
}

// String is the load's ledger.
func (l *load) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var parts []string
	for _, m := range []map[string]int{l.from, l.wrong} {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			parts = append(parts, fmt.Sprintf("%s: %d", name, m[name]))
		}
	}
	return fmt.Sprintf("%s; longest %v", strings.Join(parts, ", "), l.longest.Round(time.Millisecond))
}

// end stops the load once everything that was asked has been answered. It may be called again.
func (l *load) end() {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	l.group.Wait()
}
