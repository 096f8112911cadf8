package route

import (
	"strconv"
	"strings"
	"testing"

	"headgate/gateway/exchange"
)

// build makes a table of lines "METHODS PATH [header:name=value] [query:name=value] [host:name] [base:path]"; the value of a
// rule is its line.
func build(t testing.TB, lines ...string) *Table[string] {
	t.Helper()
	table, conflicts := Build(rulesOf(lines))
	for _, c := range conflicts {
		t.Errorf("%s: %s", c.Name, c.Reason)
	}
	if t.Failed() {
		t.FailNow()
	}
	return table
}

func rulesOf(lines []string) (rules []Rule[string]) {
	for _, line := range lines {
		words := strings.Fields(line)
		r := Rule[string]{Name: line, Value: line, Headers: map[string]string{}, Query: map[string]string{}}
		if words[0] != "any" {
			r.Methods = strings.Split(words[0], ",")
		}
		if words[1] != `""` {
			r.Path = words[1]
		}
		for _, w := range words[2:] {
			what, rest, _ := strings.Cut(w, ":")
			name, value, _ := strings.Cut(rest, "=")
			switch what {
			case "header":
				r.Headers[name] = value
			case "query":
				r.Query[name] = value
			case "host":
				r.Hosts = append(r.Hosts, rest)
			case "base":
				r.Base = rest
			}
		}
		rules = append(rules, r)
	}
	return rules
}

// find asks "METHOD [host]/path[?query] [name=value ...]" and answers with the rule's line and its captures, "404", or
// "405" and the Allow list.
func find(table *Table[string], ask string) string {
	words := strings.Fields(ask)
	target, query, _ := strings.Cut(words[1], "?")
	slash := strings.IndexByte(target, '/')
	var h exchange.Header
	for _, w := range words[2:] {
		name, value, _ := strings.Cut(w, "=")
		h.Add(name, value)
	}
	value, params, outcome := table.Match(words[0], target[:slash], target[slash:], &h, query, nil)
	switch outcome.Status {
	case NoRoute:
		return "404"
	case NoMethod:
		return "405 " + outcome.Allow
	}
	for _, p := range params {
		value += " | " + p.Name + "=" + p.Value
	}
	return value
}

