package chaos

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// origin is a healthy upstream: /download?size=N[&chunked] sends N bytes, /upload answers with the hash of what it got,
// /converse echoes what comes as it comes, /held answers when it is let go, everything else is answered with the origin's name
// and the path.
type origin struct {
	name    string
	release chan struct{} // closed to let /held go
	held    atomic.Int64  // requests that wait in /held
	gone    atomic.Int64  // of which the other side has gone
	ended   chan struct{} // closed with the test
}

// startOrigin serves an origin on a free port and returns it with its URL.
func startOrigin(t *testing.T, name string) (*origin, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{name: name, release: make(chan struct{}), ended: make(chan struct{})}
	return o, "http://" + o.serve(t, l)
}

// serve serves the origin on l until the end of the test.
func (o *origin) serve(t *testing.T, l net.Listener) (address string) {
	s := &http.Server{Handler: o}
	var group sync.WaitGroup
	group.Go(func() { _ = s.Serve(l) }) // it ends by being closed
	t.Cleanup(func() {
		close(o.ended)
		s.Close()
		group.Wait()
	})
	return l.Addr().String()
}

// ServeHTTP implements http.Handler.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/download":
		size, _ := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
		if !r.URL.Query().Has("chunked") {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		}
		_, _ = io.CopyN(w, &pattern{}, size) // the client may go away
	case "/upload":
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%x", h.Sum(nil))
	case "/chat":
		chat(w, r)
	case "/converse":
		converse(w, r)
	case "/held":
		o.held.Add(1)
		select {
		case <-o.release:
		case <-r.Context().Done():
			o.gone.Add(1)
			return
		case <-o.ended: // the context is not told of an end within a body
			return
		}
		fallthrough
	default:
		fmt.Fprint(w, o.name, " ", r.URL.Path)
	}
}

// converse echoes a request's body while it comes.
func converse(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	_ = c.EnableFullDuplex() // only of HTTP/1.1
	buf := make([]byte, 4<<10)
	for {
		if c.Flush() != nil {
			return
		}
		n, err := r.Body.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// pattern is an endless stream of bytes that tells a gap, a repetition and a swap.
type pattern struct{ at uint64 }

// Read implements io.Reader.
func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte((p.at * 0x9e3779b97f4a7c15) >> 56)
		p.at++
	}
	return len(b), nil
}

// patternHash is what /upload answers to size bytes of the pattern.
func patternHash(size int64) string {
	h := sha256.New()
	_, _ = io.CopyN(h, &pattern{}, size) // neither side can fail
	return fmt.Sprintf("%x", h.Sum(nil))
}

// fault is an upstream that does to every connection what a test says.
type fault struct {
	net.Listener
	accepted atomic.Int64
	closed   atomic.Int64 // connections whose other side was seen to end
	group    sync.WaitGroup
	mu       sync.Mutex
	open     []net.Conn
}

// startFault serves a fault on a free port until the end of the test. do is called for each connection, with its number
// from 1; the connection is closed when it returns.
func startFault(t *testing.T, do func(c *faulty)) (*fault, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fault{Listener: l}
	f.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.open = append(f.open, c)
			f.mu.Unlock()
			n := f.accepted.Add(1)
			f.group.Go(func() {
				defer c.Close()
				do(&faulty{TCPConn: c.(*net.TCPConn), in: bufio.NewReader(c), number: n, of: f})
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for _, c := range f.open {
			c.Close()
		}
		f.mu.Unlock()
		f.group.Wait()
	})
	return f, "http://" + l.Addr().String()
}

// faulty is one connection of a fault.
type faulty struct {
	*net.TCPConn
	in     *bufio.Reader
	number int64 // of the connection
	of     *fault
}

// request reads one request with its body; false: the other side has ended.
func (c *faulty) request() (*http.Request, bool) {
	r, err := http.ReadRequest(c.in)
	if err != nil {
		return nil, false
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return r, err == nil
}

// say writes text as it is.
func (c *faulty) say(text string) { _, _ = io.WriteString(c, text) } // the gateway may have had enough

// untilClosed waits until the other side closes, and counts that.
func (c *faulty) untilClosed() {
	_, _ = io.Copy(io.Discard, c.in) // its end is all that matters
	c.of.closed.Add(1)
}

// reset breaks the connection.
func (c *faulty) reset() {
	_ = c.SetLinger(0) // best effort
	c.Close()
}
