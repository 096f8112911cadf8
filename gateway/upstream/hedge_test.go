package upstream

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// stuck hears requests and answers none until the connection is closed, which it counts.
func stuck(ended *atomic.Int64) script {
	return func(o *origin, c net.Conn) {
		if o.hear(c) {
			_, _ = c.Read(make([]byte, 1))
			ended.Add(1)
		}
	}
}

func hedgedAfter(after time.Duration, extra int) func(*model.Upstream) {
	return func(m *model.Upstream) { m.Hedge = &model.Hedge{After: after, Extra: extra} }
}

func hedging20ms(m *model.Upstream) { hedgedAfter(20*time.Millisecond, 100)(m) }

func TestASecondTargetAnswersForOneThatIsStuck(t *testing.T) {
	var ended atomic.Int64
	slow, quick := serve(t, stuck(&ended)), serve(t, answers(saying(200, "X-Who: quick\r\n"), 0))
	u := build(t, env(io.Discard), config(hedging20ms, slow.address(), quick.address()))
	for n, body := range []exchange.Body{{}, pipe("order")} {
		x := ask("PUT")
		x.Affinity, x.Request.Body = u.Pin(slow.address()), body
		call, err := u.Send(x)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(x.Reply.Body.Reader)
		if string(text) != "well" || err != nil || x.Reply.Header.Get("X-Who") != "quick" || x.Usage.Target != quick.address() {
			t.Errorf("%q, %v, from %s", text, err, x.Usage.Target)
		}
		if x.Usage.Attempts != 2 {
			t.Errorf("%d attempts", x.Usage.Attempts)
		}
		call.Close()
		until(t, "the call that lost is ended", func() bool { return ended.Load() == int64(n)+1 })
	}
	for _, s := range u.Status().Targets {
		if s.InFlight != 0 {
			t.Errorf("%s: %d in flight", s.Address, s.InFlight)
		}
	}
}

func TestAQuickTargetIsAskedAlone(t *testing.T) {
	a, b := serve(t, answers(ok, 0)), serve(t, answers(ok, 0))
	u := build(t, env(io.Discard), config(hedgedAfter(time.Minute, 100), a.address(), b.address()))
	for range 20 {
		x := ask("GET")
		if status, code := send(t, u, x); status != 200 || x.Usage.Attempts != 1 {
			t.Errorf("%d %q, %d attempts", status, code, x.Usage.Attempts)
		}
	}
	if n := len(a.requests()) + len(b.requests()); n != 20 {
		t.Errorf("%d requests", n)
	}
}

// What is never asked twice: what may not be repeated, and what streams.
func TestWhatIsNotHedged(t *testing.T) {
	for _, c := range []struct {
		method string
		body   exchange.Body
	}{
		{"POST", exchange.Text("order")},
		{"PUT", exchange.Body{Reader: io.MultiReader(strings.NewReader("order")), Length: -1}},
		{"PUT", pipe(strings.Repeat("x", 100_000))},
	} {
		slow := serve(t, func(o *origin, c net.Conn) {
			if o.hear(c) {
				time.Sleep(100 * time.Millisecond) // longer than the hedge waits
				_, _ = io.WriteString(c, ok)
				_, _ = io.Copy(io.Discard, c)
			}
		})
		other := serve(t, answers(ok, 0))
		u := build(t, env(io.Discard), config(hedging20ms, slow.address(), other.address()))
		x := ask(c.method)
		x.Affinity, x.Request.Body = u.Pin(slow.address()), c.body
		if status, code := send(t, u, x); status != 200 || len(other.requests()) != 0 {
			t.Errorf("%s: %d %q, the other was asked %d times", c.method, status, code, len(other.requests()))
		}
	}
}

func TestHedgesAreWithinTheirShare(t *testing.T) {
	a := serve(t, func(o *origin, c net.Conn) {
		for o.hear(c) {
			time.Sleep(5 * time.Millisecond) // longer than the hedge waits
			if _, err := io.WriteString(c, ok); err != nil {
				return
			}
		}
	})
	u := build(t, env(io.Discard), config(hedgedAfter(time.Nanosecond, 10), a.address(), a.address()))
	asked := 0
	for range 100 {
		x := ask("GET")
		if status, code := send(t, u, x); status != 200 {
			t.Fatal(status, code)
		}
		asked += x.Usage.Attempts
	}
	if asked > 110 || asked < 105 {
		t.Errorf("%d requests for 100, want 110 at most", asked)
	}
}

func TestWhenBothFailTheFirstErrorIsTold(t *testing.T) {
	var ended atomic.Int64
	a, b := serve(t, drops), serve(t, drops)
	u := build(t, env(io.Discard), config(hedging20ms, a.address(), b.address()))
	if status, code := send(t, u, ask("GET")); status != 0 || code != "upstream_closed" {
		t.Errorf("%d %q", status, code)
	}
	c, d := serve(t, stuck(&ended)), serve(t, stuck(&ended))
	u = build(t, env(io.Discard), config(hedging20ms, c.address(), d.address()))
	x := ask("GET")
	go func() {
		until(t, "both are asked", func() bool { return len(c.requests())+len(d.requests()) == 2 })
		x.Cancel.Cancel()
	}()
	if status, code := send(t, u, x); status != 0 || code != "client_gone" {
		t.Errorf("%d %q", status, code)
	}
	until(t, "both are ended", func() bool { return ended.Load() == 2 })
}

// A reply that a race has led to is a reply like any other: over both versions of HTTP, with a long body and its trailer.
func TestTheWholeReplyOfARaceArrives(t *testing.T) {
	for _, version := range []string{"http", "h2c"} {
		release := make(chan struct{})
		var addresses []string
		for i := range 2 {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if i == 0 {
					select {
					case <-release:
					case <-r.Context().Done():
					}
					return
				}
				w.Header().Set("Trailer", "X-Sum")
				for range 100 {
					_, _ = w.Write(make([]byte, 10_000))
				}
				w.Header().Set("X-Sum", "all")
			}))
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetHTTP1(true)
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Start()
			t.Cleanup(s.Close)
			addresses = append(addresses, s.Listener.Addr().String())
		}
		u := build(t, env(io.Discard), config(func(m *model.Upstream) {
			hedging20ms(m)
			for i, a := range addresses {
				m.Targets[i].URL = version + "://" + a
			}
		}, addresses...))
		x := ask("GET")
		x.Affinity = u.Pin(addresses[0])
		call, err := u.Send(x)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, x.Reply.Body.Reader)
		if n != 1_000_000 || err != nil || x.Reply.Trailer.Get("X-Sum") != "all" {
			t.Errorf("%s: %d bytes, %v, trailer %q", version, n, err, x.Reply.Trailer.Get("X-Sum"))
		}
		call.Close()
		close(release)
	}
}
