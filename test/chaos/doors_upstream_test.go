package chaos

import (
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// service is an upstream over HTTP/2, in clear or encrypted, whose connections a test can break.
type service struct {
	t       *testing.T
	address string
	handler http.Handler
	pair    atomic.Pointer[tls.Certificate] // nil: in clear
	server  *http.Server
	group   sync.WaitGroup
	mu      sync.Mutex
	open    map[net.Conn]bool
}

func startService(t *testing.T, pair *tls.Certificate, handler http.HandlerFunc) *service {
	t.Helper()
	s := &service{t: t, handler: handler, open: map[net.Conn]bool{}}
	s.pair.Store(pair)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	s.serve(l)
	t.Cleanup(s.stop)
	return s
}

func (s *service) serve(l net.Listener) {
	var only http.Protocols
	s.server = &http.Server{Handler: s.handler, ErrorLog: log.New(io.Discard, "", 0), Protocols: &only}
	s.server.ConnState = func(c net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if state == http.StateClosed {
			delete(s.open, c)
		} else {
			s.open[c] = true
		}
	}
	server := s.server
	if s.pair.Load() == nil {
		only.SetUnencryptedHTTP2(true)
		s.group.Go(func() { _ = server.Serve(l) }) // it ends by being closed
		return
	}
	only.SetHTTP2(true)
	only.SetHTTP1(true)
	server.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.pair.Load(), nil }}
	s.group.Go(func() { _ = server.ServeTLS(l, "", "") })
}

// stop ends the service and all of its connections at once.
func (s *service) stop() {
	s.server.Close()
	s.group.Wait()
}

// restart is stop, and the same service again at the same address.
func (s *service) restart() {
	s.t.Helper()
	s.stop()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.serve(l)
}

// breakAll breaks the connections that are open, and takes new ones.
func (s *service) breakAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // without it this is a close, and the test weaker
		}
		c.Close()
	}
}

// named answers as origins do.
func named(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // what it is does not matter
	fmt.Fprint(w, "A ", r.URL.Path)
}

// overH2 is a gateway in front of one upstream, whose settings follow as ${UP}.
const overH2 = `
listeners:
  public: {address: "${LISTEN}"}
  secure: {address: "${SECURE}", protocols: [h1, h2, h3], tls: {certificates: [{cert: "${DIR}/tls.crt", key: "${DIR}/tls.key"}]}}
upstreams: {a: {targets: ["${A}"], ejection: {consecutive_failures: 0}${UP}}}
apis: {all: {upstream: a}}
`

// leadsTo says what ${A} stands for.
func (h *house) leadsTo(url string) {
	h.places = strings.NewReplacer("${A}", url, "${LISTEN}", h.listen, "${SECURE}", h.secure, "${ADMIN}", h.admin,
		"${DIR}", filepath.Dir(h.document))
}

func (h *house) startOverH2(t *testing.T, settings string) {
	t.Helper()
	h.start(t, strings.ReplaceAll(overH2, "${UP}", settings))
}

// An upstream that says goodbye all the time loses nobody's request, be it one that may be sent again or not: streams that it
// has not begun are asked elsewhere, those that it has are waited for.
func TestGoodbyesOfAnUpstreamLoseNothing(t *testing.T) {
	t.Parallel()
	var turn, goodbyes atomic.Int64
	s := startService(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if turn.Add(1)%7 == 0 {
			goodbyes.Add(1)
			w.Header().Set("Connection", "close") // which this server says by GOAWAY
		}
		named(w, r)
	})
	h := newHouse(t, "${A}", "h2c://"+s.address)
	h.startOverH2(t, "")
	before := h.idles(t)
	var flows []*flow
	for _, way := range waysIn {
		flows = append(flows, h.flow(t, way, 3, time.Millisecond))
	}
	for _, f := range flows {
		f.goes(t, int64(fewer(500)))
		f.flawless(t, 3)
	}
	t.Logf("%d goodbyes", goodbyes.Load())
	h.rests(t, before)
}

