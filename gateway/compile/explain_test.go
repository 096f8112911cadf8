package compile

import (
	"reflect"
	"testing"

	"headgate/gateway/exchange"
)

func TestExplain(t *testing.T) {
	s := newWorld(t).load(`
upstreams: {orders: {targets: [http://127.0.0.1:9000]}}
policies: [probe]
apis:
  shop:
    version: v2
    base_path: /shop
    strip_base_path: true
    upstream: orders
    policies: [{who: {}, when: client.trusted, mode: shadow, on_error: allow}]
    routes:
      an order: {match: "GET /orders/{id}"}
      new order: {match: "POST /orders/new"}
      beta: {match: {path: "/orders/{id}", methods: [GET], headers: {x-beta: "1"}}}
      old: {match: /old/**, redirect: {to: "/shop/orders{request.query}"}}
`)
	got, err := Explain(s, "GET", "http://any.example:8080/shop/orders/new?x=1")
	if err != nil {
		t.Fatal(err)
	}
	want := Explanation{
		Request: "GET http://any.example:8080/shop/orders/new?x=1", Outcome: "matched",
		Reason: "the most specific route that fits host, path, method, header fields and query",
		API:    "shop", Version: "v2", Route: "an order", Written: `apis.shop.routes["an order"]`, Match: "GET /shop/orders/{id}",
		Params: []exchange.Param{{Name: "id", Value: "new"}},
		Others: []Other{
			{`apis.shop.routes["new order"]`, "POST /shop/orders/new", "it is for POST"},
			{"apis.shop.routes.beta", "GET /shop/orders/{id}", "it asks for header x-beta: 1"},
		},
		Policies: []PolicyStep{
			{
				Name: "apis/shop/policies/who", Kind: "who", Stage: "identify", Written: "apis.shop.policies[0]", Does: []string{"request"},
				When: "client.trusted", Shadow: true, OnError: "allow", Why: "written for the API: after those for every request in stage identify",
			},
			{
				Name: "policies/probe", Kind: "probe", Stage: "shape", Written: "policies[0]", Does: []string{"request"},
				OnError: "reject", Why: "written for every request: first in stage shape",
			},
		},
		Upstream: "orders", Targets: []string{"127.0.0.1:9000"}, Path: "/orders/new",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestExplainEveryOutcome(t *testing.T) {
	s := newWorld(t).load(`
upstreams: {orders: http://127.0.0.1:9000}
apis:
  shop:
    hosts: [api.example.com]
    upstream: orders
    routes:
      a: {match: "GET /a/{id}"}
      b: {match: "/a/**"}
      c: {match: "PUT /put"}
      d: {match: "/away", redirect: {to: "https://x.example/"}}
  other: {upstream: orders}
`)
	tests := []struct{ method, url, outcome, written, answer, other string }{
		{"GET", "http://api.example.com/a/1", "matched", "apis.shop.routes.a", "", "less specific: its path has ** where that one has {id}"},
		{"POST", "http://API.example.com/a/1", "matched", "apis.shop.routes.b", "", "it is for GET, HEAD"},
		{"GET", "http://api.example.com/away", "matched", "apis.shop.routes.d", "302 Found to https://x.example/",
			"less specific: it is for every host, not for the host api.example.com"},
		{"GET", "/away", "matched", "apis.other", "", ""},
		{"GET", "http://api.example.com/../x", "refused", "", "", ""},
		{"GET", "http://api.example.com", "matched", "apis.other", "", ""},
	}
	for _, tt := range tests {
		e, err := Explain(s, tt.method, tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		other := ""
		if len(e.Others) > 0 {
			other = e.Others[0].Why
		}
		if e.Outcome != tt.outcome || e.Written != tt.written || e.Answer != tt.answer || other != tt.other {
			t.Errorf("%s %s: %+v", tt.method, tt.url, e)
		}
	}
	if _, err := Explain(s, "GET", "http://%zz/"); err == nil {
		t.Error("nonsense is explained")
	}
	lone := newWorld(t).load("apis: {a: {routes: {r: {match: PUT /put, respond: {body: x}}}}}")
	for method, want := range map[string]string{"GET": "405 with Allow: OPTIONS, PUT", "OPTIONS": "204 with Allow: OPTIONS, PUT"} {
		if e, _ := Explain(lone, method, "/put"); e.Outcome != "no_method" || e.Answer != want {
			t.Errorf("%s: %+v", method, e)
		}
	}
	if e, _ := Explain(lone, "GET", "/none"); e.Outcome != "no_route" || e.Answer != "404 Not Found" {
		t.Errorf("%+v", e)
	}
}
