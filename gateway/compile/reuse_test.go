package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"headgate/config/decode"
	"headgate/gateway/engine"
	"headgate/gateway/exchange"
	"headgate/internal/metric"
)

// shops is a document of n APIs with ten routes each. Each API and each policy has a value of its own.
func shops(n int, edit ...string) string {
	var b strings.Builder
	b.WriteString("upstreams: {orders: http://127.0.0.1:9000, stock: http://127.0.0.1:9001}\npolicies: [probe]\n")
	b.WriteString("consumers: {ann: {keys: ['" + hashed("one") + "']}}\napis:\n")
	for i := range n {
		fmt.Fprintf(&b, "  api%d:\n    base_path: /api%d\n    upstream: orders\n    policies: [guard]\n    routes:\n", i, i)
		for k := range 10 {
			fmt.Fprintf(&b, "      route %d:\n        match: GET /orders/%d/{id}\n        policies:\n          - probe: {limit: 1}\n", k, k)
		}
	}
	return strings.NewReplacer(edit...).Replace(b.String())
}

func routeOf(t testing.TB, s *engine.Snapshot, line string) *engine.Route {
	t.Helper()
	r, _ := ask(t, s, line)
	if r == s.NotFound {
		t.Fatalf("%s leads nowhere", line)
	}
	return r
}

