package upstream

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/pool"
)

// connections returns what operators see of the connections to an upstream's target.
func connections(u *Upstream, i int) pool.Status { return u.Status().Targets[i].Pool }

// unlimited lets as many requests be under way as a test holds up.
func unlimited(m *model.Upstream) { m.Concurrency.Mode = "off" }

// counted counts the connections that a service gets.
func counted(n *atomic.Int32, s script) script {
	return func(o *origin, c net.Conn) { n.Add(1); s(o, c) }
}

func TestAConnectionCarriesNoMoreRequestsThanTheDocumentAllows(t *testing.T) {
	for _, test := range []struct{ most, requests, want, closed int }{{0, 10, 1, 0}, {1, 4, 4, 4}, {3, 10, 4, 3}} {
		var n atomic.Int32
		o := serve(t, counted(&n, answers(ok, 0)))
		u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Pool.MaxRequests = test.most }, o.address()))
		for range test.requests {
			if status, code := send(t, u, ask("GET")); status != 200 {
				t.Fatal(status, code)
			}
		}
		s := connections(u, 0)
		if int(n.Load()) != test.want || s.Closed["requests"] != uint64(test.closed) {
			t.Errorf("at most %d: %d connections for %d requests, %v", test.most, n.Load(), test.requests, s.Closed)
		}
	}
}

func TestAConnectionOverHTTP2CarriesNoMoreRequestsThanTheDocumentAllows(t *testing.T) {
	var mu sync.Mutex
	from := map[string]int{}
	u := build(t, env(io.Discard), config(func(m *model.Upstream) {
		overH2C(m)
		m.Pool.MaxRequests = 5
	}, serveH2C(t, 100, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		from[r.RemoteAddr]++
	})))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				if status, code := send(t, u, ask("GET")); status != 200 {
					t.Error(status, code)
				}
			}
		})
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	total := 0
	for who, n := range from {
		if total += n; n > 5 {
			t.Errorf("%d requests came from %s", n, who)
		}
	}
	if total != 80 {
		t.Errorf("%d requests", total)
	}
	until(t, "the connections that are used up have ended", func() bool { return connections(u, 0).Open <= 1 })
}

// aged is a document whose connections live for about a second.
func aged(m *model.Upstream) { m.Pool.MaxAge = time.Second }

func TestAConnectionThatIsTooOldIsNotUsedAgain(t *testing.T) {
	var n atomic.Int32
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(aged, serve(t, counted(&n, answers(ok, 0))).address()))
	until(t, "another connection has been opened", func() bool {
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Fatal(status, code)
		}
		return n.Load() > 1
	})
	if s := connections(u, 0); s.Closed["age"] == 0 || s.MaxAge != "1s" {
		t.Errorf("%+v", s)
	}
	until(t, "tidying closes what nobody uses", func() bool { u.Tidy(); return connections(u, 0).Open == 0 })
}

func TestAnOldConnectionOverHTTP2FinishesItsStreams(t *testing.T) {
	var n atomic.Int32
	held := make(chan struct{})
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(func(m *model.Upstream) { overH2C(m); aged(m) }, serveH2C(t, 100, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-held
		}
		n.Add(1)
		_, _ = io.WriteString(w, r.RemoteAddr)
	})))
	x := ask("POST")
	call, err := u.Send(x)
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	until(t, "its connection is too old", func() bool { u.Tidy(); return connections(u, 0).H2Conns == 0 })
	if s := connections(u, 0); s.Open != 1 {
		t.Errorf("%+v", s)
	}
	if status, code := send(t, u, ask("GET")); status != 200 { // on another one
		t.Error(status, code)
	}
	close(held)
	if b, err := io.ReadAll(x.Reply.Body.Reader); err != nil || len(b) == 0 {
		t.Errorf("%q, %v", b, err)
	}
	until(t, "it has ended", func() bool { return connections(u, 0).Closed["age"] > 0 && connections(u, 0).Open <= 1 })
}

// hangs answers once it is told to.
func hangs(tell <-chan struct{}) script {
	return func(o *origin, c net.Conn) {
		for o.hear(c) {
			<-tell
			if _, err := io.WriteString(c, ok); err != nil {
				return
			}
		}
	}
}

