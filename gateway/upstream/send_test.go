package upstream

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// refusing returns an address where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestAConnectionIsUsedAgain(t *testing.T) {
	o := serve(t, answers(ok, 0))
	u := build(t, env(io.Discard), config(nil, o.address()))
	for range 5 {
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Fatal(code)
		}
	}
	if s := u.Status().Targets[0]; s.Idle != 1 || s.InFlight != 0 || u.env.Sweeper.Len() != 1 {
		t.Errorf("%+v, %d connections", s, u.env.Sweeper.Len())
	}
}

// Whether a request is sent again when the connection that it was sent on dies without a byte of a reply.
func TestWhenARequestIsRepeated(t *testing.T) {
	dies := []script{answersThenDrops(1), answers(ok, 0)} // after one answer, in the middle of the next request
	for _, test := range []struct {
		name    string
		method  string
		body    exchange.Body
		warm    bool     // by one request, so that the connection is a reused one
		scripts []script // of the connections
		status  int
		code    string
		asked   int // how often the service heard it, the warming one not counted
	}{
		{"GET on a reused connection: once more on a fresh one", "GET", exchange.Body{}, true, dies, 200, "", 2},
		{"once more only", "GET", exchange.Body{}, true, []script{answersThenDrops(1), drops}, 0, "upstream_closed", 2},
		{"GET on a fresh connection: the service's own doing", "GET", exchange.Body{}, false, []script{drops}, 0, "upstream_closed", 1},
		{"POST: it may have been done", "POST", exchange.Text("x"), true, dies, 0, "upstream_closed", 1},
		{"PATCH: it may have been done", "PATCH", exchange.Text("x"), true, dies, 0, "upstream_closed", 1},
		{"PUT with its body at hand", "PUT", exchange.Text("x"), true, dies, 200, "", 2},
		{"DELETE", "DELETE", exchange.Body{}, true, dies, 200, "", 2},
		{"PUT with a body that streams", "PUT", exchange.Body{Reader: io.LimitReader(strings.NewReader("xyz"), 1), Length: 1}, true,
			dies, 0, "upstream_closed", 1},
		{"a reply had begun", "GET", exchange.Body{}, true, []script{func(o *origin, c net.Conn) {
			answers(ok, 1)(o, c)
			o.hear(c)
			_, _ = io.WriteString(c, "HTTP/1.1 20")
		}, answers(ok, 0)}, 0, "upstream_closed", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := serve(t, test.scripts...)
			u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Retry.Attempts = 1 }, o.address()))
			warming := 0
			if test.warm {
				warming = 1
				if status, code := send(t, u, ask("GET")); status != 200 {
					t.Fatal(code)
				}
			}
			x := ask(test.method)
			x.Request.Body = test.body
			status, code := send(t, u, x)
			if status != test.status || code != test.code {
				t.Errorf("%d %q, want %d %q", status, code, test.status, test.code)
			}
			until(t, "the service has heard it", func() bool { return len(o.requests()) >= test.asked+warming })
			if asked := len(o.requests()) - warming; asked != test.asked || x.Usage.Attempts != test.asked {
				t.Errorf("asked %d times in %d attempts, want %d", asked, x.Usage.Attempts, test.asked)
			}
			if n := u.Status().Targets[0].Failures; test.status == 200 && n != 0 {
				t.Errorf("%d failures counted against the target", n)
			}
		})
	}
}

func TestATargetThatCannotBeReachedIsPassedOver(t *testing.T) {
	for _, method := range []string{"GET", "POST"} { // nothing was sent, so whatever it is may go elsewhere
		o := serve(t, answers(ok, 0))
		u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Balance.Algorithm = "round-robin" }, refusing(t), o.address()))
		for range 4 {
			x := ask(method)
			if method == "POST" {
				x.Request.Body = exchange.Body{Length: 0}
			}
			if status, code := send(t, u, x); status != 200 || x.Usage.Target != o.address() {
				t.Errorf("%s: %d %q from %s", method, status, code, x.Usage.Target)
			}
		}
	}
}

func TestNobodyCanBeReached(t *testing.T) {
	for n, attempts := range map[int]int{1: 1, 2: 2, 5: maxAttempts} /* each is asked once */ {
		var addresses []string
		for range n {
			addresses = append(addresses, refusing(t))
		}
		u := build(t, env(io.Discard), config(noEjection, addresses...))
		x := ask("GET")
		if _, code := send(t, u, x); code != "upstream_unreachable" || x.Usage.Attempts != attempts {
			t.Errorf("%d targets: %q after %d attempts, want %d", n, code, x.Usage.Attempts, attempts)
		}
	}
}

func TestAServiceHasSoLongToAnswer(t *testing.T) {
	o := serve(t, func(o *origin, c net.Conn) { o.hear(c); o.hear(c) })
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(func(m *model.Upstream) { m.Timeouts.Response = 50 * time.Millisecond }, o.address()))
	x := ask("GET")
	if _, code := send(t, u, x); code != "upstream_timeout" || x.Usage.UpstreamTime < 50*time.Millisecond {
		t.Errorf("%q after %v", code, x.Usage.UpstreamTime)
	}
	if len(o.requests()) != 1 || e.Sweeper.Len() != 0 || u.Status().Targets[0].Failures != 1 {
		t.Errorf("asked %d times, %d connections left", len(o.requests()), e.Sweeper.Len())
	}
}

