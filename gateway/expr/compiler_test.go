package expr

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/expr"
	"headgate/internal/metric"
)

var _ policy.Compiler = (*Compiler)(nil)

func compiler() *Compiler { return New(metric.NewRegistry()) }

type token map[string]any

func (t token) Claim(path string) any { return t[path] }

// sample is an exchange in which every variable has a value.
func sample() *exchange.Exchange {
	x := &exchange.Exchange{
		ID: "0192", Start: time.Date(2026, 11, 21, 22, 30, 0, 0, time.UTC),
		Client: exchange.Client{IP: netip.MustParseAddr("10.1.2.3"), Trusted: true},
		Request: exchange.Request{
			Method: "GET", Path: "/shop/orders/7", Query: "page=2&name=J%C3%B6rg+K&x&%6Eot=1", Host: "API.example.com:8080", Scheme: "https",
		},
		Reply:    exchange.Reply{Status: 404},
		Route:    &exchange.Route{API: "shop", Version: "v1", Name: "one order"},
		Params:   []exchange.Param{{Name: "id", Value: "7/8"}},
		Consumer: &exchange.Consumer{Name: "ada", Groups: []string{"staff", "beta"}, Labels: map[string]string{"tier": "gold"}},
		Claims: token{"sub": "u1", "scope": "read write", "roles": []any{"admin", "dev"}, "n": 3.0, "ok": true, "realm.name": "main",
			"realm": map[string]any{"name": "main"}},
	}
	x.Request.Header.Add("X-Tenant", "acme")
	x.Request.Header.Add("Cookie", `a=1; sid="s 1"`)
	x.Request.Header.Add("Cookie", "b=2")
	x.Reply.Header.Add("Content-Type", "text/plain")
	return x
}

