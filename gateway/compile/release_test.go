package compile

import (
	"slices"
	"strings"
	"testing"

	"headgate/gateway/engine"
	"headgate/gateway/release"
	"headgate/gateway/upstream"
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
