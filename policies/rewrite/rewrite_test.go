package rewrite

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headgate/gateway/exchange"
	"headgate/gateway/policy/policytest"
)

// asked is the request line that the upstream gets, and its host; or the refusal's code.
func asked(t *testing.T, options, line string, params ...exchange.Param) string {
	t.Helper()
	b := policytest.Open(t, Kind, options)
	x := b.Exchange(line, "X-Host: tenant.internal:8080", "X-Bad: a/../b")
	x.Params = params
	if !b.Hooks.Request.Now(x).Continues() {
		return x.Err.Code.Name
	}
	r := &x.Request
	target := r.Path
	if r.HasQuery {
		target += "?" + r.Query
	}
	return r.Method + " " + target + " " + r.Host
}

func TestWhatTheUpstreamIsAsked(t *testing.T) {
	id := func(v string) exchange.Param { return exchange.Param{Name: "id", Value: v} }
	for _, c := range []struct {
		options, line string
		params        []exchange.Param
		want          string
	}{
		{`{}`, "GET /a%2Fb?x=1", nil, "GET /a%2Fb?x=1 shop.example.com"},
		{`{strip_prefix: /v1}`, "GET /v1/orders?x", nil, "GET /orders?x shop.example.com"},
		{`{strip_prefix: /v1}`, "GET /v1", nil, "GET / shop.example.com"},
		{`{strip_prefix: /v1}`, "GET /v10/orders", nil, "GET /v10/orders shop.example.com"},
		{`{strip_prefix: /v1/}`, "GET /v1/orders", nil, "GET /orders shop.example.com"},
		{`{add_prefix: /api}`, "GET /orders", nil, "GET /api/orders shop.example.com"},
		{`{strip_prefix: /v1, add_prefix: /v2/}`, "GET /v1/orders", nil, "GET /v2/orders shop.example.com"},
		{`{regex: {match: "^/([^/]+)/(.*)$", with: "/${2}/of/$1"}}`, "GET /a%20b/c", nil, "GET /c/of/a%20b shop.example.com"},
		{`{strip_prefix: /v1, regex: {match: "o", with: "0"}, add_prefix: /x}`, "GET /v1/foo", nil, "GET /x/f00 shop.example.com"},
		{`{path: "/orders/{path.id}/lines"}`, "GET /o?x=1", []exchange.Param{id("7")}, "GET /orders/7/lines?x=1 shop.example.com"},
		{`{path: "/orders/{path.id}"}`, "GET /o", []exchange.Param{id("a b/c?d#e%2e;ü")}, "GET /orders/a%20b%2Fc%3Fd%23e%252e%3B%C3%BC shop.example.com"},
		{`{method: PUT}`, "POST /a", nil, "PUT /a shop.example.com"},
		{`{method: POST}`, "HEAD /a", nil, "HEAD /a shop.example.com"},
		{`{host: orders.internal}`, "GET /a", nil, "GET /a orders.internal"},
		{`{host: "{header.x-host}"}`, "GET /a", nil, "GET /a tenant.internal:8080"},
		{`{query: {remove: [a]}}`, "GET /?a=1&b=%7e&%61=2&c&a", nil, "GET /?b=%7e&c shop.example.com"},
		{`{query: {remove: [a]}}`, "GET /?a=1", nil, "GET / shop.example.com"},
		{`{query: {remove: [a]}}`, "GET /?", nil, "GET /? shop.example.com"},
		{`{query: {set: {a: "x {request.method}&y", "b c": z}}}`, "GET /?a=1&b+c=2&d=3", nil, "GET /?d=3&a=x+GET%26y&b+c=z shop.example.com"},
		{`{query: {add: {a: "{request.method}", n: "{header.x-none}"}}}`, "GET /?a=1", nil, "GET /?a=1&a=GET shop.example.com"},
		{`{query: {set: {a: "{header.x-none}"}}}`, "GET /?a=forged", nil, "GET / shop.example.com"},
		// What comes from outside and would change the shape of the request is refused.
		{`{path: "/orders/{path.id}"}`, "GET /o", []exchange.Param{id("..")}, "rewrite_invalid"},
		{`{path: "/orders/{path.id}/x"}`, "GET /o", []exchange.Param{id(".")}, "rewrite_invalid"},
		{`{path: "/orders/{path.id}"}`, "GET /o", []exchange.Param{id("..;a")}, "rewrite_invalid"},
		{`{path: "/orders/{path.id}"}`, "GET /o", []exchange.Param{id("a/../../admin")}, "rewrite_invalid"},
		{`{path: "/orders/{path.id}"}`, "GET /o", []exchange.Param{id(`..\..`)}, "rewrite_invalid"},
		{`{path: "/orders/{path.id}"}`, "GET /o", []exchange.Param{id("a\r\nb")}, "rewrite_invalid"},
		{`{path: "/orders/{path.id}"}`, "GET /o", []exchange.Param{id("\xc0\xae\xc0\xae")}, "rewrite_invalid"},
		{`{path: "/orders/{path.id}"}`, "GET /o", []exchange.Param{id(strings.Repeat("x", 20000))}, "rewrite_invalid"},
		{`{path: "/orders/{path.id}"}`, "GET /o", []exchange.Param{id("...")}, "GET /orders/... shop.example.com"},
		{`{path: "/orders{path.id}"}`, "GET /o", []exchange.Param{id("..")}, "GET /orders.. shop.example.com"},
		{`{regex: {match: "x", with: ""}}`, "GET /a/.x./b", nil, "rewrite_invalid"},
		{`{regex: {match: "%25", with: "%"}}`, "GET /a/%252e%252E/b", nil, "rewrite_invalid"},
		{`{regex: {match: "^/", with: ""}}`, "GET /a", nil, "rewrite_invalid"},
		{`{host: "{header.x-bad}"}`, "GET /a", nil, "rewrite_invalid"},
		{`{host: "{header.x-none}"}`, "GET /a", nil, "rewrite_invalid"},
	} {
		if got := asked(t, c.options, c.line, c.params...); got != c.want {
			t.Errorf("%s: %s asks %q, want %q", c.options, c.line, got, c.want)
		}
	}
}