func TestEveryVariable(t *testing.T) {
	for src, want := range map[string]string{
		`consumer`: "ada", `groups`: "staff,beta", `labels.tier`: "gold", `labels.none`: "",
		`client.ip`: "10.1.2.3", `client.trusted`: "true",
		`request.method`: "GET", `request.path`: "/shop/orders/7", `request.query`: "page=2&name=J%C3%B6rg+K&x&%6Eot=1",
		`request.host`: "api.example.com", `request.scheme`: "https",
		`header.x-tenant`: "acme", `header["X-TENANT"]`: "acme", `header.none`: "",
		`query.page`: "2", `query.name`: "Jörg K", `query.x`: "", `query.not`: "1", `query.none`: "",
		`cookie.sid`: "s 1", `cookie.b`: "2", `cookie.none`: "", `path.id`: "7/8",
		`claim.sub`: "u1", `claim.realm.name`: "main", `claim["realm.name"]`: "main", `claim.roles`: "admin,dev", `claim.n`: "3", `claim.none`: "",
		`api`: "shop", `version`: "v1", `route`: "one order", `id`: "0192",
		`reply.status`: "404", `reply.header.content-type`: "text/plain", `string(now.getHours())`: "22",
		`"literal"`: "literal",
	} {
		get, err := compiler().String(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got := get(sample()); got != want {
			t.Errorf("%s = %q, want %q", src, got, want)
		}
	}
}

func TestEveryVariableIsEmptyOnAnEmptyExchange(t *testing.T) {
	c := compiler()
	for _, v := range Variables() {
		src := v.Name
		switch v.Type {
		case expr.Texts, expr.Values:
			src += `["a"]`
		case expr.Time:
			src = "string(now.getFullYear())"
		}
		for _, form := range []string{src, src + ` == ""`, `string(` + src + `) + ""`} {
			get, err := c.String(form)
			if err != nil {
				continue // not every type has every form
			}
			get(&exchange.Exchange{}) // must return
		}
		get, err := c.String(src)
		if err != nil {
			t.Fatalf("%s: %v", src, err)
		}
		if got := get(&exchange.Exchange{}); got != "" && got != "0" && got != "1" && got != "false" {
			t.Errorf("%s = %q on an empty exchange", src, got)
		}
	}
	if c.failures.Value() != 0 {
		t.Errorf("%d evaluations failed", c.failures.Value())
	}
}

func TestNoVariableIsTheBeginningOfAnother(t *testing.T) {
	for _, a := range Variables() {
		for _, b := range Variables() {
			if strings.HasPrefix(b.Name, a.Name+".") {
				t.Errorf("%s and %s: reading %[1]s first would hide %[2]s", a.Name, b.Name)
			}
		}
	}
}

func TestTablesCanBeAskedAndWalked(t *testing.T) {
	for _, src := range []string{
		`header.exists(h, h == "x-tenant") && size(header) == 2`,
		`query.exists(q, q == "not" && query[q] == "1") && "x" in query && !("y" in query)`,
		`cookie.exists_one(c, c == "sid") && has(cookie.b) && !has(cookie.c) && has(query.x)`,
		`labels.all(l, labels[l] == "gold") && path.exists(p, p == "id") && has(path.id) && !has(labels.id)`,
		`"admin" in claim.roles && claim.roles.size() == 2 && "read" in claim.scope.split(" ") && has(claim.ok) && !has(claim.none)`,
		`reply.header.exists(h, h == "content-type")`,
	} {
		test, err := compiler().Bool(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if yes, err := test(sample()); !yes || err != nil {
			t.Errorf("%s = %v, %v", src, yes, err)
		}
	}
}

func TestCommonConditionsArePlain(t *testing.T) {
	for src, want := range map[string]bool{
		`consumer != ""`: true, `consumer == 'ada'`: true, `!client.trusted`: false,
		`header.x-tenant == "acme"`: true, `header["x-tenant"] != "acme"`: false,
		`request.method in ["GET", "HEAD"]`: true, `"beta" in groups`: true, `claim.n == "3"`: false, `claim.none == ""`: true,
		`claim.roles != ""`: true, `claim.sub in ["u1"]`: true,
		`reply.status >= 400 && reply.status < 500`:                          true,
		`request.path.startsWith("/shop/") && !request.path.endsWith(".js")`: true,
		`request.path.startsWith("/shop/") || query.page.contains("9")`:      true,
		`inCIDR(client.ip, "10.0.0.0/8") && !inCIDR(client.ip, ["::/0"])`:    true,
		`has(cookie.sid) && !(has(cookie.none) || has(claim.none))`:          true,
	} {
		c := compiler()
		test := c.plainBool(src)
		if test == nil {
			t.Errorf("%s goes through CEL", src)
		} else if got := test(sample()); got != want {
			t.Errorf("%s = %v", src, got)
		}
	}
}

// literals are what is compared: values that the sample has, and others.
var literals = []string{`""`, `"ada"`, `'acme'`, `"GET"`, `"2"`, `"gold"`, `"u1"`, `"3"`, `"10.1.2.3"`, `"/shop"`, `"a,b"`}

var texty = []string{
	"consumer", "labels.tier", `labels["none"]`, "client.ip", "request.method", "request.path", "request.host", "header.x-tenant",
	`header["X-Tenant"]`, "query.page", "query.name", "cookie.sid", "cookie.none", "path.id", "api", "route", "reply.header.content-type",
}

var claimy = []string{"claim.sub", "claim.none", "claim.n", "claim.roles", "claim.realm.name", `claim["realm.name"]`, "claim.ok"}

// conditions draws a condition of the plain language.
func conditions(t *rapid.T, depth int) string {
	from := func(list []string) string { return rapid.SampledFrom(list).Draw(t, "word") }
	space := rapid.SampledFrom([]string{"", " ", "  ", "\n"}).Draw(t, "space")
	switch kind := rapid.IntRange(0, 13).Draw(t, "kind"); {
	case kind == 0 && depth > 0:
		return conditions(t, depth-1) + " && " + conditions(t, depth-1)
	case kind == 1 && depth > 0:
		return conditions(t, depth-1) + " || " + conditions(t, depth-1)
	case kind == 2 && depth > 0:
		return "!" + space + "(" + conditions(t, depth-1) + space + ")"
	case kind == 3:
		return from([]string{"client.trusted", "!client.trusted", "!!client.trusted"})
	case kind == 4:
		return "reply.status" + space + from([]string{"==", "!=", "<", "<=", ">", ">="}) + from([]string{"404", " 0", "403"})
	case kind == 5:
		return from(literals) + " in groups"
	case kind == 6:
		return from([]string{"", "!"}) + "has(" +
			from([]string{"header.x-tenant", "query.x", "query.none", "cookie.sid", "labels.tier", "claim.sub", "claim.realm.none"}) + ")"
	case kind == 7:
		return "inCIDR(client.ip, " + from([]string{`"10.0.0.0/8"`, `["::/0", "10.1.2.3"]`, `["192.168.0.0/16"]`}) + ")"
	case kind == 8:
		return from([]string{"", "!"}) + from(texty) + from([]string{".startsWith(", ".endsWith(", ".contains("}) + from(literals) + ")"
	case kind < 11:
		return from(claimy) + space + from([]string{"==", "!="}) + space + from(literals)
	case kind == 11:
		return from(append(texty, claimy...)) + " in [" + from(literals) + "," + from(literals) + "]"
	}
	return from(texty) + space + from([]string{"==", "!="}) + space + from(literals)
}

func TestPlainExpressionsMeanWhatTheyMeanInCEL(t *testing.T) {
	c := compiler()
	exchanges := []*exchange.Exchange{sample(), {}, {Consumer: &exchange.Consumer{Name: "2"}, Claims: token{"sub": "acme", "realm.name": 2.0}}}
	rapid.Check(t, func(t *rapid.T) {
		src := conditions(t, 3)
		fast := c.plainBool(src)
		if fast == nil {
			t.Fatalf("%q is not plain", src)
		}
		full, err := c.compile(src, expr.Bool)
		if err != nil {
			t.Fatalf("%q is plain, but CEL says: %v", src, err)
		}
		for n, x := range exchanges {
			want, err := full.Bool(x)
			if got := fast(x); got != want || err != nil {
				t.Fatalf("%q on exchange %d: plain says %v, CEL says %v, %v", src, n, got, want, err)
			}
		}
	})
	for _, src := range append(append([]string{"groups", "reply.status", "client.trusted", `"lit"`}, texty...), claimy...) {
		fast := c.plainText(src)
		full, err := c.compile(src, expr.Text)
		if fast == nil || err != nil {
			t.Errorf("%s: plain %v, CEL %v", src, fast != nil, err)
			continue
		}
		for _, x := range exchanges {
			if want, err := full.Text(x); fast(x) != want || err != nil {
				t.Errorf("%s: plain says %q, CEL says %q, %v", src, fast(x), want, err)
			}
		}
	}
}

// FuzzPlain looks for texts that the plain reader takes and CEL does not, or takes for something else.
func FuzzPlain(f *testing.F) {
	for _, seed := range []string{`header.x-a == "b" && !(has(claim.a))`, `!!client.trusted||"a"in groups`, `reply.status<=1`, `claim.a.b in['x']`} {
		f.Add(seed)
	}
	c, x := compiler(), sample()
	f.Fuzz(func(t *testing.T, src string) {
		fast := c.plainBool(src)
		if fast == nil {
			return
		}
		full, err := c.compile(src, expr.Bool)
		if err != nil {
			t.Fatalf("%q is plain, but CEL says: %v", src, err)
		}
		if want, err := full.Bool(x); err != nil || want != fast(x) {
			t.Fatalf("%q: plain says %v, CEL says %v, %v", src, fast(x), want, err)
		}
	})
}

func TestPlainExpressionsAllocateNothing(t *testing.T) {
	c, x := compiler(), sample()
	for _, src := range []string{
		`consumer != ""`, `header.x-tenant == "acme" && request.method in ["GET", "HEAD"]`, `query.page == "2"`, `cookie.sid != ""`,
		`inCIDR(client.ip, "10.0.0.0/8")`, `claim.sub == "u1"`, `client.ip == "10.1.2.3"`, `"beta" in groups`,
	} {
		test, err := c.Bool(src)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = test(x) }); n != 0 {
			t.Errorf("%s allocates %v times", src, n)
		}
	}
	for src, want := range map[string]float64{
		"consumer": 0, "client.ip": 0, "header.x-tenant": 0, "{consumer}": 0, "constant": 0, "{consumer}:{client.ip}/{route}": 1,
	} {
		get, err := c.Template(src)
		if !strings.ContainsAny(src, "{") && src != "constant" {
			get, err = c.String(src)
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = get(x) }); n != want {
			t.Errorf("%s allocates %v times, want %v", src, n, want)
		}
	}
}