// An upstream whose connections break under many streams at one time: requests that may be sent again are, where the contract
// of retries says so, the others are answered with 502, nobody waits, and the next request is answered.
func TestConnectionsOfHTTP2ThatBreakUnderLoad(t *testing.T) {
	t.Parallel()
	s := startService(t, nil, named)
	h := newHouse(t, "${A}", "h2c://"+s.address)
	h.startOverH2(t, "")
	before := h.idles(t)
	judge := func(n int, r reply, err error) error {
		switch {
		case err != nil && r.status == 200: // what had come of the answer was passed on, and its end is not faked
			return fmt.Errorf("%w %w", errGateway, err)
		case err != nil:
			return fmt.Errorf("lost: %w", err)
		case r.status == 502 && strings.Contains(r.body, `"code"`):
			return fmt.Errorf("%w %s", errGateway, r.body)
		case r.status != 200 || r.body != fmt.Sprintf("A /%d", n):
			return fmt.Errorf("%d %q", r.status, r.body)
		}
		return nil
	}
	gets := (&load{address: h.listen, every: time.Millisecond, workers: 8, ask: askFixed, judge: judge}).begin()
	posts := (&load{address: h.listen, every: time.Millisecond, workers: 8, judge: judge, ask: func(n int) string {
		return request(fmt.Sprintf("POST /%d", n), "Content-Length: 1") + "x"
	}}).begin()
	const breaks = 10
	for range breaks {
		gets.flows(t, 20)
		posts.flows(t, 20)
		s.breakAll()
	}
	gets.flows(t, 50)
	for _, l := range []*load{gets, posts} {
		wrong := l.end()
		for _, err := range wrong {
			if !errors.Is(err, errGateway) {
				t.Error(err)
			}
		}
		t.Logf("%d of %d are answered with 502, such as %v", len(wrong), l.sent.Load(), errors.Join(wrong[:min(1, len(wrong))]...))
		if l == gets && len(wrong) > breaks {
			t.Errorf("%d GETs failed in %d breaks, although they could be asked again", len(wrong), breaks)
		}
	}
	h.rests(t, before)
}

// A service over TLS and HTTP/2 that is restarted under load is missed for as long as it is away, and no longer.
func TestARestartedServiceOverTLSIsBackAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	pair := h.pair(t, 5, time.Now().Add(time.Hour))
	s := startService(t, &pair, named)
	h.leadsTo("https://" + s.address)
	h.startOverH2(t, `, tls: {ca: ["${DIR}/ca.crt"]}`)
	before := h.idles(t)
	c := h.caller(t, "h2")
	for range 10 {
		if code, body, err := c.post("/up"); err != nil || code != 200 || body != "A /up" {
			t.Fatalf("%d %q %v", code, body, err)
		}
		s.stop()
		if code, body, err := c.post("/down"); err != nil || code != 502 {
			t.Errorf("while it is away: %d %q %v", code, body, err)
		}
		s.restart()
	}
	c.leave()
	s.stop()
	h.rests(t, before)
}

// A service whose certificate is not to be believed is not asked, whatever is wrong with it; it is as soon as it shows a good one.
func TestCertificatesOfAnUpstreamThatAreWrong(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	stranger := newAuthority(t)
	good, expired := h.pair(t, 5, time.Now().Add(time.Hour)), h.pair(t, 6, time.Now().Add(-time.Hour))
	unknown := stranger.pair(t, 7, time.Now().Add(time.Hour))
	var asked atomic.Int64
	s := startService(t, &good, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); named(w, r) })
	h.leadsTo("https://" + s.address)
	h.startOverH2(t, `, tls: {ca: ["${DIR}/ca.crt"]}`)
	before := h.idles(t)
	c := h.caller(t, "h2")
	for _, wrong := range []*tls.Certificate{&expired, &unknown} {
		s.pair.Store(wrong)
		s.restart() // which also forgets the sessions that began with the good one
		eventually(t, "the gateway has noticed", func() (bool, string) {
			n := sumOf(h.mustAsk(t, "/metrics"), "headgate_target_h2_connections")
			return n == 0, fmt.Sprint(n)
		})
		n := asked.Load()
		for range 10 {
			code, body, err := c.post("/secret")
			if err != nil || code != 502 || !strings.Contains(body, `"upstream_untrusted"`) {
				t.Errorf("%d %q %v", code, body, err)
			}
		}
		if asked.Load() != n {
			t.Error("it was asked")
		}
		s.pair.Store(&good)
		if code, body, err := c.post("/again"); err != nil || code != 200 || body != "A /again" {
			t.Errorf("with a good one: %d %q %v", code, body, err)
		}
	}
	c.leave()
	s.stop()
	h.rests(t, before)
}

// A service that takes connections and never shakes hands costs a client the time that it has to connect, and nothing stays.
func TestAServiceThatNeverShakesHands(t *testing.T) {
	t.Parallel()
	f, url := startFault(t, func(c *faulty) { c.untilClosed() })
	h := newHouse(t, "${A}", strings.Replace(url, "http:", "https:", 1))
	h.startOverH2(t, `, tls: {ca: ["${DIR}/ca.crt"]}, timeouts: {connect: 500ms}`)
	before := h.idles(t)
	var group sync.WaitGroup
	for range 20 {
		c := h.caller(t, "h2")
		group.Go(func() {
			began := time.Now()
			code, body, err := c.post("/")
			if err != nil || code != 502 && code != 504 || !strings.Contains(body, `"code"`) {
				t.Errorf("%d %q %v", code, body, err)
			}
			if took := time.Since(began); took < 450*time.Millisecond || took > 25*time.Second {
				t.Errorf("after %v", took)
			}
			c.leave()
		})
	}
	group.Wait()
	eventually(t, "its connections are closed", func() (bool, string) {
		return f.closed.Load() == f.accepted.Load(), fmt.Sprint(f.closed.Load(), f.accepted.Load())
	})
	h.rests(t, before)
}

