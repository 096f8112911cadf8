package compile

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/gateway/engine"
	"headgate/gateway/exchange"
	"headgate/gateway/release"
	"headgate/gateway/upstream"
	"headgate/internal/metric"
)

const released = `
upstreams:
  v1: {targets: [http://127.0.0.1:9000]}
  v2: {targets: [http://127.0.0.1:9001]}
  v3: {targets: [http://127.0.0.1:9002]}
  shop:
    split: {by: header.x-user, header: X-Variant, variants: {old: {upstream: v1, weight: 3}, new: {upstream: v2, weight: 1}}}
    sticky: {key: "a key of thirty-two characters !!"}
  plain: {targets: [http://127.0.0.1:9003], fallback: {upstream: v3}}
apis:
  shop: {base_path: /shop, upstream: shop}
  plain: {base_path: /plain, upstream: plain}
`

func TestASplitStandsInThePlaceOfAnUpstream(t *testing.T) {
	w := newWorld(t)
	s := w.load(released)
	r := routeOf(t, s, "GET /shop")
	if _, ok := r.Release.(*release.Pinned); !ok || r.Upstream != nil {
		t.Errorf("%T, %v", r.Release, r.Upstream)
	}
	if r := routeOf(t, s, "GET /plain"); r.Release != nil || r.Upstream == nil {
		t.Errorf("nothing stands in front of this one: %T", r.Release)
	}
	names := namesOf(s.Upstreams())
	if want := []string{"plain", "v1", "v2", "v3"}; !slices.Equal(names, want) {
		t.Errorf("the snapshot knows %q, want %q", names, want)
	}
}

func TestAMirrorStandsInFrontAndIsClosedWithItsSnapshot(t *testing.T) {
	w := newWorld(t)
	const mirrored = `
upstreams:
  shadow: {targets: [http://127.0.0.1:9000]}
  shop: {targets: [http://127.0.0.1:9001], sticky: {}, mirror: {upstream: shadow, percent: 25, compare: {}}}
apis:
  shop: {upstream: shop}
`
	before := w.load(mirrored)
	r := routeOf(t, before, "GET /")
	if _, ok := r.Release.(*release.Mirror); !ok || r.Upstream == nil {
		t.Errorf("%T, %v", r.Release, r.Upstream)
	}
	e, err := Explain(before, "GET", "/")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"upstream shadow gets copies of 25 % of the requests, whose answers are compared",
		"the cookie headgate keeps a client at its target",
	}
	if !slices.Equal(e.Release, want) || !slices.Equal(e.Targets, []string{"127.0.0.1:9001"}) {
		t.Errorf("%q, %q", e.Release, e.Targets)
	}
	w.load(replace(mirrored, "25", "50"))
	w.drained(before)
	if !strings.Contains(w.log.String(), "sticky cookies are signed by a key that no other node and no restart knows") {
		t.Error("nobody is told that the key is lost with the process")
	}
}

func namesOf(list []*upstream.Upstream) (names []string) {
	for _, u := range list {
		names = append(names, u.Name)
	}
	slices.Sort(names)
	return names
}

func TestAVariantThatDidNotChangeIsTakenOver(t *testing.T) {
	w := newWorld(t)
	before := w.load(released)
	built := w.Built().Upstreams
	after := w.load(replace(released, "weight: 1", "weight: 2", "9001", "9101"))
	if n := w.Built().Upstreams - built; n != 1 {
		t.Errorf("%d upstreams were built, and one has changed", n)
	}
	find := func(s *engine.Snapshot, name string) *upstream.Upstream {
		for _, u := range s.Upstreams() {
			if u.Name == name {
				return u
			}
		}
		return nil
	}
	if find(before, "v1") != find(after, "v1") || find(before, "v2") == find(after, "v2") {
		t.Error("v1 is another one, or v2 is not")
	}
	w.drained(before)
}

