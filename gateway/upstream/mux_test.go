package upstream

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// serveH2C serves a handler over HTTP/2 in clear, with so many streams on a connection (0: many), and returns its address.
func serveH2C(t *testing.T, streams int, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams}}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

// overH2C makes the targets of a document ones over HTTP/2 in clear.
func overH2C(m *model.Upstream) {
	for i := range m.Targets {
		m.Targets[i].URL = strings.Replace(m.Targets[i].URL, "http://", "h2c://", 1)
	}
}

func TestConnectionsAreOpenedAsStreamsRunOutAndThenCallsWait(t *testing.T) {
	release, inside := make(chan struct{}), atomic.Int64{}
	address := serveH2C(t, 10, func(http.ResponseWriter, *http.Request) { inside.Add(1); <-release })
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(func(m *model.Upstream) {
		overH2C(m)
		m.HTTP2.Connections, m.Timeouts.Connect = 3, time.Minute
		unlimited(m)
	}, address))
	var calls sync.WaitGroup
	const asked = 45
	for range asked {
		calls.Go(func() {
			if status, code := send(t, u, ask("GET")); status != 200 {
				t.Error(code)
			}
		})
	}
	until(t, "all streams are taken", func() bool { return inside.Load() == 30 })
	if s := u.Status().Targets[0]; s.H2Conns != 3 || s.H2Streams != 30 || e.Sweeper.Len() != 3 || s.Protocol != "h2" {
		t.Errorf("%+v, %d connections", s, e.Sweeper.Len())
	}
	close(release) // those who wait get the streams that become free
	calls.Wait()
	if inside.Load() != asked {
		t.Errorf("%d requests arrived", inside.Load())
	}
}

func TestWaitingForAStreamEnds(t *testing.T) {
	release := make(chan struct{})
	inside := make(chan struct{}, 1)
	address := serveH2C(t, 0, func(http.ResponseWriter, *http.Request) { inside <- struct{}{}; <-release })
	u := build(t, env(io.Discard), config(func(m *model.Upstream) {
		overH2C(m)
		m.HTTP2.Connections, m.HTTP2.Streams, m.Timeouts.Connect = 1, 1, 200*time.Millisecond
	}, address))
	var first sync.WaitGroup
	first.Go(func() {
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Error(code)
		}
	})
	<-inside
	if _, code := send(t, u, ask("GET")); code != "upstream_busy" {
		t.Errorf("too long: %q", code)
	}
	x := ask("GET")
	time.AfterFunc(10*time.Millisecond, x.Cancel.Cancel)
	if _, code := send(t, u, x); code != "client_gone" {
		t.Errorf("the client is gone: %q", code)
	}
	if n := u.Status().Targets[0].Failures; n != 0 {
		t.Errorf("%d failures counted against a target that did nothing wrong", n)
	}
	close(release)
	first.Wait()
}

func TestATargetThatCannotBeReachedOverHTTP2IsPassedOver(t *testing.T) {
	address := serveH2C(t, 0, hello)
	u := build(t, env(io.Discard), config(func(m *model.Upstream) { overH2C(m); m.Balance.Algorithm = "round-robin" }, refusing(t), address))
	for range 4 {
		x := ask("POST")
		x.Request.Body = exchange.Body{Length: 0}
		if status, code := send(t, u, x); status != 200 || x.Usage.Target != address {
			t.Errorf("%d %q from %s", status, code, x.Usage.Target)
		}
	}
	alone := build(t, env(io.Discard), config(overH2C, refusing(t)))
	if _, code := send(t, alone, ask("GET")); code != "upstream_unreachable" {
		t.Error(code)
	}
}

func TestATargetThatTakesConnectionsAndSaysNothingIsNotReachable(t *testing.T) {
	o := serve(t, func(_ *origin, c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	e := env(io.Discard)
	u := build(t, e, config(func(m *model.Upstream) { overH2C(m); m.Timeouts.Connect = 50 * time.Millisecond }, o.address()))
	for n := range int64(3) {
		if _, code := send(t, u, ask("GET")); code != "upstream_unreachable" {
			t.Error(code)
		}
		if s := u.Status().Targets[0]; s.Failures != n+1 {
			t.Errorf("%+v", s)
		}
	}
	until(t, "the connections are given up", func() bool { return e.Sweeper.Len() == 0 })
}

func TestIdleConnectionsOverHTTP2AreTidiedAway(t *testing.T) {
	address := serveH2C(t, 0, hello)
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(func(m *model.Upstream) { overH2C(m); m.Pool.IdleTimeout = 100 * time.Millisecond }, address))
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Fatal(code)
	}
	until(t, "it is closed", func() bool { u.Tidy(); return e.Sweeper.Len() == 0 && u.Status().Targets[0].H2Conns == 0 })
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Errorf("then: %q", code)
	}
}

