package websocket

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// send sends a case's frames in the pieces that it asks for.
func (c *webSocketCase) send(s stream) (sent []byte, err error) {
	for _, f := range c.frames {
		m := masked(f)
		sent = append(sent, m...)
		size := c.chop
		if size == 0 {
			size = max(1, len(m))
		}
		for len(m) > 0 && err == nil {
			n := min(size, len(m))
			_, err = s.Write(m[:n])
			m = m[n:]
		}
	}
	return sent, err
}

// TestFramesPassUntouched sends every case to an upstream that sends back what it gets, byte by byte.
func TestFramesPassUntouched(t *testing.T) {
	_, address := start(t, mirror(t))
	for name, open := range doors {
		t.Run(name, func(t *testing.T) {
			for _, c := range webSocketCases() {
				t.Run(c.number, func(t *testing.T) {
					s := open(t, address, "/")
					defer s.Close()
					failed := make(chan error, 1)
					go func() {
						_, err := c.send(s)
						failed <- err
					}()
					var want []byte
					for _, f := range c.frames {
						want = append(want, masked(f)...)
					}
					got := make([]byte, len(want))
					if n, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
						t.Fatalf("%d of %d bytes came back, or others: %v", n, len(want), err)
					}
					if err := <-failed; err != nil {
						t.Fatal(err)
					}
					if err := s.CloseWrite(); err != nil {
						t.Fatal(err)
					}
					if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
						t.Errorf("%d bytes more came, %v", len(rest), err)
					}
				})
			}
		})
	}
}

// TestAnEndpointAnswersAsWithoutTheGateway sends the cases that an endpoint answers to a real one, directly and through the
// gateway, and compares all that comes back up to the end of the connection.
func TestAnEndpointAnswersAsWithoutTheGateway(t *testing.T) {
	upstream := endpoint(t, nil)
	_, address := start(t, upstream)
	direct := strings.TrimPrefix(upstream, "http://")
	for _, c := range webSocketCases() {
		if !c.clean {
			continue // which of its answers a refusing endpoint still gets out before it closes is a matter of luck
		}
		want := conversation(t, &c, overH1, direct)
		for name, open := range doors {
			if got := conversation(t, &c, open, address); !bytes.Equal(got, want) {
				t.Errorf("%s over %s: got %d bytes %.60q, without the gateway %d bytes %.60q", c.number, name, len(got), got, len(want), want)
			}
		}
	}
}

// conversation sends a case and a close frame, and returns what came back.
func conversation(t *testing.T, c *webSocketCase, open door, address string) []byte {
	t.Helper()
	s := open(t, address, "/")
	defer s.Close()
	go func() {
		if _, err := c.send(s); err == nil {
			_, _ = s.Write(masked(frame(0x88, normal))) // what goes wrong is seen in what does not come back
		}
	}()
	got, err := io.ReadAll(s)
	if err != nil {
		t.Fatalf("%s: %v", c.number, err)
	}
	return got
}