func TestExplainSaysWhichVariantAndWhy(t *testing.T) {
	s := newWorld(t).load(released)
	for _, tt := range []struct {
		header [2]string
		last   string
	}{
		{[2]string{"X-A", "b"}, "this request has no key: the sticky cookie decides, or chance"},
		{[2]string{"X-Variant", "new"}, "this request gets new: it names it, and it may"},
		{[2]string{"X-User", "ann"}, "this request gets old by its key"},
	} {
		e, err := Explain(s, "GET", "/shop/x", tt.header)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			"the cookie headgate keeps a client at its variant and target",
			"variant new gets 25 % from upstream v2", "variant old gets 75 % from upstream v1", tt.last,
		}
		if !slices.Equal(e.Release, want) || e.Upstream != "shop" || e.Path != "/shop/x" {
			t.Errorf("%s, asked for %s:\n%s\nwant\n%s", e.Upstream, e.Path, strings.Join(e.Release, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestFrontsAreTakenOverUnlessTheyOrWhatTheyLeadToChanged(t *testing.T) {
	const document = `
upstreams:
  v1: {targets: [http://127.0.0.1:9000]}
  v2: {targets: [http://127.0.0.1:9001]}
  shadow: {targets: [http://127.0.0.1:9002]}
  other: {targets: [http://127.0.0.1:9003]}
  inner: {split: {variants: {a: {upstream: v1}, b: {upstream: v2}}}}
  shop: {split: {variants: {a: {upstream: inner}}}, sticky: {key: "a key of thirty-two characters !!"}, mirror: {upstream: shadow}}
  stock: {targets: [http://127.0.0.1:9004], mirror: {upstream: shadow}}
apis:
  shop: {base_path: /shop, upstream: shop}
  stock: {base_path: /stock, upstream: stock}
`
	tests := []struct {
		name, from, to string
		built          string
	}{
		{"nothing", "", "", ""},
		{"an upstream that none of them knows", "9003", "9103", ""},
		{"a route", "/stock,", "/stocks,", ""},
		{"a variant of a split in a split", "9001", "9101", "inner shop"},
		{"a weight", "a: {upstream: v1}", "a: {upstream: v1, weight: 2}", "inner shop"},
		{"who gets the copies", "9002", "9102", "shop stock"},
		{"whose requests are copied", "9004", "9104", "stock"},
		{"a key", "thirty-two characters !!", "thirty-two characters ??", "shop"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			first := w.load(document)
			second := w.load(strings.Replace(document, tt.from, tt.to, 1))
			var built []string
			for i, f := range second.Fronts {
				if first.Fronts[i].Name != f.Name {
					t.Fatalf("%s instead of %s", f.Name, first.Fronts[i].Name)
				}
				if first.Fronts[i].Service != f.Service {
					built = append(built, f.Name)
				}
			}
			if got := strings.Join(built, " "); got != tt.built || w.Built().Fronts != len(first.Fronts)+len(built) {
				t.Errorf("built anew: %q (%d in all), want %q", got, w.Built().Fronts, tt.built)
			}
			if r := routeOf(t, second, "GET /shop"); r.Release != second.Fronts[1].Service {
				t.Errorf("the route leads to %T, which is none of the snapshot's fronts", r.Release)
			}
			w.drained(first)
		})
	}
}

func TestAFrontThatIsTakenOverIsCheckedAgain(t *testing.T) {
	const document = `
upstreams:
  shop: {targets: [http://127.0.0.1:9000], sticky: {}}
apis:
  shop: {upstream: shop}
`
	w := newWorld(t)
	first := w.load(document)
	problems := w.refuse(replace(document, "apis:", "  other: {targets: [http://127.0.0.1:9001], sticky: {}}\napis:"))
	if !strings.Contains(strings.Join(problems, "\n"), "pins its clients by the cookie") {
		t.Errorf("%q", problems)
	}
	if second := w.load(document); second.Fronts[0].Service != first.Fronts[0].Service {
		t.Error("a document that was refused has cost the front")
	}
	w.drained(first)
}

// nobody is a wire without a client.
type nobody struct{}

func (nobody) Inform(*exchange.Exchange, int, *exchange.Header) error { return nil }
func (nobody) Reply(*exchange.Exchange) error                         { return nil }
func (nobody) Interrupt()                                             {}

// A copy that takes longer than a reload is patient is not cut when something else has changed.
func TestAReloadOfSomethingElseLeavesCopiesAlone(t *testing.T) {
	asked, release := make(chan bool, 1), make(chan bool)
	shop := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer shop.Close()
	shadow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- true; <-release }))
	defer shadow.Close()
	defer close(release)
	document := "upstreams: {other: http://127.0.0.1:9000, shadow: " + shadow.URL + ", shop: {targets: [" + shop.URL +
		"], mirror: {upstream: shadow, timeout: 1m}}}\napis: {shop: {upstream: shop}, other: {base_path: /other, upstream: other}}\n"
	w := newWorld(t)
	first := w.load(document)
	r, x := ask(t, first, "GET /")
	x.Wire, x.Cancel, x.Start = nobody{}, new(exchange.Canceler), time.Now()
	call, err := r.Release.Send(x)
	if err != nil {
		t.Fatal(err)
	}
	call.Close()
	<-asked
	second := w.load(replace(document, "9000", "9100"))
	w.drained(first) // which would end copies of a mirror that goes
	st := second.Fronts[0].Status(x.Start).Mirror
	if st.UnderWay != 1 || st.Copies["failed"]+st.Copies["timeout"] != 0 {
		t.Errorf("%+v", st)
	}
	release <- true
	for end := time.Now().Add(30 * time.Second); st.Copies["answered"] != 1; time.Sleep(time.Millisecond) {
		if st = second.Fronts[0].Status(x.Start).Mirror; time.Now().After(end) {
			t.Fatalf("the copy was not answered: %+v", st)
		}
	}
}

func TestTheWeightOfAVariantIsAGauge(t *testing.T) {
	w := newWorld(t)
	weights := func() (list []string) {
		w.metrics.Visit(func(*metric.Family, *metric.Series) {}, func(collect func(metric.Emit)) {
			collect(func(name, _ string, _ metric.Type, v float64, labels ...metric.Label) {
				if name == "headgate_variant_weight" {
					list = append(list, fmt.Sprint(labels[0].Value, " ", labels[1].Value, " ", v))
				}
			})
		})
		return list
	}
	first := w.load(released)
	if got, want := weights(), []string{"shop new 1", "shop old 3"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	second := w.load(replace(released, "weight: 1", "weight: 1, ramp: {to: 9, start: 2020-01-01T00:00:00Z, over: 1h}"))
	w.drained(first)
	if got, want := weights(), []string{"shop new 9", "shop old 3"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	w.load("upstreams: {a: http://127.0.0.1:9000}\napis: {a: {upstream: a}}\n")
	w.drained(second)
	if got := weights(); len(got) > 0 {
		t.Errorf("a split is gone, and there is %q", got)
	}
}
