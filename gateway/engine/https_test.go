package engine

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// proofs is an authority's challenge that is being answered.
type proofs map[string]string

func (p proofs) Answer(host, token string) (string, bool) {
	a, ok := p[host+" "+token]
	return a, ok
}

// door gives the house's entrance another listener.
func (h *house) door(l model.Listener, trusted ...string) {
	l.Forwarded = "none"
	var prefixes []netip.Prefix
	for _, s := range trusted {
		prefixes = append(prefixes, netip.MustParsePrefix(s))
	}
	h.entrance.Door.Store(NewDoor("main", l, prefixes))
}

// knockAt serves a request after it was changed.
func (h *house) knockAt(line string, change func(*exchange.Exchange)) (*exchange.Exchange, *wire) {
	x, w := request(line)
	if change != nil {
		change(x)
	}
	h.entrance.Serve(x)
	return x, w
}

func redirecting(h *house, port, status int) {
	h.serve(rule{path: "/orders", answer: func(x *exchange.Exchange) { x.Answer(200, "", "") },
		policies: []*policy.Instance{h.policy("limit", policy.Limit, nil)}})
	h.door(model.Listener{Redirect: &model.HTTPSRedirect{Port: port, Status: status}}, "10.0.0.0/8")
}

func TestADoorThatRedirectsSendsEverybodyToHTTPS(t *testing.T) {
	for _, test := range []struct {
		line, host, query string
		port              int
		want              string
	}{
		{"GET /orders", "shop.example", "", 443, "https://shop.example/orders"},
		{"GET /nowhere", "shop.example:8080", "", 8443, "https://shop.example:8443/nowhere"},
		{"POST /a%2Fb/../c?x=%20&y", "[::1]:80", "", 443, "https://[::1]/a%2Fb/../c?x=%20&y"},
		{"GET /?", "shop.example:", "", 443, "https://shop.example/?"},
		{"OPTIONS *", "shop.example", "", 443, "https://shop.example"},
		{"TRACE /", "shop.example", "", 443, "https://shop.example/"},
	} {
		h := newHouse(t)
		redirecting(h, test.port, 308)
		x, w := h.knockAt(test.line, func(x *exchange.Exchange) {
			x.Request.Host = test.host
			if strings.HasSuffix(test.line, "?") {
				x.Request.HasQuery = true
			}
		})
		if w.status != 308 || x.Reply.Header.Get("Location") != test.want || w.body != "" {
			t.Errorf("%s: %d %q %q, want %q", test.line, w.status, w.header, w.body, test.want)
		}
		if got := h.noted(); got != "" || x.Err != nil || x.ID == "" || !strings.Contains(w.header, x.ID) {
			t.Errorf("%s: policies %q, error %v, id %q; a redirect has no policy and is recorded", test.line, got, x.Err, x.ID)
		}
	}
}

func TestARedirectWithoutAHostIsABadRequest(t *testing.T) {
	h := newHouse(t)
	redirecting(h, 443, 308)
	x, w := h.knockAt("GET /orders", func(x *exchange.Exchange) { x.Request.Host = "" })
	if w.status != 400 || x.Err.Code != exchange.BadRequest {
		t.Errorf("%d %v", w.status, x.Err)
	}
}

func TestWhoCameByHTTPSIsNotRedirected(t *testing.T) {
	h := newHouse(t)
	redirecting(h, 443, 301)
	secure := func(x *exchange.Exchange) {
		x.Request.Host = "shop.example"
		x.Client.Peer = netip.MustParseAddrPort("10.0.0.1:4711")
		x.Request.Header.Add("X-Forwarded-Proto", "https")
	}
	if _, w := h.knockAt("GET /orders", secure); w.status != 200 {
		t.Errorf("behind a trusted proxy that had it by https: %d, which would never end", w.status)
	}
	stranger := func(x *exchange.Exchange) { secure(x); x.Client.Peer = netip.MustParseAddrPort("203.0.113.9:1") }
	if _, w := h.knockAt("GET /orders", stranger); w.status != 301 {
		t.Errorf("of anybody who says so: %d", w.status)
	}
}

func TestChallengesAreAnsweredInClearBeforeAnythingElse(t *testing.T) {
	h := newHouse(t)
	redirecting(h, 443, 308)
	h.engine.Challenges = proofs{"shop.example tok-1": "tok-1.thumb"}
	ask := func(line, host string, over *exchange.TLS) (int, string) {
		_, w := h.knockAt(line, func(x *exchange.Exchange) { x.Request.Host, x.Client.TLS = host, over })
		return w.status, w.body
	}
	if status, body := ask("GET /.well-known/acme-challenge/tok-1", "shop.example:80", nil); status != 200 || body != "tok-1.thumb" {
		t.Errorf("%d %q", status, body)
	}
	for _, test := range []struct {
		line, host string
		over       *exchange.TLS
		status     int
	}{
		{"GET /.well-known/acme-challenge/other", "shop.example", nil, 308},
		{"GET /.well-known/acme-challenge/tok-1", "other.example", nil, 308},
		{"POST /.well-known/acme-challenge/tok-1", "shop.example", nil, 308},
		{"GET /.well-known/acme-challenge/tok-1", "shop.example", &exchange.TLS{}, 404},
	} {
		if status, body := ask(test.line, test.host, test.over); status != test.status || strings.Contains(body, "thumb") {
			t.Errorf("%s of %s: %d %q, want %d", test.line, test.host, status, body, test.status)
		}
	}
}