// unary is gRPC's echo of bytes without a generated message.
type rawBytes struct{}

func (rawBytes) Marshal(v any) ([]byte, error) { return *(v.(*[]byte)), nil }
func (rawBytes) Unmarshal(b []byte, v any) error {
	*(v.(*[]byte)) = append([]byte(nil), b...)
	return nil
}
func (rawBytes) Name() string { return "proto" }

// serveGRPC serves an echo for every method, and health, and returns the address and the health server.
func serveGRPC(t *testing.T, options ...grpc.ServerOption) (string, *health.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(options, grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		for {
			var m []byte
			if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SendMsg(&m); err != nil {
				return err
			}
		}
	}))...)
	h := health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String(), h
}

// A server that says GOAWAY all the time loses no request: not while it is idle, not in the middle of calls, and of every
// method, since a POST is asked again only when it has not been processed.
func TestGoAwayStormLosesNoRequest(t *testing.T) {
	address, _ := serveGRPC(t, grpc.ForceServerCodec(rawBytes{}), grpc.KeepaliveParams(keepalive.ServerParameters{
		MaxConnectionAge: 20 * time.Millisecond, MaxConnectionAgeGrace: time.Minute,
	}))
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(func(m *model.Upstream) { overH2C(m); m.Timeouts.Connect = 10 * time.Second }, address))
	var calls sync.WaitGroup
	var done, again atomic.Int64
	stop := time.Now().Add(1500 * time.Millisecond)
	for worker := range 32 {
		calls.Go(func() {
			for n := 0; time.Now().Before(stop); n++ {
				message := fmt.Sprintf("worker %d, call %d", worker, n)
				x := grpcCall(message, n%2 == 0)
				call, err := u.Send(x)
				if err != nil {
					t.Errorf("%s: %v after %d attempts", message, err, x.Usage.Attempts)
					return
				}
				got, err := io.ReadAll(x.Reply.Body.Reader)
				if err != nil || len(got) < 5 || string(got[5:]) != message || x.Reply.Trailer.Get("grpc-status") != "0" {
					t.Errorf("%s: %q, %v", message, got, err)
				}
				call.Close()
				done.Add(1)
				if x.Usage.Attempts > 1 {
					again.Add(1)
				}
			}
		})
	}
	calls.Wait()
	t.Logf("%d calls, %d of them made more than once", done.Load(), again.Load())
	if s := u.Status().Targets[0]; s.Failures != 0 || done.Load() == 0 {
		t.Errorf("%+v", s)
	}
}

// leaves is a target's connection over HTTP/2 that ends before it begins.
func leaves(_ *origin, c net.Conn) {
	var said bytes.Buffer
	f := http2.NewFramer(&said, nil)
	_ = f.WriteSettings() // writing to memory does not fail
	_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
	_, _ = c.Write(said.Bytes())
	_, _ = io.Copy(io.Discard, c)
}

// A target may take its leave of a connection before it was used; that costs no request, unless it never does anything else.
func TestGoAwayOnANewConnectionLosesNoRequest(t *testing.T) {
	backend := serveH2C(t, 0, hello)
	for _, proxy := range []string{"", "v1"} {
		var opened atomic.Int32
		leaving := func(o *origin, c net.Conn) {
			opened.Add(1)
			leaves(o, c)
		}
		serving := func(_ *origin, c net.Conn) {
			if proxy != "" {
				if _, err := readLine(c); err != nil {
					t.Error(err)
				}
			}
			relay(t, c, backend)
		}
		for _, test := range []struct {
			scripts []script
			status  int
			code    string
		}{
			{[]script{leaving, serving}, 200, ""},
			{[]script{leaving, leaving, leaving, serving}, 200, ""},
			{[]script{leaving}, 0, "upstream_unreachable"},
		} {
			opened.Store(0)
			m := config(func(m *model.Upstream) { overH2C(m); m.Proxy = proxy }, serve(t, test.scripts...).address())
			x := ask("POST")
			x.Client.Peer = netip.MustParseAddrPort("192.0.2.1:4711")
			x.Client.Local = netip.MustParseAddrPort("198.51.100.7:443")
			status, code := send(t, build(t, env(io.Discard), m), x)
			if status != test.status || code != test.code {
				t.Errorf("proxy %q, %d connections: %d, %q", proxy, opened.Load(), status, code)
			}
			if n := opened.Load(); n > 80 {
				t.Errorf("proxy %q: %d connections were opened for one request", proxy, n)
			}
		}
	}
}

