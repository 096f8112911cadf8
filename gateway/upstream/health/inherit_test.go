package health

import (
	"fmt"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/upstream/balance"
)

// reload makes a group of targets that inherits from the world's, and makes it live unless it is refused.
func (w *world) reload(t *testing.T, h *model.Health, e model.Ejection, refused bool, targets ...int) (*Group, []*Record) {
	t.Helper()
	next := w.fresh(t, h, e)
	var list []*Record
	for _, i := range targets {
		address := fmt.Sprintf("10.0.0.%d:80", i)
		next.Join(address, address, func() *balance.Load { return balance.NewLoad(nil) })
	}
	next.Inherit(w.group)
	for _, i := range targets {
		address := fmt.Sprintf("10.0.0.%d:80", i)
		list = append(list, next.Join(address, address, func() *balance.Load { t.Error("it is known"); return nil }))
	}
	next.Members(list)
	if refused {
		next.Close()
		return next, list
	}
	next.Live()
	t.Cleanup(next.Close)
	w.group.Close()
	return next, list
}

func TestRecordsOutliveAReload(t *testing.T) {
	w := newWorld(t, 3, rules(nil))
	w.fail(w.targets[0], 5, Late)
	w.fail(w.targets[1], 4, Late)
	next, list := w.reload(t, nil, rules(func(e *model.Ejection) { e.For, e.MaxShare = time.Minute, 100 }), false, 0, 1, 2)
	for i := range list {
		if list[i] != w.targets[i] {
			t.Errorf("target %d is another one", i)
		}
	}
	if !w.isOut(list[0]) {
		t.Error("the ejection is forgotten")
	}
	w.fail(w.targets[1], 1, Late) // by a request of the old document
	if s := list[1].Status(); s.State != ejected || list[1].Load().EjectedUntil()-w.now != time.Minute {
		t.Errorf("the new rules do not hold: %+v", s)
	}
	w.group.Members(nil) // discovery of the old upstream, before it is closed
	w.group.Tidy()
	w.pass(11 * time.Second)
	next.Tidy()
	if s := list[0].Status(); s.State != available || len(s.History) != 2 {
		t.Errorf("%+v", s)
	}
}

func TestADocumentThatIsRefusedChangesNothing(t *testing.T) {
	w := newWorld(t, 2, rules(nil))
	w.fail(w.targets[0], 4, Late)
	w.reload(t, nil, rules(func(e *model.Ejection) { e.For, e.Failures = time.Minute, 50 }), true, 0, 1)
	w.fail(w.targets[0], 1, Late)
	if until := w.targets[0].Load().EjectedUntil() - w.now; until != 10*time.Second {
		t.Errorf("ejected for %v by the rules of a document that never was", until)
	}
	if s := w.targets[0].Status(); s.State != ejected {
		t.Errorf("%+v", s)
	}
}

func TestAReloadThatTakesTargetsAwayKeepsToTheShare(t *testing.T) {
	w := newWorld(t, 4, rules(nil))
	w.fail(w.targets[0], 5, Late)
	w.fail(w.targets[1], 5, Late)
	_, list := w.reload(t, nil, rules(nil), false, 0, 1)
	if w.isOut(list[0]) == w.isOut(list[1]) {
		t.Errorf("of two targets with 50 %%: %d are out", w.out())
	}
}

func TestATargetThatGoesAndComesWithinAMinuteIsRemembered(t *testing.T) {
	for _, test := range []struct {
		away time.Duration
		kept bool
	}{{59 * time.Second, true}, {61 * time.Second, false}} {
		w := newWorld(t, 4, rules(func(e *model.Ejection) { e.For = time.Hour }))
		w.fail(w.targets[0], 5, Late)
		w.group.Leave(w.targets[0])
		w.group.Leave(w.targets[1]) // about which nothing is known
		w.group.Members(w.targets[2:])
		w.pass(test.away)
		w.group.Tidy()
		again, other := w.join(0), w.join(1)
		w.group.Members([]*Record{again, other, w.targets[2], w.targets[3]})
		if (again == w.targets[0]) != test.kept || w.isOut(again) != test.kept || other == w.targets[1] {
			t.Errorf("away for %v: %+v", test.away, again.Status())
		}
	}
}

func TestWhoIsRememberedIsBounded(t *testing.T) {
	w := newWorld(t, maxRemembered+100, rules(func(e *model.Ejection) { e.MaxShare = 100 }))
	for _, r := range w.targets {
		w.fail(r, 5, Late)
		w.group.Leave(r)
	}
	if n := len(w.group.gone); n != maxRemembered {
		t.Errorf("%d are remembered", n)
	}
	w.pass(2 * time.Minute)
	w.group.Tidy()
	if n := len(w.group.gone); n != 0 {
		t.Errorf("%d are remembered after two minutes", n)
	}
}

func TestWhenProbesAreTakenOutOfTheDocumentWhatTheySaidHoldsNoMore(t *testing.T) {
	w := newWorld(t, 2, rules(nil))
	h := every(time.Second)
	w.group.probe = &h
	for range 3 {
		w.targets[0].probe(w.group, &unwell{probeStatus, "answered 500"})
	}
	if !w.isOut(w.targets[0]) {
		t.Fatal("three failed probes")
	}
	_, list := w.reload(t, nil, rules(nil), false, 0, 1)
	if s := list[0].Status(); s.State != available || s.Probe != "" || s.History[1].Cause != "not_probed" {
		t.Errorf("%+v", s)
	}
}