func TestHSTSIsOnEveryReplyOverTLSAndOnNoneInClear(t *testing.T) {
	const field = "max-age=31536000; includeSubDomains; preload"
	h := newHouse(t)
	h.serve(rule{path: "/orders", answer: func(x *exchange.Exchange) {
		x.Answer(200, "", "")
		x.Reply.Header.Add("strict-transport-security", "max-age=1") // what a service says about itself
	}})
	h.door(model.Listener{TLS: &model.ListenerTLS{HSTS: &model.HSTS{MaxAge: 365 * 24 * time.Hour, Subdomains: true, Preload: true}}})
	over := func(x *exchange.Exchange) { x.Client.TLS = &exchange.TLS{} }
	for _, line := range []string{"GET /orders", "GET /nowhere"} {
		x, _ := h.knockAt(line, over)
		if got := x.Reply.Header.Joined("Strict-Transport-Security"); got != field {
			t.Errorf("%s: %q", line, got)
		}
	}
	x, _ := request("GET /")
	over(x)
	x.Err = &exchange.Error{Code: exchange.HeadTooLarge, Source: exchange.FromClient}
	h.entrance.Refuse(x)
	if got := x.Reply.Header.Joined("Strict-Transport-Security"); got != field {
		t.Errorf("a refused request: %q", got)
	}
	if x, _ := h.knockAt("GET /nowhere", nil); x.Reply.Header.Has("Strict-Transport-Security") {
		t.Error("in clear (RFC 6797 section 7.2)")
	}
}

func TestHSTSIsRenderedOnce(t *testing.T) {
	for want, h := range map[string]*model.HSTS{
		"":                             nil,
		"max-age=0":                    {},
		"max-age=90":                   {MaxAge: 90*time.Second + 700*time.Millisecond},
		"max-age=60; preload":          {MaxAge: time.Minute, Preload: true},
		"max-age=1; includeSubDomains": {MaxAge: time.Second, Subdomains: true},
	} {
		if got := hsts(h); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAConnectionForAnotherHostIsMisdirected(t *testing.T) {
	h := newHouse(t)
	h.serve(rule{path: "/orders", answer: func(x *exchange.Exchange) { x.Answer(200, "", "") }})
	h.door(model.Listener{}, "10.0.0.0/8")
	covers := func(host string) bool { return host == "shop.example" || host == "api.example" }
	named, unknown, nameless := &exchange.TLS{ServerName: "shop.example", Serves: covers},
		&exchange.TLS{ServerName: "other.example", Serves: covers}, &exchange.TLS{Serves: covers}
	const trusted = "10.1.2.3:4711"
	for _, test := range []struct {
		over       *exchange.TLS
		host, peer string
		want       int
	}{
		{named, "shop.example", "", 200},
		{named, "SHOP.example.:8443", "", 200},
		{named, "api.example", "", 200}, // the certificate is for both: RFC 9113 section 9.1.1
		{named, "other.example", "", 421},
		{named, "127.0.0.1", "", 421},
		{named, "", "", 421},
		{named, "other.example", trusted, 200}, // a proxy carries the requests of many over one connection
		{unknown, "other.example", "", 200},    // it was content with the first certificate
		{unknown, "shop.example", "", 200},
		{unknown, "third.example", "", 421},
		{nameless, "192.0.2.7", "", 200}, // it was given an address
		{nameless, "other.example", "", 200},
		{&exchange.TLS{ServerName: "shop.example"}, "other.example", "", 200},
		{nil, "other.example", "", 200},
	} {
		x, w := h.knockAt("GET /orders", func(x *exchange.Exchange) {
			x.Request.Host, x.Client.TLS = test.host, test.over
			if test.peer != "" {
				x.Client.Peer = netip.MustParseAddrPort(test.peer)
			}
		})
		if w.status != test.want {
			t.Errorf("%q over %+v: %d, want %d", test.host, test.over, w.status, test.want)
		}
		if w.status == 421 && (x.Err.Code != exchange.Misdirected || !strings.Contains(w.body, "misdirected_request")) {
			t.Errorf("%v %s", x.Err, w.body)
		}
	}
}

func TestTheWayPastTheDoorAllocatesNothing(t *testing.T) {
	h := newHouse(t)
	h.engine.Challenges = proofs{}
	x, _ := request("GET /orders")
	c := carriage{engine: h.engine, door: h.entrance.Door.Load(), x: x}
	if n := testing.AllocsPerRun(100, func() {
		if c.atDoor() || misdirected(x) {
			t.Fatal("it was answered")
		}
		c.door.secure(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
