package chaos

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// beginHeld begins a request to /held over HTTP/3, whose answer is sent to the channel.
func (h *house) beginHeld(t *testing.T, way string) (*caller, chan error) {
	t.Helper()
	c, done := h.caller(t, way), make(chan error, 1)
	go func() {
		status, body, err := c.post("/held")
		if err == nil && (status != 200 || body != "A /held") {
			err = fmt.Errorf("%d %q", status, body)
		}
		done <- err
	}()
	return c, done
}

// drainTime is long enough for all that a test does in a drain, and short enough to wait for its end.
const drainTime = 3 * time.Second

// SIGTERM with everything open: clients of HTTP/2 are told by GOAWAY, first that the end is near and then which stream is the
// last one, and what runs over any protocol is finished; WebSockets and TCP are not touched before the end of the drain,
// at which WebSockets get 1001; the exit code is 0, in time.
func TestTerminateDrainsEveryDoor(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith()+fmt.Sprintf("drain: {drain_timeout: %v}\n", drainTime), s.places...)
	h.stopped = true
	open := h.lastings(t)
	sockets := []*webSocket{h.webSocket(t, dial(t, h.listen)), h.webSocket(t, h.dialTLS(t, "http/1.1")), h.webSocketH2(t), h.webSocketH3(t)}
	idle := newPeer(t, h.dialTLS(t, "h2"))
	if status, body := idle.get(t, 1, "/before").whole(t); status != "200" || body != "A /before" {
		t.Fatalf("%s %q", status, body)
	}
	busy := newPeer(t, h.dialTLS(t, "h2"))
	stream := busy.get(t, 1, "/held")
	_, overH3 := h.beginHeld(t, "h3")
	_, overH2C := h.beginHeld(t, "h2c")
	eventually(t, "the origin has the requests", func() (bool, string) { return s.held.Load() == 3, fmt.Sprint(s.held.Load()) })

	h.signal(t, syscall.SIGTERM)
	began := time.Now()
	for _, p := range []*peer{idle, busy} {
		p.await(t, "the first GOAWAY", func() bool { return len(p.goAways) > 0 })
		if first := p.goAways[0]; first.last != 1<<31-1 || first.code != http2.ErrCodeNo {
			t.Errorf("the first GOAWAY is %+v", first)
		}
		p.await(t, "the second GOAWAY", func() bool { return len(p.goAways) > 1 })
		if second := p.goAways[1]; second.last != 1 || second.code != http2.ErrCodeNo {
			t.Errorf("the second GOAWAY is %+v", second)
		}
	}
	idle.closed(t)
	for _, l := range open {
		l.must(t, "in the drain")
	}
	if took := time.Since(began); took > drainTime {
		t.Skipf("this machine is too slow: %v went by before the end of the drain could be looked at", took)
	}
	close(s.release)
	if status, body := stream.whole(t); status != "200" || body != "A /held" {
		t.Errorf("the stream of h2 ends with %s %q", status, body)
	}
	for name, done := range map[string]chan error{"h3": overH3, "h2c": overH2C} {
		if err := <-done; err != nil {
			t.Errorf("the request over %s: %v", name, err)
		}
	}
	busy.closed(t)
	for _, l := range open {
		if l.name == "grpc" {
			if err := l.end(); err != nil {
				t.Errorf("grpc: %v", err)
			}
		}
	}
	for i, w := range sockets {
		status, err := w.farewell()
		took := time.Since(began)
		if err != nil || status != 1001 {
			t.Errorf("WebSocket %d is closed with %d, %v", i, status, err)
		}
		if took < drainTime {
			t.Errorf("WebSocket %d is closed after %v, before the end of the drain", i, took)
		}
		if _, err := w.Write(frame(closeFrame, "\x03\xe9")); err != nil {
			t.Errorf("WebSocket %d: %v", i, err)
		}
	}
	if code := h.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > drainTime+20*time.Second {
		t.Errorf("the drain took %v", took)
	}
	if log := h.log.String(); !strings.Contains(log, "switched connections, such as WebSockets, are closed at the end of the drain") {
		t.Error("the log does not say that WebSockets were closed")
	}
}

