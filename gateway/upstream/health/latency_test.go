package health

import (
	"strings"
	"testing"
	"time"

	"headgate/config/model"
)

// running is a group of targets that have answered and were compared.
func running(t *testing.T, e model.Ejection, took ...time.Duration) *world {
	w := newWorld(t, len(took), e)
	for i, r := range w.targets {
		w.answer(r, 50, took[i])
	}
	w.pass(5 * time.Second)
	w.group.Tidy()
	return w
}

func TestATargetMuchSlowerThanTheOthersIsEjected(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name string
		took []time.Duration
		then []time.Duration // of the first target, again and again
		n    int
		out  bool
	}{
		{"ten times as slow", []time.Duration{10 * ms, 10 * ms, 12 * ms}, []time.Duration{150 * ms}, 40, true},
		{"of two targets", []time.Duration{10 * ms, 10 * ms}, []time.Duration{150 * ms}, 40, true},
		{"for one row only", []time.Duration{10 * ms, 10 * ms, 12 * ms}, []time.Duration{150 * ms}, 39, false},
		{"half of the time", []time.Duration{10 * ms, 10 * ms, 12 * ms}, []time.Duration{150 * ms, 150 * ms, 9 * ms}, 60, true},
		{"a third of the time", []time.Duration{10 * ms, 10 * ms, 12 * ms}, []time.Duration{9 * ms, 150 * ms, 9 * ms}, 900, false},
		{"nine times as slow", []time.Duration{10 * ms, 10 * ms, 12 * ms}, []time.Duration{99 * ms}, 900, false},
		{"slow, but nobody would notice", []time.Duration{ms, ms, ms}, []time.Duration{19 * ms}, 900, false},
		{"beside others that are slow too", []time.Duration{10 * ms, 100 * ms, 100 * ms}, []time.Duration{150 * ms}, 900, false},
		{"alone", []time.Duration{10 * ms}, []time.Duration{time.Minute}, 900, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := running(t, rules(func(e *model.Ejection) { e.MaxShare = 100 }), test.took...)
			for i := range test.n {
				w.answer(w.targets[0], 1, test.then[i%len(test.then)])
			}
			s := w.targets[0].Status()
			if w.isOut(w.targets[0]) != test.out || test.out && s.Cause != string(Latencies) {
				t.Errorf("%+v", s)
			}
			if test.out && !strings.Contains(s.Why, "half of its last 20 requests took 150 ms or more, 1") {
				t.Error(s.Why)
			}
		})
	}
}

func TestWhenAllBecomeSlowTogetherNobodyIsEjected(t *testing.T) {
	const ms = time.Millisecond
	w := running(t, rules(nil), 10*ms, 10*ms, 10*ms)
	for range 1000 { // the data base behind all of them
		for _, r := range w.targets {
			w.answer(r, 1, time.Second)
			w.pass(ms)
		}
	}
	if w.out() != 0 {
		t.Errorf("%d are out: %+v", w.out(), w.targets[0].Status())
	}
}

func TestATargetThatFailsFastDoesNotMakeTheOthersLookSlow(t *testing.T) {
	const ms = time.Millisecond
	w := running(t, rules(func(e *model.Ejection) { e.Failures, e.Share = 0, 0 }), 50*ms, 50*ms)
	for range 200 {
		w.fail(w.targets[1], 1, Status503)
		w.answer(w.targets[0], 1, 60*ms)
		w.pass(100 * ms)
	}
	if w.isOut(w.targets[0]) {
		t.Errorf("%+v", w.targets[0].Status())
	}
}

func TestTheMedianOfTheOthers(t *testing.T) {
	u := usual{1, 2, 3, 10, 20}
	for own, want := range map[time.Duration]time.Duration{1: 10, 3: 10, 10: 3, 20: 3, 7: 3} {
		if got := u.others(own); got != want {
			t.Errorf("of the others than %d: %d, want %d", own, got, want)
		}
	}
	if got := (usual{5}).others(5); got != 0 {
		t.Errorf("there are no others: %d", got)
	}
	if got := (usual{5}).others(1); got != 5 {
		t.Errorf("there is one other: %d", got)
	}
}
