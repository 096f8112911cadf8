package decode

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"headgate/config/model"
	"headgate/internal/size"
)

var update = flag.Bool("update", false, "write the expected texts in testdata anew")

func read(t testing.TB, texts ...string) (*Loaded, Problems) {
	t.Helper()
	var files []File
	for i, text := range texts {
		files = append(files, File{Name: string(rune('a'+i)) + ".yaml", Data: []byte(text)})
	}
	return Document(files)
}

// TestBadDocumentsGetExactlyTheseErrors compares with testdata/*.bad.txt, which read as the manual of what can be wrong.
func TestBadDocumentsGetExactlyTheseErrors(t *testing.T) {
	t.Setenv("HEADGATE_TEST_SECRET", "s3cret")
	paths, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(paths) < 9 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, ps := Document([]File{{Name: path, Data: data}})
		got := ps.Error() + "\n"
		wanted := strings.TrimSuffix(path, ".yaml") + ".txt"
		if *update {
			if err := os.WriteFile(wanted, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(wanted)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" || len(ps) == 0 {
			t.Errorf("%s: %s", path, diff)
		}
		if strings.Contains(got, "s3cret") || strings.Contains(got, "hunter2") {
			t.Errorf("%s: a secret is printed", path)
		}
	}
}

func TestFiveMistakesAreFiveErrors(t *testing.T) {
	data, err := os.ReadFile("testdata/five-mistakes.bad.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, ps := Document([]File{{Name: "shop.yaml", Data: data}})
	codes := map[string]bool{}
	for _, p := range ps {
		codes[p.Code] = true
		if p.Line == 0 || p.Col == 0 || p.File == "" || p.Path == "" {
			t.Errorf("no place: %+v", p)
		}
	}
	if len(ps) != 5 || len(codes) != 5 {
		t.Errorf("%d problems of %d codes:\n%s", len(ps), len(codes), ps.Error())
	}
}

const shop = `
upstreams:
  orders: http://127.0.0.1:9000
apis:
  shop:
    base_path: /shop
    upstream: orders
    policies:
      - api-key
      - rate-limit: {limit: 100, per: 1m}
    routes:
      list orders: {match: GET /orders}
      place order:
        match: {methods: [POST], path: /orders}
        policies:
          - json-limits:
              max_depth: 8
`

func TestADocumentIsReadWithItsDefaults(t *testing.T) {
	l, ps := read(t, shop)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	doc := l.Document
	if u := doc.Upstreams["orders"]; len(u.Targets) != 1 || u.Targets[0] != (model.Target{URL: "http://127.0.0.1:9000", Weight: 1}) ||
		u.Balance.Algorithm != "least-latency" || u.Timeouts.Connect != 2*time.Second {
		t.Errorf("upstream: %+v", u)
	}
	if doc.Admin.Address != "127.0.0.1:9080" || doc.Log.Access.Buffer != 4*size.MiB || doc.Drain.Timeout != 30*time.Second {
		t.Errorf("defaults: %+v %+v %+v", doc.Admin, doc.Log, doc.Drain)
	}
	if r := doc.APIs["shop"].Routes["list orders"]; r.Match.Path != "/orders" || len(r.Match.Methods) != 1 {
		t.Errorf("route: %+v", r)
	}
}

func TestJSONIsADocumentToo(t *testing.T) {
	l, ps := read(t, `{"apis": {"shop": {"version": "1", "upstream": "a", "hosts": ["x.example"], "routes": {"a": {"match": "GET /"}}}},
		"upstreams": {"a": {"targets": [{"url": "http://a", "weight": 3}], "pool": {"idle_timeout": "5s"}, "health": null}}}`)
	if len(ps) > 0 || l.Document.Upstreams["a"].Targets[0].Weight != 3 || l.Document.Upstreams["a"].Health != nil ||
		l.Document.Upstreams["a"].Pool.IdleTimeout != 5*time.Second || l.Document.Upstreams["a"].Pool.IdlePerTarget != 1024 {
		t.Errorf("%v %+v", ps, l.Document)
	}
}

func TestFilesAreMergedAndNamesMayStandOnce(t *testing.T) {
	l, ps := read(t, "apis:\n  a: {upstream: u}\n---\napis:\n  b: {upstream: u}\n",
		"apis:\n  c: {upstream: u}\nupstreams: {u: http://u}\n", "", "# nothing\n")
	if len(ps) > 0 || len(l.Document.APIs) != 3 || len(l.Objects("apis")) != 3 {
		t.Errorf("%v %v", ps, l.Document.APIs)
	}
	_, ps = read(t, "apis:\n  a: {}\nlog: {level: info}\n", "log: {level: warn}\napis:\n  a: {}\nupstreams: {u: []}\n")
	want := `b.yaml:1:1: log: log is already written at a.yaml:3:1; keep it in one place [duplicate_key]
b.yaml:3:3: apis.a: "a" is already written at a.yaml:2:3 [duplicate_object]
b.yaml:4:16: upstreams.u: expected a mapping with the keys targets, discover, balance, sticky, host, protocol, tls, proxy_protocol, timeouts, pool, h2, health, ejection, retry, hedge, breaker, fallback, concurrency, split, mirror or its short form, found a list [wrong_type]`
	if got := ps.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEverythingCanBeFoundAgain(t *testing.T) {
	l, _ := read(t, shop, "apis:\n  billing: {version: v2}\n")
	for _, c := range []struct{ path, want string }{
		{"apis/shop/routes/list orders/match", "a.yaml:12:28"},
		{"apis/shop/routes/place order", "a.yaml:13:7"},
		{"apis/shop/routes/place order/match/methods/0", "a.yaml:14:27"},
		{"apis/shop/routes/place order/policies/0/json-limits/max_depth", "a.yaml:17:26"},
		{"apis/shop/policies/0", "a.yaml:9:9"},
		{"apis/shop/policies/0/api-key", "a.yaml:9:9"},
		{"apis/shop/policies/1/rate-limit/per", "a.yaml:10:39"},
		{"apis/shop", "a.yaml:5:3"},
		{"apis/shop/version", "a.yaml:5:3"},
		{"apis/billing/version", "b.yaml:2:22"},
		{"apis/billing/upstream", "b.yaml:2:12"},
		{"apis/nowhere", "a.yaml:4:1"},
		{"upstreams/orders/targets", "a.yaml:3:11"},
		{"admin/address", "a.yaml:1:1"},
		{"", "a.yaml:1:1"},
	} {
		path := strings.Split(c.path, "/")
		if c.path == "" {
			path = nil
		}
		file, line, col := l.At(path)
		if got := (Problem{File: file, Line: line, Col: col}).Place(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.path, got, c.want)
		}
	}
	if p := l.Problem("unknown_upstream", "no upstream", "apis", "shop", "upstream"); p.String() !=
		"a.yaml:7:15: apis.shop.upstream: no upstream [unknown_upstream]" {
		t.Error(p)
	}
}

func TestAHashChangesWithTheContentAlone(t *testing.T) {
	t.Setenv("HEADGATE_TEST_SECRET", "one")
	base := "x-p: &p {limit: 1}\napis:\n" +
		"  shop: {version: \"${env:HEADGATE_TEST_SECRET}\", policies: [rate-limit: *p]}\n  other: {}\npolicies: [cors]\n"
	l, ps := read(t, base)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	hash := l.Hash("apis", "shop")
	same := "# a comment\n" + strings.Replace(base, "policies: [rate-limit: *p]}", "policies: [{rate-limit: {limit: 1}}]} # the same", 1)
	for _, c := range []struct {
		name, text, secret string
		same               bool
	}{
		{"layout, comments and aliases", same, "one", true},
		{"another object", base + "---\napis: {third: {}}", "one", true},
		{"an anchor's content", strings.Replace(base, "limit: 1", "limit: 2", 1), "one", false},
		{"a variable", base, "two", false},
		{"quotes, which make text of a number", strings.Replace(base, "limit: 1", "limit: '1'", 1), "one", false},
	} {
		t.Setenv("HEADGATE_TEST_SECRET", c.secret)
		l, _ := read(t, c.text)
		if got := l.Hash("apis", "shop") == hash; got != c.same {
			t.Errorf("%s: same = %v", c.name, got)
		}
	}
	if l.Hash("apis", "nowhere") != (Hash{}) || l.Hash("admin") != (Hash{}) || l.Hash("policies") == (Hash{}) {
		t.Error("what is not written must have the zero hash, and what is must not")
	}
	more, _ := read(t, base+"---\napis: {third: {}}")
	if l.Hash("apis") == more.Hash("apis") || l.Hash("policies") != more.Hash("policies") {
		t.Error("a section's hash must follow its objects, and only them")
	}
}

func TestReferencesAreReadOnceAndRelativeToTheirFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("a key\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reads := 0
	refs := newReferences("")
	refs.read = func(path string) (string, error) { reads++; return readReference(path) }
	text := "consumers:\n  a: {keys: ['${file:key}']}\n  b: {keys: ['${file:" + dir + "/key}', '${file:other}']}\n"
	l, ps := document([]File{{Name: filepath.Join(dir, "doc.yaml"), Data: []byte(text)}}, refs)
	if len(ps) != 1 || ps[0].Code != "missing_reference" {
		t.Fatal(ps)
	}
	if got := l.Document.Consumers["a"].Keys[0].Reveal(); got != "a key\n" || reads != 2 {
		t.Errorf("key = %q after %d reads", got, reads)
	}
	if diff := cmp.Diff([]string{dir + "/key", dir + "/other"}, l.References()); diff != "" {
		t.Error(diff)
	}
}

func TestOptionsThatAreDecodedLaterAreResolvedAndStaySecret(t *testing.T) {
	t.Setenv("HEADGATE_TEST_SECRET", "s3cret")
	l, ps := read(t, "policies:\n  - jwt: {text: 'x ${env:HEADGATE_TEST_SECRET}', count: '${env:HEADGATE_TEST_SECRET}', path: '$${env:X}'}\n")
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	t.Setenv("HEADGATE_TEST_SECRET", "changed since")
	options := l.Document.Policies[0].Options
	var got everything
	ps = Value(options, &got).In("a.yaml", "policies", "0", "jwt")
	if want := `a.yaml:2:57: policies[0].jwt.count: expected a whole number, found <secret> [wrong_type]
a.yaml:2:94: policies[0].jwt.path: "${env:X}" must begin with / [bad_pattern]`; ps.Error() != want || got.Text != "x s3cret" {
		t.Errorf("%q\n%s", got.Text, ps.Error())
	}
	if err := Locate(options, errors.New("cannot use s3cret")); err.Error() != "2:10: cannot use <secret> [invalid_value]" {
		t.Error(err)
	}
}

func TestAliasBombsInRawOptionsAreRefusedAtTheDoor(t *testing.T) {
	var b strings.Builder
	b.WriteString("x-0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 20 {
		fmt.Fprintf(&b, "x-%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
	}
	b.WriteString("policies: [script: {x: *a20}]\n")
	_, ps := read(t, b.String())
	if len(ps) != 1 || ps[0].Code != "too_many_aliases" {
		t.Errorf("%.300s", ps.Error())
	}
}

// routes writes a document of n routes in APIs of a hundred.
func routes(n int) []byte {
	var b strings.Builder
	b.WriteString("upstreams: {orders: http://127.0.0.1:9000}\napis:\n")
	for i := range n {
		if i%100 == 0 {
			fmt.Fprintf(&b, "  api%d:\n    base_path: /api%d\n    upstream: orders\n    routes:\n", i/100, i/100)
		}
		fmt.Fprintf(&b, "      route %d:\n        match: GET /orders/%d/{id}\n", i, i)
		b.WriteString("        policies:\n          - rate-limit: {limit: 100, per: 1m}\n")
	}
	return []byte(b.String())
}

func BenchmarkDocumentOf10000Routes(b *testing.B) {
	files := []File{{Name: "a.yaml", Data: routes(10_000)}}
	b.SetBytes(int64(len(files[0].Data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, ps := Document(files); len(ps) > 0 {
			b.Fatal(ps)
		}
	}
}

func BenchmarkHashOf10000Routes(b *testing.B) {
	l, _ := Document([]File{{Name: "a.yaml", Data: routes(10_000)}})
	b.ReportAllocs()
	for b.Loop() {
		for _, name := range l.Objects("apis") {
			l.Hash("apis", name)
		}
	}
}

func BenchmarkOptionsOfAPolicy(b *testing.B) {
	n := parse(b, "{level: high, depth: 4}")
	b.ReportAllocs()
	for b.Loop() {
		var in inner
		if ps := Value(n, &in); len(ps) > 0 {
			b.Fatal(ps)
		}
	}
}

// FuzzDocument: whatever is read, it ends soon, does not panic, and every problem has a place in a file.
func FuzzDocument(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.yaml")
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add(shop)
	f.Add("x-a: &a {<<: [*a, {b: *a}]}")
	f.Add("policies: [any: [all: [any: [jwt]]]]")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 64<<10 {
			t.Skip()
		}
		refs := newReferences("")
		refs.env = func(string) (string, bool) { return "se-cr-et", true }
		refs.read = func(string) (string, error) { return "se-cr-et", nil }
		l, ps := document([]File{{Name: "a.yaml", Data: []byte(text)}, {Name: "b.yaml", Data: []byte(text)}}, refs)
		for _, p := range ps {
			if p.File == "" || p.Code == "" || p.Message == "" || p.Line < 0 {
				t.Errorf("%+v", p)
			}
			if strings.Contains(p.Message, "se-cr-et") && !strings.Contains(text, "se-cr-et") {
				t.Errorf("a secret is printed: %s", p)
			}
		}
		for _, name := range l.Objects("apis") {
			l.Hash("apis", name)
			l.At([]string{"apis", name, "routes", "x", "0"})
		}
		for _, p := range l.Document.Policies {
			var got everything
			Locate(p.Options, Value(p.Options, &got))
		}
	})
}