func TestATargetHasNoMoreConnectionsThanTheDocumentAllows(t *testing.T) {
	for _, test := range []struct {
		name    string
		targets int
		want    string // what a request gets when the first target has none left
	}{
		{"another target is asked", 2, ""},
		{"there is no other", 1, "upstream_busy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tell := make(chan struct{})
			full := serve(t, hangs(tell))
			addresses := []string{full.address()}
			if test.targets == 2 {
				addresses = append(addresses, serve(t, answers(ok, 0)).address())
			}
			u := build(t, env(io.Discard), config(func(m *model.Upstream) {
				unlimited(m)
				m.Pool.Connections = 2
				m.Ejection.Failures = 1
				m.Balance.Algorithm = "round-robin"
			}, addresses...))
			var waiting sync.WaitGroup
			for range 2 {
				waiting.Go(func() {
					for { // until it is the full one's turn
						x := ask("GET")
						if status, code := send(t, u, x); status != 200 {
							t.Error(status, code)
						}
						if x.Usage.Target == full.address() {
							return
						}
					}
				})
			}
			until(t, "both connections are busy", func() bool { return len(full.requests()) == 2 })
			for range 4 {
				if _, code := send(t, u, ask("GET")); code != test.want {
					t.Errorf("%q", code)
				}
			}
			s := u.Status().Targets[0]
			if s.Pool.Open != 2 || s.Pool.Limit != 2 || s.State != "available" || s.Pool.Opened["busy"] == 0 {
				t.Errorf("%+v", s)
			}
			close(tell)
			waiting.Wait()
			if status, code := send(t, u, ask("GET")); status != 200 {
				t.Error(status, code)
			}
		})
	}
}

func TestTunnelsCountAsConnections(t *testing.T) {
	u := build(t, env(io.Discard), config(func(m *model.Upstream) { overTCP(m); m.Pool.Connections = 1 }, serve(t, echo).address()))
	c, release, err := u.Dial(ask0())
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = u.Dial(ask0())
	if e, isOurs := err.(*exchange.Error); !isOurs || e.Code != exchange.UpstreamBusy {
		t.Errorf("%v", err)
	}
	release()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	c, release, err = u.Dial(ask0())
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if s := connections(u, 0); s.Open != 0 || s.Closed["lent"] != 2 {
		t.Errorf("%+v", s)
	}
}

func TestIdleConnectionsOfAllTargetsTogetherAreBounded(t *testing.T) {
	var targets []string
	tell := make(chan struct{})
	var heard atomic.Int32
	for range 4 {
		targets = append(targets, serve(t, func(o *origin, c net.Conn) {
			for o.hear(c) {
				heard.Add(1)
				<-tell
				_, _ = io.WriteString(c, ok)
			}
		}).address())
	}
	e := env(io.Discard)
	u := build(t, e, config(func(m *model.Upstream) { unlimited(m); m.Pool.IdleTotal = 6; m.Balance.Algorithm = "round-robin" }, targets...))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			x := ask("GET")
			x.Shard = uint32(i)
			if status, code := send(t, u, x); status != 200 {
				t.Error(status, code)
			}
		})
	}
	until(t, "all are under way", func() bool { return heard.Load() == 20 })
	close(tell)
	all.Wait()
	idle, surplus := 0, uint64(0)
	for i := range targets {
		s := connections(u, i)
		idle, surplus = idle+s.Idle, surplus+s.Closed["surplus"]
		if !strings.Contains(s.IdleWhy, "idle_total") {
			t.Errorf("%+v", s)
		}
	}
	if idle != 6 || surplus != 14 || e.Sweeper.Len() != 6 {
		t.Errorf("%d idle, %d closed, %d open", idle, surplus, e.Sweeper.Len())
	}
}

func TestIdleConnectionsAreKeptForLessThanTheTargetSays(t *testing.T) {
	const says = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=3, max=100\r\nContent-Length: 2\r\n\r\nok"
	var n atomic.Int32
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(nil, serve(t, counted(&n, answers(says, 0))).address()))
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Fatal(status, code)
	}
	if s := connections(u, 0); s.IdleTime != "2s" || !strings.Contains(s.IdleWhy, "3s") {
		t.Errorf("%+v", s)
	}
	until(t, "it was closed before the target does", func() bool { u.Tidy(); return connections(u, 0).Open == 0 })
	if s := connections(u, 0); s.Closed["idle"] != 1 {
		t.Errorf("%+v", s)
	}
}

