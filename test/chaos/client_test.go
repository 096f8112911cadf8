package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// client is one connection on which requests are sent one after the other. It never retries and never reconnects by
// itself: what it does not get was lost.
type client struct {
	net.Conn
	in *bufio.Reader
}

func newClient(address string) (*client, error) {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	return newClientOn(c), nil
}

func newClientOn(c net.Conn) *client { return &client{c, bufio.NewReader(c)} }

// connect is newClient for a test that needs one.
func connect(t *testing.T, address string) *client {
	t.Helper()
	return newClientOn(dial(t, address))
}

// reply is an answer that came whole.
type reply struct {
	status int
	header http.Header
	body   string
	close  bool
}

// request writes a request with the lines given, without its body.
func request(line string, fields ...string) string {
	return line + " HTTP/1.1\r\nHost: chaos\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

// exchange sends one request as it is and reads its answer.
func (c *client) exchange(raw string) (reply, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return reply{}, err
	}
	if _, err := io.WriteString(c, raw); err != nil {
		return reply{}, fmt.Errorf("send: %w", err)
	}
	return c.reply(raw)
}

// reply reads the answer to a request, behind informational ones.
func (c *client) reply(raw string) (reply, error) {
	method, _, _ := strings.Cut(raw, " ")
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	for err == nil && r.StatusCode < 200 {
		r, err = http.ReadResponse(c.in, &http.Request{Method: method})
	}
	if err != nil {
		return reply{}, fmt.Errorf("head: %w", err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		err = fmt.Errorf("body: %w", err)
	}
	return reply{r.StatusCode, r.Header, string(b), r.Close}, err
}

// get is an exchange that must go well.
func (c *client) get(t *testing.T, path string, fields ...string) reply {
	t.Helper()
	r, err := c.exchange(request("GET "+path, fields...))
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return r
}

// closed waits until the other side closes, and returns what came before.
func (c *client) closed(t *testing.T) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c.in)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("the connection stays open; got %q", b)
	}
	return string(b)
}

// load is requests that are sent at their time, whether or not those before have been answered, as long as not too many wait.
type load struct {
	address string
	every   time.Duration
	workers int
	ask     func(n int) string                    // the n-th request
	judge   func(n int, r reply, err error) error // what is wrong with its answer

	stop     chan struct{}
	group    sync.WaitGroup
	sent     atomic.Int64
	answered atomic.Int64
	dials    atomic.Int64 // connections that had to be made anew
	mu       sync.Mutex
	wrong    []error
}

// maxDue bounds the requests that wait for a worker. A machine that is too slow for the load sends fewer: it would have to work
// off for minutes what came due in seconds.
const maxDue = 256

// begin starts the load. Every fourth worker uses a new connection for each request, the others keep theirs.
func (l *load) begin() *load {
	l.stop = make(chan struct{})
	due := make(chan int, maxDue)
	l.group.Go(func() {
		defer close(due)
		tick := time.NewTicker(l.every)
		defer tick.Stop()
		began, n := time.Now(), 0
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			for ; n < int(time.Since(began)/l.every); n++ { // a late tick brings all that were due
				select {
				case due <- n:
				default:
				}
			}
		}
	})
	for w := range l.workers {
		l.group.Go(func() { l.work(due, w%4 == 3) })
	}
	return l
}

func (l *load) work(due <-chan int, fresh bool) {
	var c *client
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for n := range due {
		if c == nil {
			l.dials.Add(1)
			var err error
			if c, err = newClient(l.address); err != nil {
				l.sent.Add(1)
				l.fault(n, err)
				continue
			}
		}
		l.sent.Add(1)
		raw := l.ask(n)
		if fresh {
			raw = strings.Replace(raw, "\r\n", "\r\nConnection: close\r\n", 1)
		}
		r, err := c.exchange(raw)
		if err := l.judge(n, r, err); err != nil {
			l.fault(n, err)
		} else {
			l.answered.Add(1)
		}
		if err != nil || r.close {
			c.Close()
			c = nil
		}
	}
}

func (l *load) fault(n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Errorf("request %d: %w", n, err))
}

// faults returns what was wrong so far.
func (l *load) faults() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]error(nil), l.wrong...)
}

// end stops the load once everything that waits has been asked.
func (l *load) end() []error {
	close(l.stop)
	l.group.Wait()
	return l.faults()
}

// flows waits until so many more requests have been answered.
func (l *load) flows(t *testing.T, more int64) {
	t.Helper()
	from := l.answered.Load()
	eventually(t, "answers arrive", func() (bool, string) {
		now := l.answered.Load()
		return now >= from+more, fmt.Sprintf("%d of %d more; wrong: %v", now-from, more, errors.Join(l.faults()...))
	})
}
