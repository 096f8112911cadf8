package engine

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// origin is a service that tells what it was asked.
func origin(t *testing.T, h *house) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.note("upstream")
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Asked", r.Method+" "+r.URL.RequestURI())
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(append([]byte("got:"), b...))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestAnExchangeMeetsTheStagesInOrderAndTheReplyInReverse(t *testing.T) {
	h := newHouse(t)
	u := h.upstream(origin(t, h))
	h.serve(rule{path: "/orders", upstream: u, policies: []*policy.Instance{
		h.policy("shape", policy.Shape, nil), h.policy("limit", policy.Limit, nil), h.policy("admit", policy.Admit, nil),
		h.policy("identify", policy.Identify, nil),
	}})
	x, w := h.ask("GET /orders?limit=2")
	want := "admit identify limit shape upstream <shape <limit <identify <admit .admit .identify .limit .shape"
	if got := h.noted(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if w.status != 200 || w.body != "got:" || !strings.Contains(w.header, "GET /orders?limit=2") {
		t.Errorf("%d %q\n%s", w.status, w.body, w.header)
	}
	if x.Route.Name != "/orders" || x.Err != nil || x.Usage.Attempts != 1 || x.ID == "" || !strings.Contains(w.header, x.ID) {
		t.Errorf("%+v", x)
	}
}

func TestWhoEndsAnExchangeEarlyIsAnsweredThroughTheReplysPolicies(t *testing.T) {
	h := newHouse(t)
	u := h.upstream(origin(t, h))
	stop := func(hooks *policy.Hooks) {
		hooks.Request.Now = func(x *exchange.Exchange) policy.Verdict { return policy.Refuse(x, exchange.BadRequest, "no") }
	}
	h.serve(rule{path: "/orders", upstream: u, policies: []*policy.Instance{
		h.policy("a", policy.Admit, nil), h.policy("b", policy.Identify, stop), h.policy("c", policy.Limit, nil),
	}})
	_, w := h.ask("GET /orders")
	if got, want := h.noted(), "a <c <b <a .a .b .c"; got != want || w.status != 400 {
		t.Errorf("%s, want %s; status %d", got, want, w.status)
	}
}

// Whatever happens to an exchange, every Done hook runs once, and the client gets at most one reply.
func TestDoneRunsExactlyOnceHoweverItEnded(t *testing.T) {
	panics := func(*exchange.Exchange) policy.Verdict { panic("a bug") }
	tests := map[string]struct {
		hooks   func(*policy.Hooks)
		wire    func(*exchange.Exchange, *wire)
		path    string
		status  int
		code    string
		aborted bool
	}{
		"a reply":              {path: "/orders", status: 200},
		"a reply of an error":  {path: "/fail", status: 503},
		"a panic in a request": {hooks: func(k *policy.Hooks) { k.Request.Now = panics }, status: 500, code: "internal_error"},
		"a panic in a reply":   {hooks: func(k *policy.Hooks) { k.Response.Now = panics }, status: 500, code: "internal_error"},
		"a panic in Later": {hooks: func(k *policy.Hooks) {
			k.Request.Now = nil
			k.Request.Later = func(context.Context, *exchange.Exchange) policy.Verdict { panic("a bug") }
		}, status: 500, code: "internal_error"},
		"a panic in wrapping a body": {hooks: func(k *policy.Hooks) {
			k.ResponseBody = func(*exchange.Exchange, io.Reader) io.Reader { panic("a bug") }
		}, status: 500, code: "internal_error"},
		"a panic in a body": {hooks: func(k *policy.Hooks) {
			k.ResponseBody = func(*exchange.Exchange, io.Reader) io.Reader { return panicking{} }
		}, status: 200, code: "internal_error", aborted: true},
		"a policy that failed": {hooks: func(k *policy.Hooks) {
			k.Request.Now = func(*exchange.Exchange) policy.Verdict { return policy.Fail(errBroken) }
		}, status: 503, code: "policy_unavailable"},
		"a client that went away": {wire: func(_ *exchange.Exchange, w *wire) { w.broken = errBroken }, status: 200,
			code: "client_gone", aborted: true},
		"a reply cut short": {hooks: func(k *policy.Hooks) {
			k.ResponseBody = func(*exchange.Exchange, io.Reader) io.Reader { return iotest.ErrReader(io.ErrUnexpectedEOF) }
		}, status: 200, code: "upstream_invalid", aborted: true},
		"cancelled before the upstream was asked": {wire: func(x *exchange.Exchange, _ *wire) { x.Cancel.Cancel() }, status: 499,
			code: "client_gone"},
		"a wire that panics": {wire: func(_ *exchange.Exchange, w *wire) { w.before = func() { panic("the wire") } }, status: 0,
			code: "internal_error", aborted: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			u := h.upstream(origin(t, h))
			p := []*policy.Instance{h.policy("a", policy.Admit, nil), h.policy("b", policy.Limit, test.hooks), h.policy("c", policy.Cache, nil)}
			path := test.path
			if path == "" {
				path = "/orders"
			}
			h.serve(rule{path: path, upstream: u, policies: p})
			x, w := request("GET " + path)
			if test.wire != nil {
				test.wire(x, w)
			}
			h.entrance.Serve(x)
			events := strings.Fields(h.noted())
			for _, name := range []string{".a", ".b", ".c"} {
				n := 0
				for _, e := range events {
					if e == name {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%s ran %d times: %v", name, n, events)
				}
			}
			if w.status != test.status || w.replies > 2 || (w.replies > 1 && !test.aborted) {
				t.Errorf("status %d in %d replies, want %d", w.status, w.replies, test.status)
			}
			code := ""
			if x.Err != nil {
				code = x.Err.Code.Name
			}
			if code != test.code || x.Usage.Aborted != test.aborted {
				t.Errorf("%q, aborted: %v; want %q, %v", code, x.Usage.Aborted, test.code, test.aborted)
			}
			if strings.HasPrefix(name, "a panic") && (!strings.Contains(h.log.String(), "stack=") || !strings.Contains(h.log.String(), x.ID)) {
				t.Errorf("the log does not have the stack and the id: %s", h.log)
			}
			if strings.Contains(w.body, "a bug") {
				t.Errorf("the client reads what the bug was: %s", w.body)
			}
			if n := u.Status().Targets[0].InFlight; n != 0 {
				t.Errorf("%d calls are still in flight", n)
			}
			if n := h.engine.Current().pinned(); n != 0 {
				t.Errorf("%d pins are left", n)
			}
		})
	}
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("a bug") }

func TestABodyThatPanicsOnItsWayInterruptsTheClient(t *testing.T) {
	h := newHouse(t)
	h.serve(rule{path: "/", answer: fixed(200, "x"), policies: []*policy.Instance{h.policy("a", policy.Admit, func(k *policy.Hooks) {
		k.ResponseBody = func(*exchange.Exchange, io.Reader) io.Reader { return panicking{} }
	})}})
	if _, w := h.ask("GET /"); !w.interrupted || w.replies != 1 {
		t.Errorf("interrupted: %v, %d replies", w.interrupted, w.replies)
	}
}

func TestMethodsThatNoRouteTakes(t *testing.T) {
	h := newHouse(t)
	h.serve(
		rule{
			path: "/orders", methods: []string{"GET", "POST"}, answer: fixed(200, "list"),
			policies: []*policy.Instance{h.policy("orders", policy.Admit, nil)},
		},
		rule{path: "/own", methods: []string{"OPTIONS"}, answer: fixed(200, "own")},
	)
	for _, test := range []struct {
		line   string
		fields []string
		status int
		allow  string
		events string
	}{
		{"GET /orders", nil, 200, "", "orders <orders .orders"},
		{"HEAD /orders", nil, 200, "", "orders <orders .orders"},
		{"DELETE /orders", nil, 405, "GET, HEAD, OPTIONS, POST", "global <global .global"},
		{"OPTIONS /orders", nil, 204, "GET, HEAD, OPTIONS, POST", "global <global .global"},
		{"OPTIONS /orders", []string{"Origin: https://a.example", "Access-Control-Request-Method: POST"}, 204, "GET, HEAD, OPTIONS, POST",
			"orders <orders .orders"},
		{"OPTIONS /orders", []string{"Access-Control-Request-Method: DELETE"}, 204, "GET, HEAD, OPTIONS, POST", "global <global .global"},
		{"OPTIONS /own", []string{"Access-Control-Request-Method: GET"}, 200, "", ""},
		{"OPTIONS *", nil, 204, "", "global <global .global"},
		{"GET /nowhere", nil, 404, "", "global <global .global"},
		{"OPTIONS /nowhere", nil, 404, "", "global <global .global"},
		{"TRACE /orders", nil, 405, "", "global <global .global"},
		{"CONNECT shop.example:443", nil, 501, "", "global <global .global"},
		{"GET /../orders", nil, 400, "", "global <global .global"},
		{"GET /a%2Fb", nil, 400, "", "global <global .global"},
		{"GET //orders", nil, 400, "", "global <global .global"},
	} {
		t.Run(test.line, func(t *testing.T) {
			x, w := h.ask(test.line, test.fields...)
			if got := x.Reply.Header.Get("Allow"); w.status != test.status || got != test.allow {
				t.Errorf("%d, Allow: %q; want %d, %q", w.status, got, test.status, test.allow)
			}
			if (test.status == 405) != x.Reply.Header.Has("Allow") && test.status != 204 {
				t.Error("RFC 9110 section 15.5.6: a 405 has Allow, others do not need it")
			}
			if got := h.noted(); got != test.events {
				t.Errorf("%q, want %q", got, test.events)
			}
		})
	}
}

func TestADoorMayAllowAmbiguousPaths(t *testing.T) {
	h := newHouse(t)
	h.serve(rule{path: "/**", answer: fixed(200, "")})
	for _, test := range []struct {
		allow, path string
		status      int
	}{
		{"", "/a%2Fb", 400}, {"encoded-slash", "/a%2Fb", 200}, {"empty-segment", "/a%2Fb", 400},
		{"", "/a//b", 400}, {"empty-segment", "/a//b", 200}, {"encoded-slash", "/a//b", 400},
		{"encoded-slash", "/a/../b", 400}, {"empty-segment", "/a/%2e%2E/b", 400},
	} {
		h.entrance.Door.Store(NewDoor("main", model.Listener{AllowPath: []string{test.allow}}, nil))
		if _, w := h.ask("GET " + test.path); w.status != test.status {
			t.Errorf("%s through a door that allows %q: %d, want %d", test.path, test.allow, w.status, test.status)
		}
	}
}

func TestARequestThatHasLoopedIsStopped(t *testing.T) {
	h := newHouse(t)
	h.serve(rule{path: "/**", answer: fixed(200, "")})
	x, w := h.ask("GET /", "Via: "+strings.Repeat("1.1"+pseudonym+", ", maxVia))
	if w.status != 508 || x.Err.Code != exchange.LoopDetected {
		t.Errorf("%d, %v", w.status, x.Err)
	}
}

func TestABodyIsHeldForThePolicyThatWantsToSeeIt(t *testing.T) {
	const limit = 10
	held := func(k *policy.Hooks) { k.BufferLimit = limit }
	for _, test := range []struct {
		name   string
		body   exchange.Body
		expect bool
		status int
		got    string
		code   string
	}{
		{"none", exchange.Body{}, false, 200, "got:", ""},
		{"of a length", exchange.Text("0123456789"), false, 200, "got:0123456789", ""},
		{"of no known length", exchange.Body{Reader: strings.NewReader("0123456789"), Length: -1}, false, 200, "got:0123456789", ""},
		{"that the client asks leave to send", exchange.Text("0123"), true, 200, "got:0123", ""},
		{"too long by its length", exchange.Body{Reader: iotest.ErrReader(errBroken), Length: limit + 1}, false, 413, "", "body_too_large"},
		{"too long as it turns out", exchange.Body{Reader: endless{}, Length: -1}, false, 413, "", "body_too_large"},
		{"that breaks off", exchange.Body{Reader: iotest.ErrReader(errBroken), Length: -1}, false, 499, "", "client_gone"},
		{"that says itself what is wrong", exchange.Body{Reader: iotest.ErrReader(&exchange.Error{Code: exchange.RequestTimeout}), Length: -1},
			false, 408, "", "request_timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			h.serve(rule{path: "/", upstream: h.upstream(origin(t, h)), policies: []*policy.Instance{h.policy("a", policy.Validate, held)}})
			x, w := request("POST /")
			x.Request.Body, x.Request.Expect = test.body, test.expect
			h.entrance.Serve(x)
			if w.status != test.status || (test.got != "" && w.body != test.got) {
				t.Errorf("%d %q", w.status, w.body)
			}
			if (x.Err == nil) != (test.code == "") || x.Err != nil && x.Err.Code.Name != test.code {
				t.Errorf("%v", x.Err)
			}
			if test.expect != (len(w.informed) == 1) {
				t.Errorf("informed: %v", w.informed)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte("x"), len(p))), nil }

func TestARewriteThatIsNotSafeIsRefused(t *testing.T) {
	h := newHouse(t)
	s := h.serve(rule{path: "/old", upstream: h.upstream(origin(t, h))})
	safe := true
	s.Routes[0].Rewrite = func(x *exchange.Exchange) bool { x.Request.Path = "/new"; return safe }
	if _, w := h.ask("GET /old"); !strings.Contains(w.header, "X-Asked: GET /new") {
		t.Errorf("%s", w.header)
	}
	safe = false
	if x, w := h.ask("GET /old"); w.status != 400 || x.Err.Code != exchange.AmbiguousPath {
		t.Errorf("%d, %v", w.status, x.Err)
	}
}

func TestAnUpstreamThatIsAwayIsTheUpstreamsFault(t *testing.T) {
	h := newHouse(t)
	dead := httptest.NewServer(nil)
	dead.Close()
	h.serve(rule{path: "/", upstream: h.upstream(dead.URL)})
	x, w := h.ask("GET /")
	if w.status != 502 || x.Err.Code != exchange.UpstreamUnreachable || x.Err.Source != exchange.FromUpstream {
		t.Errorf("%d, %v", w.status, x.Err)
	}
	if strings.Contains(w.body, "refused") || strings.Contains(w.body, "127.0.0.1") {
		t.Errorf("the client reads internals: %s", w.body)
	}
}

func TestAnInvalidRequestIsAnsweredAndRecordedWithoutPolicies(t *testing.T) {
	h := newHouse(t)
	h.serve()
	x, w := request("")
	x.Err = &exchange.Error{Code: exchange.HeadTooLarge, Source: exchange.FromClient, Detail: "Send less."}
	h.entrance.Refuse(x)
	if w.status != 431 || !strings.Contains(w.body, "Send less.") || !strings.Contains(w.header, "X-Request-Id: "+x.ID) {
		t.Errorf("%d %s\n%s", w.status, w.body, w.header)
	}
	if got := h.noted(); got != "" || x.Client.IP.String() != "203.0.113.9" || h.engine.Current().pinned() != 0 {
		t.Errorf("%q, %v", got, x.Client.IP)
	}
	x, w = request("")
	x.Err, w.broken = &exchange.Error{Code: exchange.BadRequest, Source: exchange.FromClient}, errBroken
	h.entrance.Refuse(x)
	if !x.Usage.Aborted || x.Err.Code != exchange.BadRequest {
		t.Errorf("%+v, %v", x.Usage, x.Err)
	}
}

func TestTheUpstreamsOfASnapshotAreListedOnce(t *testing.T) {
	h := newHouse(t)
	u, v := h.upstream("http://127.0.0.1:1"), h.upstream("http://127.0.0.1:2")
	s := h.serve(rule{path: "/a", upstream: u}, rule{path: "/b", upstream: v}, rule{path: "/c", upstream: u},
		rule{path: "/d", answer: fixed(200, "")})
	if got := s.Upstreams(); len(got) != 2 || got[0] != u || got[1] != v {
		t.Errorf("%v", got)
	}
}
