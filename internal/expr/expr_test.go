package expr

import (
	"slices"
	"strings"
	"testing"
)

type texts map[string]string

func (t texts) Find(name string) (any, bool) { v, ok := t[name]; return v, ok }
func (t texts) Names() []string {
	var names []string
	for n := range t {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

type values map[string]any

func (t values) Find(name string) (any, bool) { v, ok := t[name]; return v, ok }
func (t values) Names() []string              { return nil }

type scope map[string]any

func (s scope) Value(name string) any { return s[name] }

func language() *Language[scope] {
	return New([]Variable{
		{"name", Text, ""}, {"client.ip", Text, ""}, {"client.trusted", Bool, ""}, {"status", Int, ""}, {"groups", List, ""},
		{"header", Texts, ""}, {"reply.header", Texts, ""}, {"claim", Values, ""},
	}, scope.Value)
}

func sample() scope {
	return scope{
		"name": "ada", "client.ip": "10.1.2.3", "client.trusted": true, "status": 404, "groups": []string{"staff", "beta"},
		"header":       texts{"x-tenant": "acme", "accept": "text/html"},
		"reply.header": texts{"content-type": "text/plain"},
		"claim": values{"sub": "u1", "aud": "one", "roles": []any{"admin", "dev"}, "realm.level": 3.0, "admin": true, "id": 1234567.0,
			"realm": map[string]any{"level": 3.0}},
	}
}

func TestBoolOf(t *testing.T) {
	for _, tc := range []struct {
		src  string
		want bool
	}{
		{`name == "ada"`, true},
		{`client.trusted && status >= 400`, true},
		{`"beta" in groups`, true},
		{`groups.exists(g, g.startsWith("st"))`, true},
		{`header.none == ""`, true},
		{`header["none"] == "" && !has(header.none) && has(header.accept)`, true},
		{`"accept" in header && !("none" in header)`, true},
		{`header.x-tenant == "acme" && size(groups) == 2`, true},
		{`has(header.x-tenant)`, true},
		{`header.in == "" && header.2fa == ""`, true},
		{`reply.header.content-type.startsWith("text/")`, true},
		{`header.exists(h, h == "accept" && header[h] == "text/html")`, true},
		{`claim.sub == "u1"`, true},
		{`claim.none == ""`, true},
		{`claim.none.deeper == ""`, true},
		{`claim.realm.level == 3`, true},
		{`has(claim.realm.level) && !has(claim.realm.none)`, true},
		{`"admin" in claim.roles`, true},
		{`"admin" in claim.none`, false},
		{`"one" in claim.aud && !("on" in claim.aud)`, true},
		{`claim["roles"].exists(r, r == "dev")`, true},
		{`claim.none.exists(r, r == "dev")`, false},
		{`claim.admin`, true},
		{`claim.none`, false},
		{`inCIDR(client.ip, "10.0.0.0/8")`, true},
		{`inCIDR(client.ip, "10.1.2.3")`, true},
		{`inCIDR(client.ip, ["192.168.0.0/16", "::1/128"])`, false},
		{`inCIDR("::ffff:10.1.2.3", "10.0.0.0/8")`, true},
		{`inCIDR(name, "0.0.0.0/0")`, false},
		{`name.matches("^a.a$")`, true},
		{`["claim"].exists(claim, claim == "claim")`, true},
	} {
		p, err := language().Compile(tc.src, Bool)
		if err != nil {
			t.Errorf("%s: %v", tc.src, err)
			continue
		}
		if got, err := p.Bool(sample()); got != tc.want || err != nil {
			t.Errorf("%s = %v, %v; want %v", tc.src, got, err, tc.want)
		}
	}
}

func TestTextOf(t *testing.T) {
	for src, want := range map[string]string{
		`name + "@" + header.x-tenant`: "ada@acme",
		`status`:                       "404",
		`client.trusted`:               "true",
		`groups`:                       "staff,beta",
		`claim.roles`:                  "admin,dev",
		`claim.id`:                     "1234567",
		`claim.none`:                   "",
		`claim["realm.level"]`:         "3",
		`name == "bob" ? "b" : name.upperAscii()`:  "ADA",
		`"a-b" + header["x-tenant"] // header.a-b`: "a-bacme",
		`groups.map(g, g.size())`:                  "5,4",
	} {
		p, err := language().Compile(src, Text)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got, err := p.Text(sample()); got != want || err != nil {
			t.Errorf("%s = %q, %v; want %q", src, got, err, want)
		}
	}
}

func TestErrorsSayWhereAndWhatThereIs(t *testing.T) {
	all := "name, client.ip, client.trusted, status, groups, header, reply.header, claim"
	for _, tc := range []struct{ src, want string }{
		{`name == "a" && clinet.ip == ""`, `column 16: there is no "clinet.ip"; did you mean "client.ip"?; there are ` + all},
		{`heder.accept == ""`, `column 1: there is no "heder.accept"; did you mean "header.accept"?; there are ` + all},
		{`zebra`, `column 1: there is no "zebra"; there are ` + all},
		{`header.x-y == "" && zebra == ""`, `column 21: there is no "zebra"; there are ` + all},
		{"name == \"\" &&\n zebra", `line 2, column 2: there is no "zebra"; there are ` + all},
		{`name.startWith("a")`, `column 15: there is no function "startWith"; did you mean "startsWith"?`},
		{`name ==`, `column 8: the expression cannot be read: mismatched input the end`},
		{`name = "POST"`, `column 6: = means nothing here; write == to compare`},
		{`name="POST"`, `column 5: = means nothing here; write == to compare`},
		{`header.x-y = "a"`, `column 12: = means nothing here; write == to compare`},
		{`name === "a"`, `column 8: = means nothing here; write == to compare`},
		{`name == "a" & name == "b"`, `column 13: & means nothing here; write && for and`},
		{`name == "a" | name == "b"`, `column 13: | means nothing here; write || for or`},
		{`name == 3`, `column 6: == cannot be applied to (string, int)`},
		{`name`, `column 1: the expression gives a text; true or false is needed, as from ==, in or has()`},
		{`inCIDR(client.ip, "10.0.0.0/33")`,
			`column 19: "10.0.0.0/33" is neither an address nor a range such as 10.0.0.0/8 or 2001:db8::/32`},
		{`name.matches("(")`, "column 14: invalid matches argument"},
		{strings.Repeat("!", MaxSource) + "true", `column 1: the expression has 4100 bytes; at most 4096 are allowed`},
	} {
		_, err := language().Compile(tc.src, Bool)
		if err == nil || err.Error() != tc.want {
			t.Errorf("%.60s:\n got %v\nwant %v", tc.src, err, tc.want)
		}
	}
	if _, err := language().Compile(`header`, Text); err == nil ||
		err.Error() != "column 1: the expression gives a table; a text, number, bool or list is needed" {
		t.Errorf("a table as a text: %v", err)
	}
}

func TestAnEvaluationThatHasNoAnswerIsAnError(t *testing.T) {
	for _, src := range []string{`claim.roles.startsWith("a")`, `claim.sub > 3`, `claim.sub`, `groups[7] == ""`, `10 / (status - 404) == 1`} {
		p, err := language().Compile(src, Bool)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got, err := p.Bool(sample()); err == nil || got {
			t.Errorf("%s = %v, %v; want an error", src, got, err)
		}
	}
}

func TestWhatACallerSendsCannotBuyTimeWithoutLimit(t *testing.T) {
	p, err := language().Compile(`groups.exists(a, groups.exists(b, a + b == name))`, Bool)
	if err != nil {
		t.Fatal(err)
	}
	big := sample()
	big["groups"] = slices.Repeat([]string{strings.Repeat("x", 100)}, 2000)
	if _, err := p.Bool(big); err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("four million rounds ended with %v", err)
	}
	for _, src := range []string{
		`groups.exists(a, groups.exists(b, groups.exists(c, a == b && b == c)))`,
		strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100),
		`name.matches("((a{100}){100}){100}")`,
	} {
		if _, err := language().Compile(src, Bool); err == nil {
			t.Errorf("%.60s compiles", src)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{`header.x-tenant == "a"`, `claim.a.b in ["x"]`, `has(header.a-b) // c`, `r"\"-` + `header.a-b`, `'''a'''-`} {
		f.Add(seed)
	}
	l := language()
	f.Fuzz(func(t *testing.T, src string) {
		p, err := l.Compile(src, Text)
		if err != nil {
			if _, ok := err.(*Error); !ok {
				t.Fatalf("%q: an error without a place: %v", src, err)
			}
			return
		}
		_, _ = p.Text(sample()) // must return
	})
}

func BenchmarkBool(b *testing.B) {
	p, err := language().Compile(`header["x-tenant"] == "acme" && size(groups) == 2`, Bool)
	if err != nil {
		b.Fatal(err)
	}
	s := sample()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = p.Bool(s)
	}
}

func BenchmarkFirstCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = language().Compile(`size(groups) == 2`, Bool)
	}
}