// grpcCall is a unary call; slow: its body comes in pieces.
func grpcCall(message string, slow bool) *exchange.Exchange {
	x := ask("POST")
	x.Request.Path = "/test.Echo/Once"
	x.Request.Header.Add("content-type", "application/grpc")
	frame := string([]byte{0, 0, 0, 0, byte(len(message))}) + message
	x.Request.Body = exchange.Text(frame)
	if slow {
		x.Request.Body = exchange.Body{Reader: io.MultiReader(strings.NewReader(frame[:3]), strings.NewReader(frame[3:])), Length: -1}
	}
	return x
}

// firstProbe returns what the first probe of the first target was told; "": it is well.
func firstProbe(t *testing.T, u *Upstream) string {
	t.Helper()
	u.Start()
	until(t, "a probe", func() bool { return u.Status().Targets[0].LastProbe != nil })
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	return u.Status().Targets[0].Probe
}

func TestGRPCProbes(t *testing.T) {
	address, service := serveGRPC(t)
	http1 := serve(t, answers(ok, 0)).address()
	for _, test := range []struct {
		name, service, address string
		status                 healthpb.HealthCheckResponse_ServingStatus
		why                    string // "": it is well
	}{
		{"the server as a whole", "", address, healthpb.HealthCheckResponse_SERVING, ""},
		{"a service", "shop", address, healthpb.HealthCheckResponse_SERVING, ""},
		{"one that is not serving", "shop", address, healthpb.HealthCheckResponse_NOT_SERVING, "NOT_SERVING"},
		{"one that nobody knows", "else", address, healthpb.HealthCheckResponse_SERVING, "grpc-status 5"},
		{"not gRPC", "", serveH2C(t, 0, hello), 0, "no grpc-status"},
		{"not HTTP/2", "", http1, 0, "does not speak HTTP/2"},
		{"nobody there", "", refusing(t), 0, "refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			service.SetServingStatus("shop", test.status)
			service.SetServingStatus("", test.status)
			e := env(io.Discard)
			u := build(t, e, config(func(m *model.Upstream) {
				overH2C(m)
				m.Health = &model.Health{GRPC: &model.HealthGRPC{Service: test.service}, Interval: time.Hour, Timeout: 5 * time.Second}
			}, test.address))
			if why := firstProbe(t, u); (why == "") != (test.why == "") || !strings.Contains(why, test.why) {
				t.Errorf("%s, want %q", why, test.why)
			}
			if e.Sweeper.Len() != 0 {
				t.Error("a connection is left")
			}
		})
	}
}

func TestHowHealthMayBeAsked(t *testing.T) {
	for _, test := range []struct {
		name, scheme, protocol string
		health                 model.Health
		problem                string
	}{
		{"a path", "http", "auto", model.Health{Path: "/healthz"}, ""},
		{"a connection", "http", "auto", model.Health{TCP: true}, ""},
		{"a connection of bytes", "tcp", "auto", model.Health{TCP: true}, ""},
		{"gRPC", "h2c", "auto", model.Health{GRPC: &model.HealthGRPC{}}, ""},
		{"gRPC over TLS", "https", "auto", model.Health{GRPC: &model.HealthGRPC{}}, ""},
		{"gRPC by prior knowledge", "http", "h2", model.Health{GRPC: &model.HealthGRPC{}}, ""},
		{"nothing", "http", "auto", model.Health{}, "says nothing"},
		{"two ways", "http", "auto", model.Health{Path: "/", TCP: true}, "exclude each other"},
		{"three ways", "h2c", "auto", model.Health{Path: "/", TCP: true, GRPC: &model.HealthGRPC{}}, "exclude each other"},
		{"a path that is none", "http", "auto", model.Health{Path: "healthz"}, "write /healthz"},
		{"gRPC over HTTP/1.1", "http", "auto", model.Health{GRPC: &model.HealthGRPC{}}, "needs HTTP/2"},
		{"gRPC over HTTP/1.1 by choice", "https", "h1", model.Health{GRPC: &model.HealthGRPC{}}, "needs HTTP/2"},
		{"a path of bytes", "tcp", "auto", model.Health{Path: "/"}, "write tcp: true"},
	} {
		m := config2(nil, test.protocol)
		m.Targets = []model.Target{{URL: test.scheme + "://127.0.0.1:1", Weight: 1}}
		m.Health = &test.health
		_, err := New("shop", m, env(io.Discard))
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: %v, want %q", test.name, err, test.problem)
		}
	}
}

