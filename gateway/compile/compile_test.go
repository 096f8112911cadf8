package compile

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"headgate/gateway/exchange"
)

func TestTheSmallestDocument(t *testing.T) {
	w := newWorld(t)
	s := w.load("upstreams: {echo: http://127.0.0.1:9000}\napis:\n  all: {upstream: echo}\n")
	if d := s.Doors["public"]; d == nil || d.Config.Address != ":8080" || d.Config.Limits.HeaderFields != 100 {
		t.Errorf("doors: %+v", s.Doors)
	}
	r, x := ask(t, s, "GET any.example/a/b")
	if r.Upstream == nil || r.Upstream.Name != "echo" || x.Request.Path != "/a/b" || r.Name != "apis.all" || r.Info.Name != "(all)" {
		t.Errorf("route: %+v", r)
	}
	if len(s.Version) != 10 || s.Compiled.IsZero() || w.engine.Current() != s {
		t.Errorf("%q, %v", s.Version, s.Compiled)
	}
}

// Each document under testdata is refused with exactly the lines of the file beside it.
func TestEveryMistakeIsToldAtOnceAtItsPlace(t *testing.T) {
	documents, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(documents) == 0 {
		t.Fatal(err, "no documents")
	}
	for _, name := range documents {
		t.Run(filepath.Base(name), func(t *testing.T) {
			want, err := os.ReadFile(strings.TrimSuffix(name, "yaml") + "txt")
			if err != nil {
				t.Fatal(err)
			}
			doc, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("COMPILE_TEST_SECRET", "one")
			w := newWorld(t)
			got := strings.Join(w.refuse(string(doc)), "\n") + "\n"
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if n := w.kept.Load(); n != 0 {
				t.Errorf("%d values are kept for a document that was refused", n)
			}
		})
	}
}

func TestPoliciesRunEveryRequestsFirstThenTheAPIsThenTheRoutesByStage(t *testing.T) {
	w := newWorld(t)
	s := w.load(`
upstreams: {orders: http://10.0.0.4:9000}
policies: [probe, {guard: {}, name: global}]
apis:
  shop:
    upstream: orders
    policies: [probe, who, probe]
    routes:
      one: {match: /one, policies: [{probe: {}, stage: admit}, {probe: {}, when: 'request.method == "GET"'}]}
      two: {match: /two, respond: {body: "hello {query.name}"}}
`)
	tests := map[string]string{
		"GET /one": "apis/shop/routes/one/policies/probe apis/shop/policies/who policies/global policies/probe apis/shop/policies/probe " +
			"apis/shop/policies/probe-2 apis/shop/routes/one/policies/probe-2",
		"PUT /one": "apis/shop/routes/one/policies/probe apis/shop/policies/who policies/global policies/probe apis/shop/policies/probe " +
			"apis/shop/policies/probe-2",
		"GET /two":  "apis/shop/policies/who policies/global policies/probe apis/shop/policies/probe apis/shop/policies/probe-2",
		"GET /none": "policies/global policies/probe",
	}
	for line, want := range tests {
		r, x := ask(t, s, line)
		if got := x.Request.Header.Get("X-Seen"); got != want || x.Err != nil && x.Err.Code != exchange.RouteNotFound {
			t.Errorf("%s (%s): %v\ngot  %s\nwant %s", line, r.Name, x.Err, got, want)
		}
	}
}