func TestMatch(t *testing.T) {
	tests := []struct {
		name  string
		rules []string
		asks  map[string]string
	}{
		{"literals, one segment, the rest", []string{"any /orders", "any /orders/{id}", "any /orders/new", "any /files/{path...}",
			"any /static/**", "any /x/*/y"},
			map[string]string{
				"GET /orders":         "any /orders",
				"GET /orders/":        "404",
				"GET /orders/new":     "any /orders/new",
				"GET /orders/42":      "any /orders/{id} | id=42",
				"GET /orders/42/x":    "404",
				"GET /files":          "any /files/{path...} | path=",
				"GET /files/":         "any /files/{path...} | path=",
				"GET /files/a/b/":     "any /files/{path...} | path=a/b/",
				"GET /static":         "any /static/**",
				"GET /static/a/b.css": "any /static/**",
				"GET /statics":        "404",
				"GET /x/1/y":          "any /x/*/y",
				"GET /x//y":           "404",
				"GET /":               "404",
			}},
		{"a base path ends at a segment", []string{`any "" base:/shop`, "any /stock base:/shop/", `any "" base:/shop/eu`},
			map[string]string{
				"GET /shop":       `any "" base:/shop`,
				"GET /shop/":      `any "" base:/shop`,
				"GET /shop/a":     `any "" base:/shop`,
				"GET /shop/stock": "any /stock base:/shop/",
				"GET /shop/eu/a":  `any "" base:/shop/eu`,
				"GET /shopping":   "404",
				"GET /":           "404",
			}},
		{"a path of / is the base path with or without its slash", []string{"GET / base:/shop", "GET /"},
			map[string]string{"GET /shop": "GET / base:/shop", "GET /shop/": "GET / base:/shop", "GET /": "GET /", "GET /shop/a": "404"}},
		{"a base path of / stands for everything", []string{`any "" base:/`},
			map[string]string{"GET /": `any "" base:/`, "GET /a/b": `any "" base:/`}},
		{"a failing literal branch falls back to the template", []string{"any /a/b/c", "any /a/{x}/d", "any /{y}/b/e", "any /{z...}"},
			map[string]string{
				"GET /a/b/c": "any /a/b/c",
				"GET /a/b/d": "any /a/{x}/d | x=b",
				"GET /a/b/e": "any /{y}/b/e | y=a",
				"GET /a/b/f": "any /{z...} | z=a/b/f",
			}},
		{"segments are compared from the left", []string{"any /a/{x}", "any /{y}/b"},
			map[string]string{"GET /a/b": "any /a/{x} | x=b", "GET /c/b": "any /{y}/b | y=c"}},
		{"escapes compare in decoded form and never separate", []string{"any /orders", "any /caf%C3%A9/{n}", "any /p/{a}",
			"any /p/{a}/{b}", "any /q/x%2Fy", "any /r/{all...}"},
			map[string]string{
				"GET /%6frders":       "any /orders",
				"GET /caf%c3%a9/%61b": "any /caf%C3%A9/{n} | n=ab",
				"GET /café/1":         "any /caf%C3%A9/{n} | n=1",
				"GET /p/a%2fb":        "any /p/{a} | a=a/b",
				"GET /p/a%2fb/c":      "any /p/{a}/{b} | a=a/b | b=c",
				"GET /p%2fa":          "404",
				"GET /q/x%2fy":        "any /q/x%2Fy",
				"GET /q/x/y":          "404",
				"GET /q/x%252Fy":      "404",
				"GET /r/a%20b/c":      "any /r/{all...} | all=a b/c",
				"GET /%zz":            "404",
				"GET /p/%00":          "404",
			}},
		{"expressions see the path below the base", []string{`any ~/v(?P<major>[0-9]+)/.* base:/api`, "any /v1/fixed base:/api"},
			map[string]string{
				"GET /api/v2/x":      `any ~/v(?P<major>[0-9]+)/.* base:/api | major=2`,
				"GET /api/v%32/a%2f": `any ~/v(?P<major>[0-9]+)/.* base:/api | major=2`,
				"GET /api/v1/fixed":  "any /v1/fixed base:/api",
				"GET /api/v1/other":  `any ~/v(?P<major>[0-9]+)/.* base:/api | major=1`,
				"GET /api/vx/x":      "404",
				"GET /v2/x":          "404",
			}},
		{"an expression goes before a rest at its place and behind everything else", []string{`any ~/[a-z]+(/1)?`, "any /**",
			"any /{id}/1", "any /a/**"},
			map[string]string{
				"GET /b":   `any ~/[a-z]+(/1)?`,
				"GET /b/1": "any /{id}/1 | id=b",
				"GET /a/1": "any /a/**",
				"GET /B":   "any /**",
			}},
		{"hosts: exact, longer wildcard, wildcard, none", []string{"any /a host:api.example.com", "any /a host:*.example.com",
			"any /a host:*.eu.example.com", "any /a", "any /b", "any /six host:[::1]"},
			map[string]string{
				"GET api.example.com/a":      "any /a host:api.example.com",
				"GET API.Example.COM.:443/a": "any /a host:api.example.com",
				"GET www.example.com/a":      "any /a host:*.example.com",
				"GET a.b.example.com/a":      "any /a host:*.example.com",
				"GET x.eu.example.com/a":     "any /a host:*.eu.example.com",
				"GET x.y.eu.example.com:1/a": "any /a host:*.eu.example.com",
				"GET example.com/a":          "any /a",
				"GET .example.com/a":         "any /a",
				"GET badexample.com/a":       "any /a",
				"GET api.example.com/b":      "any /b",
				"GET [::1]:80/six":           "any /six host:[::1]",
			}},
		{"methods", []string{"GET,POST /a", "GET /b", "HEAD /b", "any /c", "OPTIONS,GET /d", "PURGE /e", "GET /f/{x}", "PUT /f/y"},
			map[string]string{
				"GET /a":     "GET,POST /a",
				"HEAD /a":    "GET,POST /a",
				"HEAD /b":    "HEAD /b",
				"GET /b":     "GET /b",
				"PUT /a":     "405 GET, HEAD, OPTIONS, POST",
				"OPTIONS /a": "405 GET, HEAD, OPTIONS, POST",
				"OPTIONS /c": "any /c",
				"OPTIONS /d": "OPTIONS,GET /d",
				"BREW /c":    "any /c",
				"BREW /e":    "405 OPTIONS, PURGE",
				"get /a":     "405 GET, HEAD, OPTIONS, POST",
				"PUT /f/y":   "PUT /f/y",
				"GET /f/y":   "GET /f/{x} | x=y",
				"POST /f/y":  "405 GET, HEAD, OPTIONS, PUT",
				"POST /f/z":  "405 GET, HEAD, OPTIONS",
				"POST /none": "404",
			}},
		{"HEAD listed goes before HEAD implied, but not before more predicates", []string{"GET,POST /a", "HEAD,PUT /a", "GET /a header:x-v=2"},
			map[string]string{
				"HEAD /a":       "HEAD,PUT /a",
				"HEAD /a X-V=2": "GET /a header:x-v=2",
				"GET /a X-V=2":  "GET /a header:x-v=2",
				"GET /a":        "GET,POST /a",
			}},
		{"predicates: more before fewer, narrower before wider", []string{"GET /a", "GET /a header:X-V=2", "GET /a header:x-v=~[0-9]+",
			"GET /a header:x-v=*", "GET /a header:x-v=2 query:debug=1", "any /a"},
			map[string]string{
				"GET /a":                   "GET /a",
				"GET /a x-v=2":             "GET /a header:X-V=2",
				"GET /a X-V=3":             "GET /a header:x-v=~[0-9]+",
				"GET /a x-v=beta":          "GET /a header:x-v=*",
				"GET /a?debug=1 x-v=2":     "GET /a header:x-v=2 query:debug=1",
				"GET /a?x&d%65bug=1 x-v=2": "GET /a header:x-v=2 query:debug=1",
				"GET /a?debug=2 x-v=2":     "GET /a header:X-V=2",
				"POST /a":                  "any /a",
			}},
		{"a route whose predicates do not fit is not there", []string{"GET /a header:x-v=2", "POST /a query:q=~a.b"},
			map[string]string{"GET /a": "404", "POST /a?q=a%20b": "POST /a query:q=~a.b", "POST /a?q=a+b": "POST /a query:q=~a.b",
				"PUT /a x-v=2": "405 GET, HEAD, OPTIONS"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := build(t, tt.rules...)
			for ask, want := range tt.asks {
				if got := find(table, ask); got != want {
					t.Errorf("%s: %q, want %q", ask, got, want)
				}
			}
		})
	}
}