// A service over HTTP/2 that gives a stream up within its answer breaks that answer, visibly, in every version of HTTP, and no
// other one on the same connection.
func TestAStreamThatIsResetWithinItsAnswerBreaksNoOther(t *testing.T) {
	t.Parallel()
	s := startService(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/broken" {
			named(w, r)
			return
		}
		_, _ = io.WriteString(w, "the beginning of ")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // which this server says by RST_STREAM
	})
	h := newHouse(t, "${A}", "h2c://"+s.address)
	h.startOverH2(t, "")
	before := h.idles(t)
	good := h.flow(t, "h2", 2, time.Millisecond)
	for _, way := range waysIn {
		c := h.caller(t, way)
		for range 20 {
			if code, body, err := c.post("/broken"); err == nil || code != 200 && code != 0 {
				t.Fatalf("%s: %d %q ends well", way, code, body)
			}
		}
		c.leave()
	}
	good.goes(t, 10)
	good.flawless(t, 2)
	h.rests(t, before)
}

// Services that die under open streams end them: gRPC with UNAVAILABLE, WebSockets and TCP by their end. Nobody waits.
func TestStreamsEndWithTheirService(t *testing.T) {
	t.Parallel()
	names := make(chan string, 8)
	kill := make(chan struct{})
	_, dying := startFault(t, func(c *faulty) {
		r, err := http.ReadRequest(c.in)
		if err != nil {
			return
		}
		names <- r.URL.Path
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 section 4.2.2
		c.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
			base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
		<-kill
		c.reset()
	})
	_, echo := startFault(t, func(c *faulty) { <-kill; c.reset() })
	h := startHouse(t, doorsWith(), "${A}", dying, "${G}", "h2c://"+freeAddress(t), "${T}", strings.Replace(echo, "http", "tcp", 1))
	before := h.idles(t)
	var sockets []*webSocket
	for _, open := range []func() *webSocket{
		func() *webSocket { return h.webSocket(t, dial(t, h.listen)) }, func() *webSocket { return h.webSocketH2(t) },
		func() *webSocket { return h.webSocketH3(t) },
	} {
		sockets = append(sockets, open())
		<-names
	}
	raw := dial(t, h.extra)

	if _, err := io.WriteString(raw, "x"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service has the connection", func() (bool, string) { n := h.connections(t); return n == 4, fmt.Sprint(n) })
	close(kill)
	for i, w := range sockets {
		if first, p, err := w.read(); err == nil {
			t.Errorf("WebSocket %d gets %x %q from nobody", i, first, p)
		}
		_ = w.close()
	}
	ends(t, raw)
	nobody := h.grpcLasting(t)
	if err := nobody.echo("x"); grpcstatus.Code(err) != codes.Unavailable {
		t.Errorf("gRPC with nobody there: %v", err)
	}
	_ = nobody.end() // it has ended with an error, and its connection is closed all the same
	h.rests(t, before)
}

// A service that dies while the body of a request is still coming is what its client is told, whatever the two speak: it was
// not the client who went away.
func TestAServiceThatDiesWithinAnUploadIsNamed(t *testing.T) {
	t.Parallel()
	dying := map[string]string{}
	_, dying["h1"] = startFault(t, func(c *faulty) {
		_, _ = http.ReadRequest(c.in) // its head alone
		c.reset()
	})
	s := startService(t, nil, nil)
	s.handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.breakAll() })
	s.restart()
	dying["h2c"] = "h2c://" + s.address
	for out, url := range dying {
		h := newHouse(t, "${A}", url)
		h.startOverH2(t, "")
		before := h.idles(t)
		for range 20 {
			c := connect(t, h.listen)
			if _, err := io.WriteString(c, request("POST /", "Content-Length: 1000")+"some"); err != nil {
				t.Fatal(err)
			}
			if r, err := c.reply("POST"); err != nil || r.status != 502 || !strings.Contains(r.body, "upstream_closed") {
				t.Fatalf("h1 to %s: %+v %v", out, r, err)
			}
			c.Close()
			p := newPeer(t, h.dialTLS(t, "h2"))
			p.send(t, func(f *http2.Framer) error {
				return errors.Join(p.head(f, 1, false, ":method", "POST", ":path", "/", "content-length", "1000"),
					f.WriteData(1, false, []byte("some")))
			})
			a := p.stream(1)
			p.await(t, "an answer", func() bool { return a.over })
			if a.status != "502" || !strings.Contains(string(a.body), "upstream_closed") {
				t.Fatalf("h2 to %s: %s %s", out, a, a.body)
			}
			p.Close()
		}
		h.rests(t, before)
	}
}