func TestProbesOverTheTargetsOwnProtocol(t *testing.T) {
	ca := newAuthority(t)
	proto := make(chan string, 1)
	note := func(w http.ResponseWriter, r *http.Request) { proto <- fmt.Sprint(r.Proto, " ", r.TLS != nil) }
	secure := serveTLS(t, serverTLS(t, ca), true, note)
	clear := serveH2C(t, 0, note)
	for _, test := range []struct {
		url, want string
		health    model.Health
	}{
		{"https://" + secure, "HTTP/2.0 true", model.Health{Path: "/healthz"}},
		{"h2c://" + clear, "HTTP/2.0 false", model.Health{Path: "/healthz"}},
		{"https://" + secure, "", model.Health{TCP: true}},
		{"tls://" + secure, "", model.Health{TCP: true}},
	} {
		m := config(nil)
		m.Targets = []model.Target{{URL: test.url, Weight: 1}}
		m.Health = &test.health
		m.Health.Interval, m.Health.Timeout = time.Hour, 5*time.Second
		if strings.Contains(test.url, secure) {
			m.TLS = &model.UpstreamTLS{CA: []string{ca.file}}
		}
		u := build(t, env(io.Discard), m)
		if why := firstProbe(t, u); why != "" {
			t.Errorf("%s: %s", test.url, why)
		} else if test.want != "" {
			if got := <-proto; got != test.want {
				t.Errorf("%s: asked over %s, want %s", test.url, got, test.want)
			}
		}
		bad := build(t, env(io.Discard), func() model.Upstream {
			if m.TLS == nil {
				m.Targets[0].URL = "https://" + clear
			}
			m.TLS = &model.UpstreamTLS{CA: []string{newAuthority(t).file}}
			return m
		}())
		if firstProbe(t, bad) == "" {
			t.Errorf("%s: well although nobody believes it", test.url)
		}
	}
}

func TestAConnectionOverHTTP2ThatNamedAClientIsForOneRequest(t *testing.T) {
	backend := serveH2C(t, 0, hello)
	named := make(chan string, 3)
	front := serve(t, func(_ *origin, c net.Conn) { // takes the header off and passes the rest on
		line, err := readLine(c)
		named <- line
		if err != nil {
			t.Error(err)
			return
		}
		relay(t, c, backend)
	})
	e := env(io.Discard)
	u := build(t, e, config(func(m *model.Upstream) { overH2C(m); m.Proxy = "v1" }, front.address()))
	for _, client := range []string{"192.0.2.1", "192.0.2.2"} {
		x := ask("GET")
		x.Client.Peer = netip.AddrPortFrom(netip.MustParseAddr(client), 4711)
		x.Client.Local = netip.MustParseAddrPort("198.51.100.7:443")
		if status, code := send(t, u, x); status != 200 {
			t.Fatal(code)
		}
		if got, want := <-named, "PROXY TCP4 "+client+" 198.51.100.7 4711 443"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	until(t, "the connections are closed", func() bool { return e.Sweeper.Len() == 0 })
}

// relay passes a connection on until one side ends.
func relay(t *testing.T, c net.Conn, to string) {
	far, err := net.Dial("tcp", to)
	if err != nil {
		t.Error(err)
		return
	}
	defer far.Close()
	go func() { _, _ = io.Copy(far, c); _ = far.Close() }()
	_, _ = io.Copy(c, far)
}

// readLine reads up to CRLF, and not a byte more.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(line), "\r\n"); {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		line = append(line, b...)
	}
	return strings.TrimSuffix(string(line), "\r\n"), nil
}

// While certificates are renewed again and again, requests go on and none is lost.
func TestRenewalsLoseNoRequest(t *testing.T) {
	ca := newAuthority(t)
	address := serveTLS(t, serverTLS(t, ca), true, hello)
	folder := t.TempDir()
	cert, key := filepath.Join(folder, "c.pem"), filepath.Join(folder, "k.pem")
	save(t, ca.issue(t, nil), cert, key)
	e := env(io.Discard)
	u := build(t, e, config(overTLS(model.UpstreamTLS{
		CA: []string{ca.file}, Certificate: &model.Certificate{Cert: cert, Key: key},
	}), address))
	var calls sync.WaitGroup
	ended := make(chan struct{})
	for range 8 {
		calls.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				if status, code := send(t, u, ask("POST")); status != 200 {
					t.Error(code)
				}
			}
		})
	}
	for n := range 20 {
		before := u.identity.Load()
		save(t, ca.issue(t, func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("n", n+1) }), cert, key)
		until(t, "it is renewed", func() bool { u.Tidy(); return u.identity.Load() != before })
	}
	close(ended)
	calls.Wait()
	if status, code := send(t, u, ask("POST")); status != 200 { // after the last renewal there may have been none
		t.Error(code)
	}
	until(t, "one connection is left", func() bool { return e.Sweeper.Len() == 1 })
}