// TestCompressionIsNegotiatedBetweenTheEnds uses permessage-deflate (RFC 7692), of which the gateway knows nothing.
func TestCompressionIsNegotiatedBetweenTheEnds(t *testing.T) {
	_, address := start(t, endpoint(t, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, answer, err := websocket.Dial(ctx, "ws://"+address, &websocket.DialOptions{
		CompressionMode: websocket.CompressionContextTakeover, Subprotocols: []string{"unknown"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if extensions := answer.Header.Get("Sec-WebSocket-Extensions"); !strings.HasPrefix(extensions, "permessage-deflate") {
		t.Errorf("agreed on %q", extensions)
	}
	c.SetReadLimit(-1)
	for _, size := range []int{0, 1, 1000, 100_000, 3_000_000} {
		message := bytes.Repeat([]byte("headgate "), size/9+1)[:size]
		if err := c.Write(ctx, websocket.MessageBinary, message); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("%d of %d bytes came back: %v", len(got), size, err)
		}
	}
	if err := c.Ping(c.CloseRead(ctx)); err != nil {
		t.Error(err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

// most is how many connections of each kind the soak has; go test -run Soak with HEADGATE_SOAK=3000 for more. The memory of
// 10,000 is measured by go run ./bench -scenarios M1,S8.
func most(t *testing.T) int {
	if s := os.Getenv("HEADGATE_SOAK"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 500
}

// TestSoak holds many idle WebSockets and keep-alive connections, reloads under them and finds each of them alive.
func TestSoak(t *testing.T) {
	n := most(t)
	g, address := start(t, mirror(t))
	before := resident(t, g.PID())
	var sockets []stream
	var idle []net.Conn
	defer func() {
		for _, s := range sockets {
			_ = s.Close()
		}
		for _, c := range idle {
			_ = c.Close()
		}
	}()
	ask := func(c net.Conn) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "GET /fixed HTTP/1.1\r\nHost: shop\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || answer.StatusCode != 200 {
			t.Fatal(answer, err)
		}
		_, _ = io.Copy(io.Discard, answer.Body) // the next one must find nothing of it
	}
	echo := func(s stream) {
		t.Helper()
		m := masked(frame(0x81, hello))
		if _, err := s.Write(m); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(m))
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, m) {
			t.Fatalf("%q came back, %v", got, err)
		}
	}
	for range n {
		s := overH1(t, address, "/")
		echo(s)
		sockets = append(sockets, s)
	}
	each := float64(resident(t, g.PID())-before) / float64(n)
	t.Logf("%.1f KiB for each of %d idle WebSockets", each, n)
	// At this size the memory that the collector has not looked at yet weighs more than the connections.
	if each > 48 {
		t.Errorf("%.1f KiB for each WebSocket", each)
	}
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
		ask(c)
	}
	g.Ask("POST /reload")
	g.Await("/status", func(page string) bool { return strings.Contains(page, fmt.Sprintf(`"upgrades_open": %d`, n)) })
	for _, s := range sockets {
		echo(s)
	}
	for _, c := range idle {
		ask(c)
	}
	for _, s := range sockets {
		_ = s.Close()
	}
	g.Await("/metrics", func(page string) bool {
		return strings.Contains(page, `headgate_upgrades_open{api="echo",route="(all)"} 0`) &&
			strings.Contains(page, fmt.Sprintf(`headgate_upgrades_total{api="echo",route="(all)"} %d`, n))
	})
}

// resident returns a process's resident memory in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("needs /proc")
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestEventsReachTheClientAsTheyHappen sends an event only when the one before it has reached the client.
func TestEventsReachTheClientAsTheyHappen(t *testing.T) {
	next := make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush() // the head, before there is anything to say
		for i := range 3 {
			<-next
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
		}
	})}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	_, address := start(t, "http://"+l.Addr().String())
	for _, way := range []struct {
		name, path string
		transport  *http.Transport
	}{
		{"h1", "/", &http.Transport{}},
		{"h2c", "/", &http.Transport{Protocols: onlyH2C()}},
		{"h1 compressed", "/packed/", &http.Transport{}},
		{"h2c compressed", "/packed/", &http.Transport{Protocols: onlyH2C()}},
	} {
		t.Run(way.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			defer way.transport.CloseIdleConnections()
			way.transport.DisableCompression = true
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+way.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			packed := strings.HasSuffix(way.name, "compressed")
			if packed {
				r.Header.Set("Accept-Encoding", "gzip")
			}
			answer, err := way.transport.RoundTrip(r) // returns with the head
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			var body io.Reader = answer.Body
			next <- struct{}{}
			if packed {
				if answer.Header.Get("Content-Encoding") == "gzip" {
					if body, err = gzip.NewReader(answer.Body); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range 3 {
				want := fmt.Sprintf("data: %d\n\n", i)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(body, got); err != nil || string(got) != want {
					t.Fatalf("event %d: %q, %v", i, got, err)
				}
				if i < 2 {
					next <- struct{}{}
				}
			}
		})
	}
}

func onlyH2C() *http.Protocols {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &p
}
