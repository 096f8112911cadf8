package upstream

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
)

// replies are services that each answer every request with the same.
func replies(t *testing.T, texts ...string) (addresses []string, all []*origin) {
	t.Helper()
	for _, text := range texts {
		o := serve(t, answers(text, 0))
		if text == "" {
			o = serve(t, drops)
		}
		all = append(all, o)
		addresses = append(addresses, o.address())
	}
	return addresses, all
}

func saying(status int, fields string) string {
	return fmt.Sprintf("HTTP/1.1 %d Status\r\nContent-Length: 4\r\n%s\r\nwell", status, fields)
}

// pipe is a body of a known length that comes piece by piece.
func pipe(text string) exchange.Body {
	return exchange.Body{Reader: io.MultiReader(strings.NewReader(text[:1]), strings.NewReader(text[1:])), Length: int64(len(text))}
}

// Which failures of the first target are followed by asking the second one, by the defaults and as the document says.
func TestWhichFailuresLeadToAnotherTarget(t *testing.T) {
	grpcUnavailable := "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nGrpc-Status: 14\r\nContent-Length: 0\r\n\r\n"
	for _, c := range []struct {
		name    string
		first   string // what the first target says; "": it closes the connection without a word
		method  string
		field   string // of the request
		body    exchange.Body
		change  func(*model.Retry)
		status  int
		code    string
		again   bool
		elapsed time.Duration // at least
	}{
		{name: "503", first: saying(503, ""), status: 200, again: true},
		{name: "502", first: saying(502, ""), status: 200, again: true},
		{name: "500 is an answer", first: saying(500, ""), status: 500},
		{name: "404 is an answer", first: saying(404, ""), status: 404},
		{name: "404, when told so", first: saying(404, ""), change: func(r *model.Retry) { r.Statuses = []int{404} }, status: 200, again: true},
		{name: "503, when told otherwise", first: saying(503, ""), change: func(r *model.Retry) { r.Statuses = []int{404} }, status: 503},
		{name: "a connection that breaks", status: 200, again: true},
		{name: "a connection that breaks, when told otherwise",
			change: func(r *model.Retry) { r.On = []string{"connect"} }, code: "upstream_closed"},
		{name: "POST", first: saying(503, ""), method: "POST", body: exchange.Text("order"), status: 503},
		{name: "POST, when told so", first: saying(503, ""), method: "POST", body: exchange.Text("order"),
			change: func(r *model.Retry) { r.NonIdempotent = true }, status: 200, again: true},
		{name: "POST with Idempotency-Key", first: saying(503, ""), method: "POST", field: "Idempotency-Key", body: exchange.Text("order"),
			status: 200, again: true},
		{name: "PUT with a body that streams", first: saying(503, ""), method: "PUT", body: pipe("order"), status: 200, again: true},
		{name: "PUT with a body that streams, and a connection that breaks", method: "PUT", body: pipe("order"), status: 200, again: true},
		{name: "PUT with a body that is too long to be kept", first: saying(503, ""), method: "PUT", body: pipe(strings.Repeat("x", 100_000)),
			status: 503},
		{name: "PUT of unknown length", first: saying(503, ""), method: "PUT",
			body: exchange.Body{Reader: io.MultiReader(strings.NewReader("order")), Length: -1}, status: 503},
		{name: "Retry-After within reason is waited for", first: saying(503, "Retry-After: 1\r\n"), status: 200, again: true,
			elapsed: time.Second},
		{name: "Retry-After beyond it goes to the client", first: saying(503, "Retry-After: 2\r\n"), status: 503},
		{name: "Retry-After, where none is waited for", first: saying(503, "Retry-After: 1\r\n"),
			change: func(r *model.Retry) { r.MaxAfter = 0 }, status: 503},
		{name: "Retry-After of no time, where none is waited for", first: saying(503, "Retry-After: 0\r\n"),
			change: func(r *model.Retry) { r.MaxAfter = 0 }, status: 200, again: true},
		{name: "gRPC's UNAVAILABLE without a message", first: grpcUnavailable, field: "Te", status: 200, again: true},
		{name: "gRPC's UNAVAILABLE, when told otherwise", first: grpcUnavailable,
			change: func(r *model.Retry) { r.GRPC = []string{"resource-exhausted"} }, status: 200},
		{name: "no retries", first: saying(503, ""), change: func(r *model.Retry) { r.Attempts = 1 }, status: 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			addresses, all := replies(t, c.first, saying(200, ""))
			u := build(t, env(io.Discard), config(func(m *model.Upstream) {
				m.Balance.Algorithm = "round-robin"
				if c.change != nil {
					c.change(&m.Retry)
				}
			}, addresses...))
			x := ask("GET")
			x.Affinity = u.Pin(addresses[0])
			if c.method != "" {
				x.Request.Method, x.Request.Body = c.method, c.body
			}
			if c.field != "" {
				x.Request.Header.Add(c.field, "1")
			}
			length := c.body.Length
			began := time.Now()
			status, code := send(t, u, x)
			if status != c.status || code != c.code {
				t.Errorf("%d %q, want %d %q", status, code, c.status, c.code)
			}
			if took := time.Since(began); took < c.elapsed {
				t.Errorf("it took %v, want %v or more", took, c.elapsed)
			}
			if again := len(all[1].requests()) > 0; again != c.again {
				t.Errorf("the second target was asked: %v, want %v", again, c.again)
			}
			if c.again && length > 0 && x.Usage.RequestBytes != length {
				t.Errorf("%d bytes of the body are counted, not %d", x.Usage.RequestBytes, length)
			}
			for i, o := range all {
				for _, heard := range o.requests() {
					if length > 0 && !strings.Contains(heard, fmt.Sprintf("Content-Length: %d\r\n", length)) {
						t.Errorf("target %d heard %q", i, heard)
					}
				}
			}
		})
	}
}

