package compile

import (
	"testing"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream"
)

const lending = `
upstreams:
  first: {targets: [http://127.0.0.1:9000], fallback: {upstream: second}}
  second: {targets: [http://127.0.0.1:9001]}
apis:
  shop: {upstream: first}
`

func TestAnUpstreamThatWasTakenOverLeadsToTheNewOneThatItNames(t *testing.T) {
	w := newWorld(t)
	before := w.load(lending)
	first := routeOf(t, before, "GET /").Upstream
	ref := first.Ref("second")
	borrow := func(shard uint32) *upstream.Upstream {
		u, settle := ref.Borrow(&exchange.Exchange{Shard: shard})
		if settle != nil {
			t.Error("an upstream with targets does not want to know what came of it")
		}
		return u
	}
	old := borrow(1)
	if old == nil || old.Name != "second" {
		t.Fatalf("leads to %+v", old)
	}
	after := w.load(lending[:len(lending)-1] + "\n  more: {base_path: /more, upstream: second}\n")
	if now := borrow(2); now != old {
		t.Error("nothing about either has changed")
	} else {
		now.Return(2)
	}
	w.drained(before)
	before = after
	const changed = "\nupstreams:\n  first: {targets: [http://127.0.0.1:9000], fallback: {upstream: second}}\n" +
		"  second: {targets: [http://127.0.0.1:9002]}\napis:\n  shop: {upstream: first}\n"
	after = w.load(changed)
	if routeOf(t, after, "GET /").Upstream != first {
		t.Fatal("first has not changed and is taken over")
	}
	now := borrow(1)
	if now == nil || now == old {
		t.Errorf("first leads to %p still, which is the one of before", now)
	}
	w.drained(before)
	if old.Closed() {
		t.Error("it was closed while it was lent")
	}
	if old.Return(1); !old.Closed() {
		t.Error("it is closed with the last loan")
	}
	if now.Return(1); now.Closed() {
		t.Error("a loan that ends closes nothing that is live")
	}
}

// A fallback that is a split, and in it another one, leads to the variants of the document that is live.
func TestAFallbackMayBeASplit(t *testing.T) {
	const document = `
upstreams:
  first: {targets: [http://127.0.0.1:9000], fallback: {upstream: spare}}
  spare: {split: {variants: {a: {upstream: a}, more: {upstream: inner}}, header: X-Variant}, sticky: {}}
  inner: {split: {variants: {b: {upstream: b}, c: {upstream: c, weight: 0}}, header: X-Other}, mirror: {upstream: a}}
  a: {targets: [http://127.0.0.1:9001]}
  b: {targets: [http://127.0.0.1:9002]}
  c: {targets: [http://127.0.0.1:9003]}
apis:
  shop: {upstream: first}
`
	w := newWorld(t)
	before := w.load(document)
	first := routeOf(t, before, "GET /").Upstream
	leads := func(variant string) (*upstream.Upstream, string) {
		x := &exchange.Exchange{}
		x.Request.Header.Add("X-Variant", variant)
		u, settle := first.Ref("spare").Borrow(x)
		if u == nil || settle == nil {
			t.Fatalf("%s leads to %v", variant, u)
		}
		settle(nil)
		u.Return(0)
		return u, x.Usage.Variant
	}
	for variant, want := range map[string]string{"a": "a", "more": "b"} {
		if u, seen := leads(variant); u.Name != want || seen != variant {
			t.Errorf("%s leads to %s and is seen as %s", variant, u.Name, seen)
		}
	}
	old, _ := leads("more")
	after := w.load(replace(document, "9002", "9102"))
	if routeOf(t, after, "GET /").Upstream != first {
		t.Fatal("first has not changed and is taken over")
	}
	if now, _ := leads("more"); now == old || now.Name != "b" {
		t.Error("it leads to the variant of the document before")
	}
	w.drained(before)
	before = after
	after = w.load(replace(document, "c, weight: 0}}", "c}}", "b: {upstream: b}", "b: {upstream: b, weight: 0}"))
	if now, _ := leads("more"); now.Name != "c" {
		t.Errorf("by the weights of before it leads to %s", now.Name)
	}
	w.drained(before)
	before = after
	w.load(replace(document, "upstream: b}", "upstream: b, weight: 0}"))
	x := &exchange.Exchange{}
	x.Request.Header.Add("X-Variant", "more")
	if u, _ := first.Ref("spare").Borrow(x); u != nil {
		t.Errorf("all weights are 0, and it leads to %s", u.Name)
	}
	w.drained(before)
}