// A target that is restarted under 30 idle connections costs no request, whether it says goodbye or not.
func TestOneDeadConnectionClearsAwayTheOthers(t *testing.T) {
	for _, test := range []struct {
		name  string
		quiet bool   // they look well until they are used
		cause string // of closing the rest
	}{
		{"those that the target has closed", false, "dead"},
		{"those that break when they are used", true, "doubt"},
	} {
		t.Run(test.name, func(t *testing.T) {
			const idle = 30
			tell, restart := make(chan struct{}), make(chan struct{})
			const burst = 3
			var n, heard, after atomic.Int32
			together := make(chan struct{}) // so many requests have come over new connections, so none of them is used again before
			o := serve(t, func(o *origin, c net.Conn) {
				if n.Add(1) > idle { // of the new one
					if o.hear(c); after.Add(1) == burst {
						close(together)
					}
					<-together
					_, _ = io.WriteString(c, ok)
					answers(ok, 0)(o, c)
					return
				}
				o.hear(c)
				heard.Add(1)
				<-tell
				_, _ = io.WriteString(c, ok)
				<-restart
				if test.quiet {
					drops(o, c)
				}
			})
			u := build(t, env(io.Discard), config(unlimited, o.address()))
			var all sync.WaitGroup
			for range idle {
				all.Go(func() {
					if status, code := send(t, u, ask("GET")); status != 200 {
						t.Error(status, code)
					}
				})
			}
			until(t, "all are under way", func() bool { return heard.Load() == idle })
			close(tell)
			all.Wait()
			close(restart)
			for range burst {
				all.Go(func() {
					if status, code := send(t, u, ask("GET")); status != 200 {
						t.Error(status, code)
					}
				})
			}
			all.Wait()
			until(t, "none of them is left", func() bool { return connections(u, 0).Open <= burst })
			s := u.Status().Targets[0]
			if s.Failures != 0 || s.State != "available" || !test.quiet && s.Pool.Closed["dead"] == 0 || s.Pool.Closed[test.cause] == 0 {
				t.Errorf("%+v", s)
			}
			if test.quiet && s.Pool.Closed["dead"] > burst {
				t.Errorf("one failure for each connection: %+v", s.Pool.Closed)
			}
		})
	}
}

func TestConnectionsAreOpenedAheadToATargetThatIsAsked(t *testing.T) {
	ca := newAuthority(t)
	tlsConfig := serverTLS(t, ca)
	for name, test := range map[string]struct {
		url   string
		model func(*model.Upstream)
		h2    bool
	}{
		"h1": {serve(t, answers(ok, 0)).address(), nil, false},
		"TLS, HTTP/1.1": {serveTLS(t, tlsConfig.Clone(), false, hello),
			overTLS(model.UpstreamTLS{Insecure: true}), false},
		"TLS, HTTP/2": {serveTLS(t, tlsConfig.Clone(), true, hello), overTLS(model.UpstreamTLS{Insecure: true}), true},
		"h2c":         {serveH2C(t, 100, hello), overH2C, true},
	} {
		t.Run(name, func(t *testing.T) {
			u := build(t, env(io.Discard), config(func(m *model.Upstream) {
				if m.Pool.Preconnect = 3; test.model != nil {
					test.model(m)
				}
				m.HTTP2.Streams = 2
			}, test.url))
			u.Tidy()
			if s := connections(u, 0); s.Open != 0 || s.Ahead != 0 {
				t.Errorf("nobody has asked, and %+v", s)
			}
			if status, code := send(t, u, ask("GET")); status != 200 {
				t.Fatal(status, code)
			}
			until(t, "there is room for three requests", func() bool {
				u.Tidy()
				s := connections(u, 0)
				return !test.h2 && s.Idle >= 3 || test.h2 && s.H2Conns*2 >= 3
			})
			before := connections(u, 0)
			if before.Ahead == 0 || before.Open > 5 {
				t.Errorf("%+v", before)
			}
			if status, code := send(t, u, ask("GET")); status != 200 {
				t.Fatal(status, code)
			}
			if s := connections(u, 0); s.Reused <= before.Reused {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestNothingIsOpenedAheadToWhoTakesNoRequests(t *testing.T) {
	var n atomic.Int32
	u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Pool.Preconnect = 4 }, serve(t, counted(&n, answers(ok, 0))).address()))
	u.set.Load().targets[0].load.SetDown(0, true)
	if status, code := send(t, u, ask("GET")); status != 200 { // there is no other
		t.Fatal(status, code)
	}
	u.Tidy()
	if s := connections(u, 0); s.Ahead != 0 || n.Load() != 1 || s.AheadWhy != "the target takes no requests" {
		t.Errorf("%d connections, %+v", n.Load(), s)
	}
}

func TestATargetThatRefusesIsLeftAloneForAWhile(t *testing.T) {
	u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Pool.Preconnect = 4; m.Ejection.Failures = 0 }, refusing(t)))
	for range 20 {
		if _, code := send(t, u, ask("GET")); code != "upstream_unreachable" {
			t.Errorf("%q", code)
		}
		u.Tidy()
	}
	until(t, "it was noticed", func() bool { return connections(u, 0).AheadWhy != "" })
	if s := connections(u, 0); s.Opened["refused"] > 22 || !strings.Contains(s.AheadWhy, "could not be reached") || s.Open != 0 {
		t.Errorf("%+v", s)
	}
}