// A body arrives whole at the second target, over both versions of HTTP, whichever fails how.
func TestTheBodyIsSentAgain(t *testing.T) {
	for _, version := range []string{"http", "h2c"} {
		for _, size := range []int{5, 20_000, 60_000} {
			text := strings.Repeat("x", size)
			var addresses []string
			var good atomic.Int64
			for i := range 2 {
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if i == 0 {
						w.WriteHeader(http.StatusServiceUnavailable)
						return
					}
					if got, err := io.ReadAll(r.Body); string(got) == text && err == nil {
						good.Add(1)
					}
				})
				s := httptest.NewUnstartedServer(h)
				s.Config.Protocols = new(http.Protocols)
				s.Config.Protocols.SetHTTP1(true)
				s.Config.Protocols.SetUnencryptedHTTP2(true)
				s.Start()
				t.Cleanup(s.Close)
				addresses = append(addresses, s.Listener.Addr().String())
			}
			for _, host := range []string{"pass", "target"} {
				u := build(t, env(io.Discard), config(func(m *model.Upstream) {
					m.Host = host
					for i, a := range addresses {
						m.Targets[i].URL = version + "://" + a
					}
				}, addresses...))
				x := ask("PUT")
				x.Affinity = u.Pin(addresses[0])
				x.Request.Body = pipe(text)
				before := good.Load()
				if status, code := send(t, u, x); status != 200 || good.Load() != before+1 {
					t.Errorf("%s, %d bytes, host %s: %d %q, %d whole bodies arrived", version, size, host, status, code, good.Load()-before)
				}
			}
		}
	}
}

// Of targets that all fail each is asked once, and the last answer is the client's.
func TestEachTargetIsAskedOnce(t *testing.T) {
	addresses, all := replies(t, saying(503, ""), saying(503, ""), saying(503, ""))
	u := build(t, env(io.Discard), config(nil, addresses...))
	for range 5 {
		x := ask("GET")
		if status, code := send(t, u, x); status != 503 || x.Usage.Attempts != 3 {
			t.Errorf("%d %q after %d attempts", status, code, x.Usage.Attempts)
		}
	}
	for i, o := range all {
		if n := len(o.requests()); n != 5 {
			t.Errorf("target %d was asked %d times, want 5", i, n)
		}
	}
}

// Where everything fails, retries are a fifth of the requests, besides ten.
func TestRetriesAreWithinTheirBudget(t *testing.T) {
	addresses, all := replies(t, saying(503, ""), saying(503, ""))
	u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Retry.Backoff = 0 }, addresses...))
	for range 200 {
		if status, code := send(t, u, ask("GET")); status != 503 {
			t.Fatal(status, code)
		}
	}
	if n := len(all[0].requests()) + len(all[1].requests()); n < 240 || n > 250 {
		t.Errorf("%d requests for 200, want 250 at most", n)
	}
}

func TestThePauseEndsWhenTheClientIsGone(t *testing.T) {
	addresses, _ := replies(t, saying(503, "Retry-After: 30\r\n"))
	u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Retry.MaxAfter = time.Minute }, addresses...))
	x := ask("GET")
	time.AfterFunc(50*time.Millisecond, x.Cancel.Cancel)
	began := time.Now()
	if status, code := send(t, u, x); status == 200 || time.Since(began) > 25*time.Second {
		t.Errorf("%d %q after %v", status, code, time.Since(began))
	}
	y := ask("GET")
	y.Cancel.Expire(time.Now(), time.Now().Add(10*time.Second))
	if status, code := send(t, u, y); status != 503 || y.Usage.Attempts != 1 {
		t.Errorf("%d %q after %d attempts: there is not as much time as the pause would take", status, code, y.Usage.Attempts)
	}
	y.Cancel.Rest()
}

func TestRetriesThatTheDocumentCannotMean(t *testing.T) {
	m := config(func(m *model.Upstream) { m.Retry.Statuses, m.Retry.GRPC = []int{200}, []string{"unavailible"} }, "a:1")
	_, err := New("shop", m, env(io.Discard))
	var all []string
	for _, e := range decode.Flatten(err) {
		all = append(all, e.Error())
	}
	got := strings.Join(all, "\n")
	for _, want := range []string{
		"200 is no failure; write statuses from 400 to 599",
		`"unavailible" is no code of gRPC; write cancelled, unknown`, `did you mean "unavailable"?`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks: %s", got, want)
		}
	}
}

// A reply that is given up costs no connection where its body is at hand.
func TestConnectionsOfRepliesThatAreGivenUpAreKept(t *testing.T) {
	accepted := 0
	o := serve(t, func(o *origin, c net.Conn) {
		o.mu.Lock()
		accepted++
		o.mu.Unlock()
		answers(saying(503, ""), 0)(o, c)
	})
	good := serve(t, answers(ok, 0))
	u := build(t, env(io.Discard), config(func(m *model.Upstream) {
		m.Retry.Backoff, m.Ejection.Failures, m.Ejection.Share = 0, 0, 0
	}, o.address(), good.address()))
	for range 10 {
		x := ask("GET")
		x.Affinity = u.Pin(o.address())
		if status, code := send(t, u, x); status != 200 {
			t.Fatal(status, code)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if accepted != 1 || len(o.heard) != 10 {
		t.Errorf("%d connections for %d requests", accepted, len(o.heard))
	}
}
