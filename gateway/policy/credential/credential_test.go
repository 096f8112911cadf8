package credential

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headgate/config/decode"
	"headgate/gateway/exchange"
)

var all = Sources{{Header: "X-Api-Key"}, {Header: "Authorization", Scheme: "ApiKey"}, {Query: "api_key"}, {Cookie: "key"}}

// request builds an exchange from "Name: value" lines and a query ("-": none).
func request(query string, lines ...string) *exchange.Exchange {
	x := &exchange.Exchange{}
	if query != "-" {
		x.Request.Query, x.Request.HasQuery = query, true
	}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		x.Request.Header.Add(name, value)
	}
	return x
}

func TestWhereACredentialIsFoundAndWhatIsLeftOnceItIsHidden(t *testing.T) {
	for _, c := range []struct {
		name, query string
		lines       []string
		value       string
		result      Result
		left        string // query | header lines
	}{
		{"nowhere", "a=1", []string{"Host: shop"}, "", Missing, "?a=1|Host: shop"},
		{"header", "-", []string{"x-api-key: k", "Accept: */*"}, "k", Found, "|Accept: */*"},
		{"an empty one is none", "api_key=", []string{"X-Api-Key: ", "Authorization: ApiKey", "Cookie: key="}, "", Missing, "|"},
		{"header twice", "-", []string{"X-Api-Key: k", "X-Api-Key: k"}, "", Ambiguous, "|"},
		{"two places that agree", "api_key=k", []string{"X-Api-Key: k"}, "k", Found, "|"},
		{"two places that differ", "api_key=j", []string{"X-Api-Key: k"}, "", Ambiguous, "|"},
		{"scheme, whatever its case", "-", []string{"Authorization: apikey  k"}, "k", Found, "|"},
		{"another scheme is another's", "-", []string{"Authorization: Basic k"}, "", Missing, "|Authorization: Basic k"},
		{"a scheme that only begins alike", "-", []string{"Authorization: ApiKeyring k"}, "", Missing, "|Authorization: ApiKeyring k"},
		{"two authorizations", "-", []string{"Authorization: ApiKey k", "Authorization: Basic j"}, "", Ambiguous, "|Authorization: Basic j"},
		{"first parameter", "api_key=k&b=%20+&c", nil, "k", Found, "?b=%20+&c|"},
		{"middle parameter", "a=&api_key=k&&b", nil, "k", Found, "?a=&&b|"},
		{"last parameter", "a=1&api_key=k", nil, "k", Found, "?a=1|"},
		{"only parameter", "api_key=k", nil, "k", Found, "|"},
		{"encoded value", "api_key=%6b+", nil, "k ", Found, "|"},
		{"encoded name", "api%5Fkey=k&a", nil, "k", Found, "?a|"},
		{"a name that only begins alike", "api_key2=k&api_ke=j", nil, "", Missing, "?api_key2=k&api_ke=j|"},
		{"parameter twice, once encoded", "api_key=k&api%5fkey=k", nil, "", Ambiguous, "|"},
		{"first cookie", "-", []string{"Cookie: key=k; a=1; b=2"}, "k", Found, "|Cookie: a=1; b=2"},
		{"middle cookie", "-", []string{"Cookie: a=1; key=k; b=2"}, "k", Found, "|Cookie: a=1; b=2"},
		{"last cookie, quoted", "-", []string{`Cookie: a=1; key="k"`}, "k", Found, "|Cookie: a=1"},
		{"only cookie", "-", []string{"Cookie: key=k"}, "k", Found, "|"},
		{"cookie in the second field", "-", []string{"Cookie: a=1", "Cookie: key=k; b=2"}, "k", Found, "|Cookie: a=1; b=2"},
		{"cookie twice", "-", []string{"Cookie: key=k; key=j"}, "", Ambiguous, "|"},
		{"cookie names have case", "-", []string{"Cookie: Key=k"}, "", Missing, "|Cookie: Key=k"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := request(c.query, c.lines...)
			value, result := all.Find(x)
			if value != c.value || result != c.result {
				t.Errorf("found %q (%d), want %q (%d)", value, result, c.value, c.result)
			}
			all.Hide(x)
			var lines []string
			for n, v := range x.Request.Header.All() {
				lines = append(lines, n+": "+v)
			}
			left := "|" + strings.Join(lines, "\n")
			if x.Request.HasQuery {
				left = "?" + x.Request.Query + left
			}
			if left != c.left {
				t.Errorf("left %q, want %q", left, c.left)
			}
		})
	}
}