// Requests go on while the target is restarted, its connections grow old, are used up and are tidied away.
func TestChurnLosesNoRequest(t *testing.T) {
	for name, overHTTP := range map[string]func(*model.Upstream){"h1": nil, "h2c": overH2C} {
		t.Run(name, func(t *testing.T) {
			e := env(io.Discard)
			sweep(t, e.Sweeper)
			handler := func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Has("close") {
					w.Header().Set("Connection", "close")
				}
				_, _ = io.WriteString(w, "ok")
			}
			server := httptest.NewUnstartedServer(http.HandlerFunc(handler))
			server.Config.Protocols = new(http.Protocols)
			server.Config.Protocols.SetHTTP1(true)
			server.Config.Protocols.SetUnencryptedHTTP2(true)
			server.Start()
			t.Cleanup(server.Close)
			u := build(t, e, config(func(m *model.Upstream) {
				if overHTTP != nil {
					overHTTP(m)
				}
				m.Pool.MaxRequests, m.Pool.MaxAge, m.Pool.IdlePerTarget, m.Pool.IdleTotal, m.Pool.Preconnect = 7, time.Second, 8, 6, 2
				m.HTTP2.Streams = 3
				unlimited(m)
				m.Timeouts.Connect = time.Minute // the machine may be busy
			}, server.Listener.Addr().String()))
			asked := make(chan struct{}, 1)
			var tidying, asking sync.WaitGroup
			tidying.Go(func() {
				for range asked {
					u.Tidy()
					u.changing.Lock()
					for _, t := range u.set.Load().targets {
						old := t.pool.Load()
						t.pool.Store(old.Renewed(u.identity.Load()))
						old.Close()
					}
					u.changing.Unlock()
					_ = u.Status()
				}
			})
			for i := range 8 {
				asking.Go(func() {
					for n := range 200 {
						x := ask("GET")
						x.Shard = uint32(i)
						if n%10 == 0 {
							x.Request.Query, x.Request.HasQuery = "close", true
						}
						if n%20 == 0 {
							select {
							case asked <- struct{}{}:
							default:
							}
						}
						if status, code := send(t, u, x); status != 200 {
							t.Errorf("%d %q after %d attempts", status, code, x.Usage.Attempts)
						}
					}
				})
			}
			asking.Wait()
			close(asked)
			tidying.Wait()
			if err := u.Close(); err != nil {
				t.Error(err)
			}
			until(t, "every connection is closed", func() bool { return e.Sweeper.Len() == 0 && connections(u, 0).Open == 0 })
			s := connections(u, 0)
			closed := uint64(0)
			for _, n := range s.Closed {
				closed += n
			}
			if closed != s.Opened["ok"] || s.Idle != 0 {
				t.Errorf("%d of %d were closed: %v", closed, s.Opened["ok"], s.Closed)
			}
		})
	}
}

func TestWhatOperatorsSeeOfConnections(t *testing.T) {
	u := build(t, env(io.Discard), config(nil, serve(t, answers(ok, 0)).address()))
	for range 4 {
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Fatal(status, code)
		}
	}
	s := connections(u, 0)
	if s.Open != 1 || s.Idle != 1 || s.Opened["ok"] != 1 || s.Reused != 3 || s.Ratio != 0.75 || s.IdleTime != "55s" || s.MaxAge != "1h0m0s" {
		t.Errorf("%+v", s)
	}
	u.Start()
	text := exposition(t, u.env.Metrics)
	for _, want := range []string{
		"headgate_target_connections{", "headgate_target_reused_connections_total{", `outcome="ok"`,
		`headgate_upstream_connect_duration_seconds_count{upstream="shop"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}