func TestOnlyWhatChangedIsBuiltAgain(t *testing.T) {
	const routes = 10
	tests := []struct {
		name string
		edit []string
		want Built
	}{
		{"nothing", nil, Built{}},
		{"a comment and the order of keys", []string{"    base_path: /api3\n    upstream: orders\n",
			"    upstream: orders # here\n    base_path: /api3\n"}, Built{APIs: 1, Policies: 1 + routes}},
		{"a comment", []string{"base_path: /api3\n", "base_path: /api3 # here\n"}, Built{}},
		{"one API's path", []string{"base_path: /api3\n", "base_path: /api3x\n"}, Built{APIs: 1, Policies: 1 + routes}},
		{"a new API in front of all", []string{"apis:\n", "apis:\n  aaa: {base_path: /aaa, upstream: orders}\n"}, Built{APIs: 1}},
		{"an upstream", []string{"http://127.0.0.1:9000", "http://127.0.0.1:9002"}, Built{Upstreams: 1}},
		{"an upstream more", []string{"upstreams: {", "upstreams: {more: http://127.0.0.1:9003, "}, Built{Upstreams: 1}},
		{"a consumer", []string{hashed("one"), hashed("two")}, Built{Consumers: 1}},
		{"a policy of every request", []string{"policies: [probe]", "policies: [{probe: {limit: 2}}]"}, Built{APIs: 5,
			Policies: 1 + 5*(1+routes)}},
		{"a listener", []string{"policies: [probe]", "listeners: {a: {address: ':81'}}\npolicies: [probe]"}, Built{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			first := w.load(shops(5))
			before := w.Built()
			if want := (Built{2, 5, 1 + 5*(1+routes), 1, 0}); before != want {
				t.Fatalf("at first %+v is built, want %+v", before, want)
			}
			kept := w.kept.Load()
			s := w.load(shops(5, tt.edit...))
			after := w.Built()
			got := Built{after.Upstreams - before.Upstreams, after.APIs - before.APIs, after.Policies - before.Policies,
				after.Consumers - before.Consumers, after.Fronts - before.Fronts}
			if got != tt.want {
				t.Errorf("built %+v, want %+v", got, tt.want)
			}
			w.drained(first)
			if closed := int(w.closed.Load()); closed != got.Policies {
				t.Errorf("%d policies were closed for %d that were built", closed, got.Policies)
			}
			if w.kept.Load() != kept {
				t.Errorf("%d values are kept, before %d", w.kept.Load(), kept)
			}
			if r := routeOf(t, s, "GET /api2/orders/1/2"); r.Upstream == nil || s.Routes[r.Info.Index] != r {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestAChangedUpstreamIsAskedByRoutesThatAreNotBuiltAgain(t *testing.T) {
	w := newWorld(t)
	first := w.load(shops(2))
	old := routeOf(t, first, "GET /api1/orders/1/2").Upstream
	second := w.load(shops(2, "http://127.0.0.1:9000", "http://127.0.0.1:9009"))
	r := routeOf(t, second, "GET /api1/orders/1/2")
	if r.Upstream == old || r.Upstream.Status().Targets[0].Address != "127.0.0.1:9009" {
		t.Errorf("%+v", r.Upstream.Status())
	}
	w.drained(first)
	if got := targets(w); !strings.Contains(got, "127.0.0.1:9009") || strings.Contains(got, "127.0.0.1:9000") {
		t.Errorf("metrics speak of %s", got)
	}
}

// targets are those that the metrics speak of.
func targets(w *world) string {
	var found []string
	w.metrics.Visit(func(*metric.Family, *metric.Series) {}, func(collect func(metric.Emit)) {
		collect(func(name, _ string, _ metric.Type, _ float64, labels ...metric.Label) {
			if name == "headgate_target_available" {
				found = append(found, fmt.Sprint(labels))
			}
		})
	})
	return strings.Join(found, " ")
}

func TestADocumentThatIsRefusedLeavesEverythingAsItWas(t *testing.T) {
	w := newWorld(t)
	first := w.load(shops(3))
	before, kept := w.Built(), w.kept.Load()
	w.refuse(shops(3, "http://127.0.0.1:9000", "http://127.0.0.1:9009", "base_path: /api1\n", "base_path: /api2\n",
		hashed("one"), hashed("two")))
	if w.kept.Load() != kept || w.consumers.Generation() != 1 {
		t.Errorf("%d values are kept, before %d; generation %d", w.kept.Load(), kept, w.consumers.Generation())
	}
	w.load(shops(3))
	if after := w.Built(); after != before {
		t.Errorf("built %+v, before %+v", after, before)
	}
	w.drained(first)
	if got := targets(w); !strings.Contains(got, "127.0.0.1:9000") {
		t.Errorf("metrics speak of %s", got)
	}
}

func BenchmarkCompile10000Routes(b *testing.B) {
	files := []decode.File{{Name: "gate.yaml", Data: []byte(shops(1000))}}
	for b.Loop() {
		w := newWorld(b)
		s, _, problems := w.Load(files)
		if len(problems) > 0 {
			b.Fatal(problems)
		}
		w.engine.Swap(s)
	}
}

func BenchmarkOneAPIOf1000Changed(b *testing.B) {
	w := newWorld(b)
	w.load(shops(1000))
	files := [2][]decode.File{
		{{Name: "gate.yaml", Data: []byte(shops(1000, "base_path: /api7\n", "base_path: /seven\n"))}},
		{{Name: "gate.yaml", Data: []byte(shops(1000))}},
	}
	var loaded [2]*decode.Loaded
	for i := range files {
		loaded[i], _ = decode.Document(files[i])
	}
	i := 0
	for b.Loop() {
		s, problems := w.Compile(loaded[i%2])
		if len(problems) > 0 {
			b.Fatal(problems)
		}
		w.engine.Swap(s)
		i++
	}
}

func TestAnUpstreamThatHasChangedKeepsWhatIsKnownAboutItsTargets(t *testing.T) {
	w := newWorld(t)
	const document = "upstreams:\n  orders:\n    targets: [http://127.0.0.1:1, http://127.0.0.1:2]\n    timeouts: {response: 5s}\n" +
		"    ejection: {consecutive_connect_failures: 1, for: 1h}\napis: {shop: {upstream: orders}}\n"
	first := w.load(document)
	state := func(s *engine.Snapshot) (list []string) {
		for _, target := range routeOf(t, s, "GET /").Upstream.Status().Targets {
			list = append(list, target.Address+" "+target.State)
		}
		return list
	}
	x := &exchange.Exchange{}
	x.Request = exchange.Request{Method: "GET", Path: "/", Host: "shop", Scheme: "http"}
	if _, err := routeOf(t, first, "GET /").Upstream.Send(x); err == nil {
		t.Fatal("somebody listens on port 1 or 2")
	}
	before := state(first)
	if got := strings.Join(before, ", "); strings.Count(got, "ejected") != 1 {
		t.Fatalf("of two targets that refuse connections one may be ejected: %s", got)
	}
	second := w.load(strings.Replace(document, "5s", "6s", 1))
	if a, b := routeOf(t, first, "GET /").Upstream, routeOf(t, second, "GET /").Upstream; a == b {
		t.Fatal("the upstream is the same one")
	}
	w.drained(first)
	if after := state(second); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
	w.refuse(strings.Replace(document, "5s", "never", 1))
	third := w.load(strings.Replace(document, "http://127.0.0.1:1, http://127.0.0.1:2", "http://127.0.0.1:3", 1))
	w.drained(second)
	fourth := w.load(document)
	w.drained(third)
	if after := state(fourth); !slices.Equal(before, after) {
		t.Errorf("removed and added again within a minute: before %v, after %v", before, after)
	}
}