func TestAnEvaluationWithoutAnAnswerIsCountedAndNeverTrue(t *testing.T) {
	c := compiler()
	test, err := c.Bool(`claim.roles.startsWith("a")`)
	if err != nil {
		t.Fatal(err)
	}
	if yes, err := test(sample()); yes || err == nil {
		t.Errorf("a list starts with a text: %v, %v", yes, err)
	}
	get, err := c.String(`claim.realm`)
	if err != nil {
		t.Fatal(err)
	}
	if got := get(sample()); got != "" {
		t.Errorf("an object as a text is %q", got)
	}
	if n := c.failures.Value(); n != 2 {
		t.Errorf("%d failures are counted, want 2", n)
	}
}

func TestCELIsNotBuiltForPlainExpressions(t *testing.T) {
	built := false
	c := compiler()
	c.language = expr.New(nil, func(*exchange.Exchange, string) any { built = true; return nil })
	for _, src := range []string{`consumer == ""`, `header.x-tenant != "a" || client.trusted`} {
		if _, err := c.Bool(src); err != nil || built {
			t.Errorf("%s needs CEL: %v", src, err)
		}
	}
}

func TestTemplates(t *testing.T) {
	for src, want := range map[string]string{
		"":                                "",
		"plain":                           "plain",
		"{consumer}":                      "ada",
		"a{consumer}b{request.method}":    "aadabGET",
		"{{{consumer}}}":                  "{ada}",
		`{{"caller": "{consumer}"}}`:      `{"caller": "ada"}`,
		`{consumer == "ada" ? "}" : "{"}`: "}",
		`{ {"a": "one"}["a"] }`:           "one",
		"{header.x-tenant}/{groups}":      "acme/staff,beta",
	} {
		get, err := compiler().Template(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got := get(sample()); got != want {
			t.Errorf("%s = %q, want %q", src, got, want)
		}
	}
	get, err := compiler().Template("/v2/{path.id}/x", url.PathEscape)
	if err != nil {
		t.Fatal(err)
	}
	if got := get(sample()); got != "/v2/7%2F8/x" {
		t.Errorf("an escaped template gives %q", got)
	}
}

func TestErrorsOfTemplatesNameThePlaceInTheTemplate(t *testing.T) {
	for src, want := range map[string]string{
		"a } b":                 "column 3: a } without a {; write }} for a brace",
		`{"a": 1`:               "column 1: this { is not closed; write {{ for a brace",
		`{{"a": 1}["a"]}`:       "column 9: a } without a {; write }} for a brace", // {{ is always a brace
		"x\ny {}":               "line 2, column 4: the expression is empty; write one such as consumer or header.x-tenant == \"a\"",
		"käse {consumer + zz}!": `column 18: there is no "zz"`,
	} {
		_, err := compiler().Template(src)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q:\n got %v\nwant %s", src, err, want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("a{consumer}b{{")
	f.Add(`{"\"}"}`)
	c := compiler()
	f.Fuzz(func(t *testing.T, src string) {
		if get, err := c.Template(src); err == nil {
			get(sample())
		}
	})
}

func TestQueryLookupAgreesWithNetURL(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOf(rapid.SampledFrom([]rune("ab &=+%é"))).Draw(t, "name")
		values := url.Values{}
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			key := rapid.SampledFrom([]string{name, "a", "b", name + "a"}).Draw(t, "key")
			values.Add(key, rapid.StringOf(rapid.SampledFrom([]rune("xy &=+%;é"))).Draw(t, "value"))
		}
		got, ok := queryValue(values.Encode(), name)
		if got != values.Get(name) || ok != values.Has(name) {
			t.Fatalf("%q in %q is %q, %v; net/url says %q", name, values.Encode(), got, ok, values.Get(name))
		}
	})
}

func BenchmarkPlain(b *testing.B) {
	for _, src := range []string{`consumer != ""`, `header.x-tenant == "acme"`, `request.method in ["PUT", "GET"] && consumer != ""`, `inCIDR(client.ip, "10.0.0.0/8")`} {
		b.Run(src, func(b *testing.B) {
			test, err := compiler().Bool(src)
			if err != nil {
				b.Fatal(err)
			}
			x := sample()
			b.ReportAllocs()
			for b.Loop() {
				_, _ = test(x)
			}
		})
	}
	b.Run("client.ip", func(b *testing.B) {
		get, _ := compiler().String("client.ip")
		x := sample()
		b.ReportAllocs()
		for b.Loop() {
			_ = get(x)
		}
	})
	b.Run("template", func(b *testing.B) {
		get, _ := compiler().Template("{consumer}:{client.ip}")
		x := sample()
		b.ReportAllocs()
		for b.Loop() {
			_ = get(x)
		}
	})
}

func BenchmarkCEL(b *testing.B) {
	test, err := compiler().Bool(`header["x-tenant"] == "acme" && size(groups) == 2`)
	if err != nil {
		b.Fatal(err)
	}
	x := sample()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = test(x)
	}
}