func TestAnAnswerThatStopsOnItsWayIsNotTakenForAWholeOne(t *testing.T) {
	o := serve(t, func(o *origin, c net.Conn) {
		o.hear(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
		o.hear(c) // until it is given up
	})
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(func(m *model.Upstream) { m.Timeouts.Idle = 50 * time.Millisecond }, o.address()))
	x := ask("GET")
	call, err := u.Send(x)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(x.Reply.Body.Reader); err == nil || string(got) != "hel" {
		t.Errorf("%q, %v", got, err)
	}
	call.Close()
	if e.Sweeper.Len() != 0 {
		t.Error("the connection was kept")
	}
}

func TestAClientThatGoesAwayEndsTheCallAndBlamesNobody(t *testing.T) {
	heard := make(chan struct{})
	o := serve(t, func(o *origin, c net.Conn) { o.hear(c); close(heard); o.hear(c) })
	u := build(t, env(io.Discard), config(nil, o.address()))
	x := ask("GET")
	go func() { <-heard; x.Cancel.Cancel() }()
	if _, code := send(t, u, x); code != "client_gone" {
		t.Errorf("%q", code)
	}
	if s := u.Status().Targets[0]; s.Failures != 0 || s.InFlight != 0 || u.env.Sweeper.Len() != 0 {
		t.Errorf("%+v", s)
	}
	before := ask("GET")
	before.Cancel.Cancel()
	if _, code := send(t, u, before); code != "client_gone" || u.Status().Targets[0].Failures != 0 {
		t.Errorf("gone before a connection was made: %q, %+v", code, u.Status().Targets[0])
	}
}

func TestTheHostThatAServiceIsAskedBy(t *testing.T) {
	for _, test := range []struct{ host, client, want string }{
		{"pass", "shop.example", "shop.example"},
		{"pass", "", "TARGET"}, // HTTP/1.0
		{"target", "shop.example", "TARGET"},
		{"internal.example:81", "shop.example", "internal.example:81"},
	} {
		o := serve(t, answers(ok, 0))
		u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Host = test.host }, o.address()))
		x := ask("GET")
		x.Request.Host = test.client
		if status, code := send(t, u, x); status != 200 {
			t.Fatal(code)
		}
		want := "Host: " + strings.ReplaceAll(test.want, "TARGET", o.address()) + "\r\n"
		if got := o.requests()[0]; !strings.Contains(got, want) {
			t.Errorf("host %q: the service heard\n%s\nwant %s", test.host, got, want)
		}
	}
}

func TestConnectionsThatHaveBeenIdleForTooLongAreTidiedAway(t *testing.T) {
	o := serve(t, answers(ok, 0))
	e := env(io.Discard)
	sweep(t, e.Sweeper)
	u := build(t, e, config(func(m *model.Upstream) { m.Pool.IdleTimeout = 100 * time.Millisecond }, o.address()))
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Fatal(code)
	}
	until(t, "it is closed", func() bool { u.Tidy(); return e.Sweeper.Len() == 0 })
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Errorf("then: %q", code)
	}
}

func TestACallThatOutlivesItsUpstreamLeavesNoConnection(t *testing.T) {
	o := serve(t, answers(ok, 0))
	u := build(t, env(io.Discard), config(nil, o.address()))
	x := ask("GET")
	call, err := u.Send(x)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(x.Reply.Body.Reader); err != nil || string(got) != "ok" {
		t.Errorf("%q, %v", got, err)
	}
	call.Close()
	if n := u.env.Sweeper.Len(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestTargetsThatCannotBeAreRefused(t *testing.T) {
	for _, test := range []struct{ url, address, problem string }{
		{"http://a.example:81", "a.example:81", ""},
		{"http://a.example", "a.example:80", ""},
		{"http://a.example/", "a.example:80", ""},
		{"http://[::1]:81", "[::1]:81", ""},
		{"http://[::1]", "[::1]:80", ""},
		{"a.example:81", "", "is not a target"},
		{"https://a.example", "a.example:443", ""},
		{"ftp://a.example", "", "is not a target"},
		{"http://", "", "is not a target"},
		{"http://a.example/api", "", "rewrite"},
		{"http://a.example?x", "", "more than a host"},
		{"http://a:b@a.example", "", "more than a host"},
		{"http://a b", "", "not a URL"},
	} {
		u, err := New("shop", model.Upstream{Targets: []model.Target{{URL: test.url, Weight: 1}}}, env(io.Discard))
		switch {
		case test.problem == "" && (err != nil || u.set.Load().targets[0].end.Address != test.address):
			t.Errorf("%s: %v", test.url, err)
		case test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)):
			t.Errorf("%s: %v, want %q", test.url, err, test.problem)
		}
	}
	if _, err := New("shop", model.Upstream{}, env(io.Discard)); err == nil || !strings.Contains(err.Error(), "at least one target") {
		t.Errorf("no target: %v", err)
	}
}
