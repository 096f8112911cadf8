package compile

import "testing"

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
	old := ref.Borrow(1)
	if old == nil || old.Name != "second" {
		t.Fatalf("leads to %+v", old)
	}
	after := w.load(lending[:len(lending)-1] + "\n  more: {base_path: /more, upstream: second}\n")
	if now := ref.Borrow(2); now != old {
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
	now := ref.Borrow(1)
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