func TestHidingAParameterLeavesTheOthersByteForByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.SliceOf(rapid.StringMatching(`([a-c+;]|%[0-9A-Fa-f]{2}){0,3}(=([a-z+=]|%20|%zz){0,4})?`)).Draw(t, "pairs")
		query := strings.Join(pairs, "&")
		var want []string
		for _, p := range strings.Split(query, "&") {
			k, _, _ := strings.Cut(p, "=")
			if plain, err := url.QueryUnescape(k); err != nil || plain != "a" {
				want = append(want, p)
			}
		}
		if got := cutQuery(query, "a"); got != strings.Join(want, "&") {
			t.Fatalf("cut from %q: got %q, want %q", query, got, strings.Join(want, "&"))
		}
		if _, n := findQuery(cutQuery(query, "a"), "a"); n != 0 {
			t.Fatalf("still found in %q", query)
		}
	})
}

func TestSourcesThatMakeNoSenseAreRefusedAtTheirPlace(t *testing.T) {
	for _, c := range []struct {
		name    string
		sources Sources
		path    string
	}{
		{"none", nil, "from"},
		{"too many", make(Sources, 9), "from"},
		{"nothing in it", Sources{{Header: "A"}, {}}, "from.1"},
		{"two in one", Sources{{Header: "A", Query: "b"}}, "from.0"},
		{"a scheme without a header", Sources{{Query: "b", Scheme: "Bearer"}}, "from.0.scheme"},
		{"a header that is none", Sources{{Header: "A B"}}, "from.0.header"},
		{"a scheme of two words", Sources{{Header: "A", Scheme: "B C"}}, "from.0.scheme"},
		{"a cookie that is none", Sources{{Cookie: "a;b"}}, "from.0.cookie"},
	} {
		var at *decode.PathError
		if err := c.sources.Check("from"); !errors.As(err, &at) || strings.Join(at.Path, ".") != c.path {
			t.Errorf("%s: %v does not point at %s", c.name, err, c.path)
		}
	}
	if err := all.Check("from"); err != nil {
		t.Error(err)
	}
}

func TestARealmCanBeQuoted(t *testing.T) {
	for realm, ok := range map[string]bool{
		"": true, "my shop, (v1)": true, `a"b`: false, `a\b`: false, "größe": false, "a\r\nb": false, strings.Repeat("x", 129): false,
	} {
		if err := CheckRealm(realm); (err == nil) != ok {
			t.Errorf("%.20q: %v", realm, err)
		}
	}
}

func TestFieldsThatOnlyTheGatewayMaySetAreDroppedInEverySpelling(t *testing.T) {
	x := request("-", "X-User: a", "x_user: b", "X-USER: c", "X-Users: d", "X.User: e", "Host: shop")
	Own{"X-User", "x-roles"}.Drop(&x.Request.Header)
	var left []string
	for name := range x.Request.Header.All() {
		left = append(left, name)
	}
	if got := strings.Join(left, " "); got != "X-Users X.User Host" {
		t.Errorf("left %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { Own{"X-User"}.Drop(&x.Request.Header) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzHiddenMeansNotFound(f *testing.F) {
	f.Add("a=1&api_key=k", "x=1; key=k", "ApiKey k")
	f.Add("api%5fkey", `key="`, "apikey")
	f.Fuzz(func(t *testing.T, query, cookie, authorization string) {
		x := request(query, "Cookie: "+cookie, "Authorization: "+authorization)
		all.Hide(x)
		if v, r := all.Find(x); r != Missing {
			t.Fatalf("still found %q", v)
		}
	})
}

func TestFindingAndHidingAHeaderAllocatesNothing(t *testing.T) {
	x := request("a=1&b=2", "Host: shop", "Cookie: a=1")
	x.Request.Header.Add("X-Api-Key", "k")
	if n := testing.AllocsPerRun(100, func() {
		if _, r := all.Find(x); r != Found {
			t.Fatal("not found")
		}
		all.Hide(x)
		x.Request.Header.Add("X-Api-Key", "k")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