func TestParamsAreAppendedToWhatIsThere(t *testing.T) {
	table := build(t, "any /a/{x}", "any /{y}/b/{z...}")
	params := []exchange.Param{{Name: "kept", Value: "1"}}
	_, params, _ = table.Match("GET", "", "/a/b/c", &exchange.Header{}, "", params)
	if want := "[{kept 1} {y a} {z c}]"; want != sprint(params) {
		t.Errorf("got %v, want %v", sprint(params), want)
	}
	_, params, _ = table.Match("GET", "", "/a", &exchange.Header{}, "", params)
	if len(params) != 3 {
		t.Errorf("a search without success leaves %v", params)
	}
}

func sprint(params []exchange.Param) string {
	var words []string
	for _, p := range params {
		words = append(words, "{"+p.Name+" "+p.Value+"}")
	}
	return "[" + strings.Join(words, " ") + "]"
}

// Rules that branch into a literal and a template at each segment make a search look into both, but never twice into the
// same place, and never deeper than the rules, however long the path is.
func TestSearchIsBoundedWhateverThePath(t *testing.T) {
	const depth = 10
	var rules []Rule[int]
	for n := range 1 << depth {
		path := ""
		for bit := range depth {
			if n>>bit&1 == 0 {
				path += "/a"
			} else {
				path += "/{p" + strconv.Itoa(bit) + "}"
			}
		}
		rules = append(rules, Rule[int]{Path: path + "/end" + strconv.Itoa(n), Value: n, Name: path})
	}
	table, conflicts := Build(rules)
	if len(conflicts) > 0 {
		t.Fatal(conflicts)
	}
	for _, path := range []string{strings.Repeat("/a", depth) + "/nothing", strings.Repeat("/a", 100_000)} {
		s := search{index: &table.index, path: path, header: &exchange.Header{}}
		if s.run("") != nil {
			t.Fatalf("something fits")
		}
		if limit := 2 << depth; s.steps > limit {
			t.Errorf("a path of %d bytes costs %d steps, more than the %d places of the tree", len(path), s.steps, limit)
		}
	}
	if got, _, _ := table.Match("GET", "", strings.Repeat("/a", depth)+"/end1023", &exchange.Header{}, "", nil); got != 1023 {
		t.Errorf("the last branch leads to %d", got)
	}
}

func FuzzMatchAgreesWithReference(f *testing.F) {
	rules := []Rule[int]{
		{Path: "/a/b", Value: 1}, {Path: "/a/{x}", Value: 2}, {Path: "/{y}/b/{z...}", Value: 3, Methods: []string{"GET"}},
		{Path: "~/[a-c]+/.*", Value: 4}, {Path: "/a%2Fb/*", Value: 5}, {Path: "/a/b", Value: 6, Hosts: []string{"*.test"}},
		{Base: "/base", Value: 7},
	}
	table, conflicts := Build(rules)
	if len(conflicts) > 0 {
		f.Fatal(conflicts)
	}
	for _, path := range []string{"/a/b", "/a%2fb/c", "/b/b/c/d", "/base", "/based", "/%61/%62"} {
		f.Add("GET", "x.test", path)
	}
	f.Fuzz(func(t *testing.T, method, host, path string) {
		if CheckPath(path, true, true) != "" || strings.ContainsAny(host, ":[]\x00") || host != strings.ToLower(host) ||
			strings.Contains(path, "%2f") {
			return
		}
		q := request{method: method, host: host, path: path}
		want, wantParams, wantOutcome := refMatch(rules, q)
		got, params, outcome := table.Match(method, host, path, &exchange.Header{}, "", nil)
		if got != want || outcome != wantOutcome || sprint(params) != sprint(wantParams) {
			t.Fatalf("%q: %d %v %v, want %d %v %v", path, got, params, outcome, want, wantParams, wantOutcome)
		}
	})
}