// Requests that are sent while the gateway says goodbye are answered, over every protocol that has a goodbye; those that come
// too late are never begun, so that their client may send them again elsewhere.
func TestADrainUnderLoadAnswersOrRefusesEveryRequest(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith()+"drain: {delay: 500ms, drain_timeout: 10s}\n", s.places...)
	h.stopped = true
	var flows []*flow
	for _, way := range waysIn {
		f := h.flow(t, way, 2, time.Millisecond)
		f.goes(t, 20)
		flows = append(flows, f)
	}
	h.signal(t, syscall.SIGTERM)
	if code := h.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, f := range flows {
		f.end()
		crossed := 0
		for _, err := range f.wrong {
			switch text := err.Error(); {
			case refused(text):
			case strings.Contains(text, "connection reset by peer") && crossed < len(f.callers):
				crossed++ // it came in the moment between the last accept and the end of the socket, which no kernel makes one
			default:
				t.Errorf("lost: %v", text)
			}
		}
		t.Logf("%s: %d answered, %d refused", f.way, f.good.Load(), len(f.wrong))
	}
}

// refused reports whether a request came to a door that was closed, or was told that it was not begun.
func refused(text string) bool {
	for _, known := range []string{"dial tcp", "REFUSED_STREAM", "CONNECTION_REFUSED", "H3_REQUEST_REJECTED", "no recent network activity"} {
		if strings.Contains(text, known) {
			return true
		}
	}
	return false
}

// A second SIGTERM ends the gateway at once, whatever is open.
func TestSecondTerminateEndsAtOnceWithEveryDoorInUse(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith()+"drain: {drain_timeout: 1h}\n", s.places...)
	h.stopped = true
	open := h.lastings(t)
	for _, l := range open {
		l.must(t, "hello")
	}
	h.signal(t, syscall.SIGTERM)
	eventually(t, "the drain begins", func() (bool, string) { return strings.Contains(h.log.String(), "draining"), h.log.String() })
	h.signal(t, syscall.SIGTERM)
	if code := h.exit(t); code == 0 {
		t.Error("exit code 0: nobody could tell that connections were broken off")
	}
}

// A gateway that was killed starts again on the same addresses, TCP and UDP, at once, although connections of its
// predecessor are still around; a client that comes back with a session is served.
func TestAKilledGatewayStartsAgainOnTheSameAddresses(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	document := doorsWith()
	h := startHouse(t, document, s.places...)
	for range 2 {
		open := h.lastings(t)
		for _, l := range open {
			l.must(t, "hello")
		}
		h.signal(t, syscall.SIGKILL)
		<-h.exited
		began := time.Now()
		h.start(t, document)
		t.Logf("ready %v after it was killed", time.Since(began))
		for _, way := range waysIn {
			c := h.caller(t, way)
			if status, body, err := c.post("/again"); err != nil || status != http.StatusOK || body != "A /again" {
				t.Errorf("%s: %d %q %v", way, status, body, err)
			}
			c.CloseIdleConnections()
		}
	}
}

// deaf is a socket that sends and never receives.
type deaf struct {
	net.PacketConn
	closed chan struct{}
}

// ReadFrom implements net.PacketConn.
func (d deaf) ReadFrom([]byte) (int, net.Addr, error) {
	<-d.closed
	return 0, nil, net.ErrClosed
}

// Handshakes that stand still, over TCP and over QUIC, hold a drain up no longer than it may take.
func TestADrainIsNotHeldUpByHandshakesThatStandStill(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith("${TLS}", ", handshake_timeout: 30s")+"drain: {drain_timeout: 1s}\n", s.places...)
	h.stopped = true
	crowd(t, h.secure, h.hello(t), 20)
	var group sync.WaitGroup
	for range 3 {
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		d := deaf{socket, make(chan struct{})}
		transport := &quic.Transport{Conn: d}
		ctx, cancel := context.WithCancel(context.Background())
		to, err := net.ResolveUDPAddr("udp", h.secure)
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() { _, _ = transport.Dial(ctx, to, h.trust(http3.NextProtoH3), nil) }) // which never succeeds
		t.Cleanup(func() {
			cancel()
			group.Wait()
			close(d.closed)
			_ = transport.Close() // it may have noticed
			socket.Close()
		})
	}
	eventually(t, "the handshakes have begun", func() (bool, string) { n := h.connections(t); return n >= 23, fmt.Sprint(n) })
	h.signal(t, syscall.SIGTERM)
	began := time.Now()
	if code := h.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("the drain of 1s took %v", took)
	} else {
		t.Logf("the drain took %v", took)
	}
}