func TestGroupsAreOnePolicy(t *testing.T) {
	w := newWorld(t)
	s := w.load(`
upstreams: {orders: http://10.0.0.4:9000}
apis:
  shop:
    upstream: orders
    policies: [guard, {any: [who, guard]}, {all: [who, {any: [who]}]}]
`)
	_, x := ask(t, s, "GET /")
	want := "apis/shop/policies/all/who apis/shop/policies/all/any/who apis/shop/policies/guard apis/shop/policies/any/who"
	if got := x.Request.Header.Get("X-Seen"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.load("apis: {x: {routes: {a: {match: /, respond: {body: x}}}}}")
	w.drained(s)
	if got := w.closed.Load(); got != 5 {
		t.Errorf("%d policies were closed, want 5", got)
	}
}

func TestAnswersAndRewrites(t *testing.T) {
	s := newWorld(t).load(`
upstreams: {orders: http://10.0.0.4:9000}
apis:
  shop:
    base_path: /shop/v1
    strip_base_path: true
    upstream: orders
    routes:
      plain: {match: "/plain/**"}
      prefix: {match: "/pre%20fix/**", rewrite: {strip_prefix: "/pre fix"}}
      template: {match: "/t/{id}/{rest...}", rewrite: {path: "/v2/{path.id}/x/{path.rest}/{query.q}"}}
      text: {match: "/text/{id}", respond: {status: 201, headers: {X-A: b}, body: "id {path.id}"}}
      json: {match: "/json/{id}", respond: {headers: {content-type: application/json}, body: '{{"id": "{path.id}"}}'}}
      html: {match: "/html/{id}", respond: {headers: {Content-Type: text/html}, body: "<p>{path.id}</p>"}}
      away: {match: /away/**, redirect: {to: "https://new.example.com{request.path}?{request.query}", status: 308}}
      here: {match: "/here/{rest...}", redirect: {to: "/{path.rest}"}}
`)
	paths := map[string]string{
		"GET /shop/v1/plain/a%20b":         "/plain/a%20b",
		"GET /%73hop/v1/plain":             "/plain",
		"GET /shop/v1/pre%20fix/x":         "/x",
		"GET /shop/v1/pre%20fix":           "/",
		"GET /shop/v1/t/a%2Fb/c/d%20e?q=1": "/v2/a%2Fb/x/c/d%20e/1",
		"GET /shop/v1/t/1/c?q=..":          "/shop/v1/t/1/c",
		"GET /shop/v1/t/1/c?q=../x":        "/shop/v1/t/1/c",
	}
	for line, want := range paths {
		if _, x := ask(t, s, line); x.Request.Path != want {
			t.Errorf("%s: the upstream is asked %s, want %s", line, x.Request.Path, want)
		}
	}
	answers := map[string]string{
		"GET /shop/v1/text/%3Cb%3E":     "201 text/plain; charset=utf-8 id <b>",
		"GET /shop/v1/json/a%22b%3C":    `200 application/json {"id": "a\"b\u003c"}`,
		"GET /shop/v1/html/%3Cb%3E":     "200 text/html <p>&lt;b&gt;</p>",
		"GET /shop/v1/away/a%20b?c=%20": "308 https://new.example.com/shop/v1/away/a%20b?c=%20",
		"GET /shop/v1/here/x%0d%0ay":    "302 /x%0D%0Ay",
		"GET /shop/v1/here//evil.test/": "302 /evil.test/",
		"GET /shop/v1/here/%5Cevil":     "302 /%5Cevil",
	}
	for line, want := range answers {
		_, x := ask(t, s, line)
		got := []string{strings.TrimSpace(strings.Join([]string{strconv.Itoa(x.Reply.Status), x.Reply.Header.Get("Content-Type"),
			x.Reply.Header.Get("Location")}, " "))}
		if !x.Reply.Body.None() {
			body, err := io.ReadAll(x.Reply.Body.Reader)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(body))
		}
		if text := strings.Join(strings.Fields(strings.Join(got, " ")), " "); text != want {
			t.Errorf("%s: %s, want %s", line, text, want)
		}
	}
}

func TestTheVersionChangesWithTheContentAlone(t *testing.T) {
	w := newWorld(t)
	first := w.load(shops(2)).Version
	if again := w.load("# a comment\n" + shops(2)).Version; again != first {
		t.Errorf("%s, with a comment %s", first, again)
	}
	seen := map[string]bool{first: true}
	for _, edit := range [][]string{
		{"base_path: /api1\n", "base_path: /x\n"}, {"api1:", "api9:"}, {hashed("one"), hashed("two")}, {":9001", ":9002"},
		{"apis:\n", "log: {level: debug}\napis:\n"},
	} {
		v := w.load(shops(2, edit...)).Version
		if seen[v] {
			t.Errorf("%v does not change the version", edit)
		}
		seen[v] = true
	}
}
