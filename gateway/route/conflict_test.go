package route

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	advice       = "; give one of them another path, or a method, header or query parameter that the other does not have"
	shadowAdvice = "; remove this one or make its path or its predicates more specific"
)

func TestConflictsByTheirExactMessages(t *testing.T) {
	tests := []struct {
		name  string
		rules []string
		want  []string // "KIND rule number: message"
	}{
		{"the same path twice", []string{"GET /orders", "GET /orders"},
			[]string{"route_ambiguous 1: overlaps with GET /orders: GET /orders fits both, and neither is more specific" + advice}},
		{"names of segments do not tell apart", []string{"any /orders/{id}", "any /orders/{order}"},
			[]string{"route_ambiguous 1: overlaps with any /orders/{id}: GET /orders/x fits both, and neither is more specific" + advice}},
		{"a common method", []string{"GET,POST /a", "POST,PUT /a"},
			[]string{"route_ambiguous 1: overlaps with GET,POST /a: POST /a fits both, and neither is more specific" + advice}},
		{"different predicates of equal number", []string{"any /a header:x-v=2", "any /a query:debug=1", "GET /a"},
			[]string{
				"route_ambiguous 1: overlaps with any /a header:x-v=2: GET /a?debug=1 with header x-v: 2 fits both, and neither is more " +
					"specific" + advice,
				"route_ambiguous 2: overlaps with any /a header:x-v=2: GET /a with header x-v: 2 fits both, and neither is more specific" + advice,
			}},
		{"expressions for values that meet", []string{"any /a header:x-v=~[a-m]+", "any /a header:x-v=~[k-z]+"},
			[]string{"route_ambiguous 1: overlaps with any /a header:x-v=~[a-m]+: GET /a with header x-v: k fits both, and neither is more " +
				"specific" + advice}},
		{"a common host", []string{"any /a host:a.test host:b.test", "any /a host:B.test"},
			[]string{"route_ambiguous 1: overlaps with any /a host:a.test host:b.test: GET http://b.test/a fits both, and neither is more " +
				"specific" + advice}},
		{"a common wildcard host", []string{"any /a host:*.test", "any /a host:*.test"},
			[]string{"route_ambiguous 1: overlaps with any /a host:*.test: GET http://any.test/a fits both, and neither is more " +
				"specific" + advice}},
		{"paths that need an escape", []string{"any /caf%C3%A9/a%2Fb", "any /café/a%2fb"},
			[]string{"route_ambiguous 1: overlaps with any /caf%C3%A9/a%2Fb: GET /caf%C3%A9/a%2Fb fits both, and neither is more " +
				"specific" + advice}},
		{"expressions that meet", []string{"any ~/img/.*[.]png base:/cdn", "any ~/[a-z]+/logo.* base:/cdn"},
			[]string{"route_ambiguous 1: overlaps with any ~/img/.*[.]png base:/cdn: GET /cdn/img/logo.png fits both, and neither is more " +
				"specific" + advice}},
		{"an API's root below another API's base path", []string{"any / base:/shop", "any /shop"},
			[]string{"route_ambiguous 1: overlaps with any / base:/shop: GET /shop fits both, and neither is more specific" + advice}},

		{"* behind {name}", []string{"any /a/{id}", "any /a/*"},
			[]string{"route_shadowed 1: can never match: any /a/{id} (/a/{id}) comes first for every request that fits, such as GET " +
				"/a/x" + shadowAdvice}},
		{"** behind {name...}", []string{`GET "" base:/a`, "any /{rest...} base:/a"},
			[]string{"route_shadowed 0: can never match: any /{rest...} base:/a (/a/{rest...}) comes first for every request that fits, " +
				"such as GET /a/x" + shadowAdvice}},
		{"an expression behind a template", []string{"any /orders/{id}", "any ~/orders/[0-9]+"},
			[]string{"route_shadowed 1: can never match: any /orders/{id} (/orders/{id}) comes first for every request that fits, such as " +
				"GET /orders/1" + shadowAdvice}},
		{"a rest behind an expression for everything", []string{"any ~.*", `GET ""`},
			[]string{"route_shadowed 1: can never match: any ~.* ( ~.*) comes first for every request that fits, such as GET /x" + shadowAdvice}},

		{"an expression without a slash", []string{"any ~orders"},
			[]string{"route_invalid 0: can never match: no path below the base path fits ~orders; it is compared with the whole of it, " +
				"which begins with a slash"}},
		{"malformed", []string{"any orders", "any /a{b}", "any /{a-b}", "any /{a}/{a}", "any /**/a", "any ~/(", "any /a/../b", "get /m",
			"any /h host:a_b:80", "any /h header:a_b=~[", "any /b base:/{x}", "any /%zz"},
			[]string{
				`route_invalid 0: the path "orders" does not begin with a slash; write /orders, or ~orders for a regular expression`,
				`route_invalid 1: "a{b}" mixes text and '{' in one segment; {name} and * are whole segments, a regular expression (~ in front ` +
					`of the path) can do more, and %7B is the character itself`,
				`route_invalid 2: "a-b" is not a name for a segment; write letters, digits and _, such as {order_id}`,
				`route_invalid 3: {a} is captured twice; give the two segments different names`,
				`route_invalid 4: ** and {name...} stand at the end of a path; in the middle, * and {name} fit one segment`,
				"route_invalid 5: the path's regular expression is not valid RE2: missing closing ): `/(`",
				`route_invalid 6: the path "/a/../b" can never be asked for: the path contains a dot segment`,
				`route_invalid 7: "get" is not a method; methods are written in capitals, such as GET`,
				`route_invalid 8: "a_b:80" is not a host name; write it without scheme and port, such as api.example.com or *.example.com, ` +
					`and letters outside ASCII in their xn-- form`,
				`route_invalid 9: header "a_b": the regular expression "[" is not valid RE2`,
				`route_invalid 10: the base path "/{x}" must be literal: no {name}, * or ** in it`,
				`route_invalid 11: "%zz" contains a malformed percent-escape or NUL`,
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, conflicts := Build(rulesOf(tt.rules))
			var got []string
			for _, c := range conflicts {
				got = append(got, fmt.Sprintf("%s %d: %s", c.Kind, c.Rule, c.Reason))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestWhatLooksLikeAConflictAndIsNone(t *testing.T) {
	tests := map[string][]string{
		"different methods": {"GET /a", "POST /a", "HEAD /a", "any /a"},
		"HEAD beside GET":   {"GET,POST /a", "HEAD,PUT /a"},
		"different values":  {"any /a header:x-v=1", "any /a header:x-v=2", "any /a query:q=1 header:x-v=1"},
		"expressions that never meet": {"any /a header:x-v=~[a-m]", "any /a header:x-v=~[n-z]", "any ~/[a-m]", "any ~/[n-z]",
			`any ~/x\b.+`, `any ~/x\B.+`},
		"narrower values":               {"any /a header:x-v=1", "any /a header:x-v=~[0-9]", "any /a header:x-v=*"},
		"a template over another's end": {"any /a/{x}", "any /{y}/b", "any /{y}/{z}", "any /*/c/{rest...}"},
		"* with other methods":          {"GET /a/{id}", "any /a/*"},
		"hosts":                         {"any /a host:a.test", "any /a host:*.test", "any /a", "any /a host:b.test host:c.test"},
		"shadowed on one host only":     {"any /a/{id} host:a.test", "any /a/* host:a.test host:b.test"},
		"an expression with a template": {"any /orders/{id}", "any ~/orders/[0-9]+(/lines)?"},
		"a rest beside an expression":   {"any /**", "any ~/v[0-9]+/.*"},
		"the base path only":            {"any ~ base:/a", "any ~/.* base:/a"},
	}
	for name, rules := range tests {
		t.Run(name, func(t *testing.T) { build(t, rules...) })
	}
}

// Ten thousand routes of one path, told apart by a header, are not compared with each other.
func TestManyRoutesOfOnePathAreTakenApartByTheirValues(t *testing.T) {
	var rules []Rule[int]
	for i := range 10_000 {
		rules = append(rules, Rule[int]{Path: "/a", Methods: []string{"GET"}, Headers: map[string]string{"x-tenant": fmt.Sprint(i)},
			Name: fmt.Sprint(i)})
	}
	b := buildOnly(t, rules)
	if used := maxComparisons - b.budget; used > len(rules) {
		t.Errorf("%d comparisons", used)
	}
	rules = append(rules, Rule[int]{Path: "/a", Methods: []string{"GET"}, Headers: map[string]string{"x-tenant": "77"}, Name: "again"})
	if _, conflicts := Build(rules); len(conflicts) != 1 || conflicts[0].With != "77" {
		t.Errorf("got %v", conflicts)
	}
}

func TestRoutesThatCannotBeToldApartInTimeAreRefused(t *testing.T) {
	var rules []Rule[int]
	for i := range 2100 {
		rules = append(rules, Rule[int]{Path: "/a", Query: map[string]string{fmt.Sprint("q", i): "~" + strings.Repeat("(a|b)*x", 2)},
			Name: fmt.Sprint(i)})
	}
	_, conflicts := Build(rules[:3])
	if len(conflicts) != 2 {
		t.Errorf("got %v", conflicts)
	}
	huge := []Rule[int]{{Path: `~/(a|b)*a(a|b){14}`, Name: "one"}, {Path: `~/(a|b)*b(a|b){14}`, Name: "two"}}
	_, conflicts = Build(huge)
	want := "cannot be told apart from one: their regular expressions are too complex to rule out a request that fits both" + advice
	if len(conflicts) != 1 || conflicts[0].Reason != want {
		t.Errorf("got %v", conflicts)
	}
}

func TestCompareExpressions(t *testing.T) {
	tests := []struct {
		a, b             string
		in               domain
		overlap, covered bool
		witness          string
	}{
		{"a+", "a", domain{}, true, true, "a"},
		{"a", "a+", domain{}, true, false, "a"},
		{"[a-c]x", "[d-f]x", domain{}, false, false, ""},
		{"(?i)ABC", "abc", domain{}, true, true, "abc"},
		{"(?s:.*)", `\w+\b`, domain{}, true, true, "x"},
		{`foo\b.*`, `foobar`, domain{}, false, false, ""},
		{`foo\B.*`, `foobar`, domain{}, true, true, "foobar"},
		{`^a$`, `a`, domain{}, true, true, "a"},
		{`a^b`, `ab`, domain{}, false, false, ""},
		{`/[^/]+`, `/orders|/stock`, domain{path: true}, true, true, "/stock"},
		{`.*`, `/(é|ü)`, domain{path: true}, true, true, "/é"},
		{`.*`, `(/a)?`, domain{path: true, nonEmpty: true}, true, true, "/a"},
		{`x{200}`, `x{199}`, domain{}, false, false, ""},
	}
	for _, tt := range tests {
		c := compare(tt.a, tt.b, tt.in)
		if !c.decided || c.overlap != tt.overlap || c.covered != tt.covered || c.witness != tt.witness {
			t.Errorf("compare(%q, %q) = %+v, want overlap %v covered %v witness %q", tt.a, tt.b, c, tt.overlap, tt.covered, tt.witness)
		}
	}
}

func buildOnly(t *testing.T, rules []Rule[int]) *builder {
	t.Helper()
	b := &builder{index: new(index), names: make([]string, len(rules))}
	b.index.methods.names = slices.Clone(commonMethods)
	for i, r := range rules {
		if _, err := b.add(i, r.Hosts, r.Base, r.Path, r.Methods, r.Headers, r.Query); err != nil {
			t.Fatal(err)
		}
	}
	b.index.edges.freeze()
	b.check()
	if len(b.conflicts) > 0 {
		t.Fatal(b.conflicts)
	}
	return b
}