func TestNoCapturedValueLeavesItsSegment(t *testing.T) {
	b := policytest.Open(t, Kind, `{path: "/tenants/{path.id}/orders"}`)
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.OneOf(rapid.String(), rapid.StringMatching(`([./;%\\]|%2[eEfF]|%5c|a){0,12}`)).Draw(rt, "captured")
		x := b.Exchange("GET /o")
		x.Params = []exchange.Param{{Name: "id", Value: value}}
		if !b.Hooks.Request.Now(x).Continues() {
			if x.Request.Path != "/o" || x.Reply.Status != 400 {
				rt.Fatalf("refused with %d, and the path is %s", x.Reply.Status, x.Request.Path)
			}
			return
		}
		for _, reader := range []func(string) string{ // programs that clean before, and after they decode
			func(p string) string { return path.Clean(p) },
			func(p string) string { p, _ = url.PathUnescape(p); return path.Clean(p) },
			func(p string) string {
				p, _ = url.PathUnescape(p)
				return path.Clean(strings.ReplaceAll(p, `\`, "/"))
			},
		} {
			got := reader(x.Request.Path)
			if value != "" && (!strings.HasPrefix(got, "/tenants/") || !strings.HasSuffix(got, "/orders")) {
				rt.Fatalf("%q became %s, which somebody reads as %s", value, x.Request.Path, got)
			}
		}
		if strings.Count(x.Request.Path, "/") != 3 {
			rt.Fatalf("%q became %s", value, x.Request.Path)
		}
	})
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{`{path: /a, add_prefix: /b}`, `path gives the whole path, so strip_prefix, regex and add_prefix beside it would be lost`},
		{`{path: "/a?b={path.id}"}`, `"/a?b={path.id}" makes no path: it has a character that must be percent-encoded`},
		{`{path: "/a/../{path.id}"}`, `a dot segment`},
		{`{path: a}`, `path`},
		{`{path: "/{nothing}"}`, `nothing`},
		{`{strip_prefix: /a/..}`, `"/a/.." is no beginning of a path: it has a dot segment`},
		{`{add_prefix: "/a b"}`, `"/a b" is no beginning of a path`},
		{`{regex: {match: "("}}`, `not a regular expression (RE2): missing closing )`},
		{`{regex: {with: "x"}}`, `there is no match that it replaces`},
		{`{regex: {match: "(a)", with: "$1b"}}`, `$1b stands for the group "1b", which the expression does not have; write ${1}`},
		{`{regex: {match: "(a)", with: "${2}"}}`, `stands for the group "2"`},
		{`{method: "A B"}`, `"A B" is not a method`},
		{`{method: HEAD}`, `the upstream cannot be asked with HEAD`},
		{`{host: "a b"}`, `"a b" is not a host`},
		{`{query: {set: {"": a}}}`, `a parameter has no name`},
	} {
		if got := policytest.Wrong(t, Kind, c.options); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want something with %q", c.options, got, c.want)
		}
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"a.example": true, "a.example:80": true, "[::1]": true, "[::1]:8080": true, "192.0.2.1:9": true,
		"": false, ":80": false, "a b": false, "a/b": false, "a@b": false, "a:b": false, "a:123456": false,
		"[a": false, "[1]": false, "a\r\nb": false,
	} {
		if got := validHost(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func FuzzWrongPath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/a%2f..%2fb", "/%2e%2E;x/", "/%c0%ae", "/a\\b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if wrongPath(s) != "" {
			return
		}
		plain, err := url.PathUnescape(s)
		if err != nil {
			t.Fatalf("%q was accepted: %v", s, err)
		}
		for segment := range strings.SplitSeq(plain, "/") {
			if before, _, _ := strings.Cut(segment, ";"); before == "." || before == ".." {
				t.Fatalf("%q was accepted with the segment %q", s, segment)
			}
		}
	})
}

func TestStrippingCostsNoAllocation(t *testing.T) {
	b := policytest.Open(t, Kind, `{strip_prefix: /v1, method: GET}`)
	x := b.Exchange("GET /v1/orders/7")
	if n := testing.AllocsPerRun(100, func() {
		x.Request.Path = "/v1/orders/7"
		b.Hooks.Request.Now(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
