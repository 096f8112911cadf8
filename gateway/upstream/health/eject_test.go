package health

import (
	"strings"
	"testing"
	"time"

	"headgate/config/model"
)

func TestWhatEjectsATarget(t *testing.T) {
	ill := func(f Failure, n int) func(*world, *Record) { return func(w *world, r *Record) { w.fail(r, n, f) } }
	mixed := func(rounds, good, bad int) func(*world, *Record) {
		return func(w *world, r *Record) {
			for range rounds {
				w.fail(r, bad, Late)
				w.answer(r, good, time.Millisecond)
			}
		}
	}
	for _, test := range []struct {
		name  string
		rules func(*model.Ejection)
		do    func(*world, *Record)
		cause Cause
		why   string
	}{
		{"four failures", nil, ill(Closed, 4), "", ""},
		{"five failures in a row", nil, ill(Closed, 5), InARow, "5 requests in a row failed with no answer"},
		{"five with an answer between them", nil, func(w *world, r *Record) {
			w.fail(r, 4, Closed)
			w.answer(r, 1, time.Millisecond)
			w.fail(r, 4, Closed)
		}, "", ""},
		{"failures of several kinds", nil, func(w *world, r *Record) {
			w.fail(r, 3, Status503)
			w.fail(r, 1, Late)
			w.fail(r, 1, Status502)
		}, InARow, "5 requests in a row failed: 3 with status 503, 1 with an answer too late, 1 with status 502"},
		{"three connections", nil, ill(ConnectTimeout, 3), Connects, "3 connections in a row failed with connect timeout"},
		{"connections with another failure between them", nil, func(w *world, r *Record) {
			w.fail(r, 2, Refused)
			w.fail(r, 1, Late)
			w.fail(r, 1, Refused)
		}, "", ""},
		{"connections do not count", func(e *model.Ejection) { e.Connects = 0 }, ill(Refused, 4), "", ""},
		{"rows do not count", func(e *model.Ejection) { e.Failures = 0 }, ill(Late, 19), "", ""},
		{"a share counts from twenty on", func(e *model.Ejection) { e.Failures = 0 }, ill(Late, 20), Share,
			"20 of 20 requests in 10 s failed with an answer too late"},
		{"half of them", nil, mixed(10, 2, 2), Share, "11 of 21 requests in 10 s failed with an answer too late"},
		{"less than half of them", nil, mixed(100, 3, 2), "", ""},
		{"a tenth, when that is the share", func(e *model.Ejection) { e.Share = 10 }, mixed(100, 8, 1), Share, "4 of 28"},
		{"nothing counts", func(e *model.Ejection) { *e = model.Ejection{For: time.Second, MaxShare: 100} }, ill(Refused, 1000), "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, 2, rules(test.rules))
			test.do(w, w.targets[0])
			s := w.targets[0].Status()
			if w.isOut(w.targets[0]) != (test.cause != "") || s.Cause != string(test.cause) || !strings.Contains(s.Why, test.why) {
				t.Errorf("%+v, want cause %q and %q", s, test.cause, test.why)
			}
		})
	}
}

func TestAnEjectionIsExplained(t *testing.T) {
	w := newWorld(t, 2, rules(func(e *model.Ejection) { e.For = 30 * time.Second }))
	r := w.targets[0]
	if s := r.Status(); s.State != "available" || s.Why != "" || s.Since != nil || len(s.History) != 0 {
		t.Errorf("before anything has happened: %+v", s)
	}
	w.fail(r, 3, ConnectTimeout)
	s := r.Status()
	if want := "ejected 12:03:07 for 30 s: 3 connections in a row failed with connect timeout; asked again 12:03:37"; s.Why != want {
		t.Errorf("%s\nwant\n%s", s.Why, want)
	}
	if s.State != "ejected" || s.Cause != "connect_failures" || !s.Since.Equal(noon) || !s.Until.Equal(noon.Add(30*time.Second)) ||
		s.Ejections != 1 || s.Level != 1 {
		t.Errorf("%+v", s)
	}
	if line := w.series(t, "headgate_upstream_ejections_total"); line != `headgate_upstream_ejections_total{upstream="shop",cause="connect_failures"} 1` {
		t.Error(line)
	}
	w.pass(31 * time.Second)
	w.group.Tidy()
	s = r.Status()
	if s.State != "available" || s.Why != "" || !s.Since.Equal(noon.Add(30*time.Second)) || len(s.History) != 2 ||
		s.History[1].Cause != "ejection_ended" {
		t.Errorf("%+v", s)
	}
	for _, want := range []string{"a target is ejected", "for=\"30 s\"", "a target is available again", "target=10.0.0.0:80"} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, w.log.String())
		}
	}
	if n := strings.Count(w.log.String(), "\n"); n != 2 {
		t.Errorf("%d lines for two changes", n)
	}
}

func TestEjectionsInARowLastLongerUpToTenTimesAndAreForgiven(t *testing.T) {
	w := newWorld(t, 2, rules(nil))
	r := w.targets[0]
	pause := func() time.Duration {
		w.fail(r, 5, Closed)
		return r.Load().EjectedUntil() - w.now
	}
	for _, want := range []time.Duration{10, 20, 40, 80, 100, 100, 100} {
		if got := pause(); got != want*time.Second {
			t.Errorf("%v, want %v", got, want*time.Second)
		}
		w.pass(want*time.Second + time.Second)
	}
	for _, test := range []struct {
		well time.Duration
		want time.Duration
	}{
		{100 * time.Second, 100 * time.Second}, // level 5: one is forgiven, and this one makes five again
		{181 * time.Second, 80 * time.Second},  // 100 s and 80 s
		{20 * time.Minute, 10 * time.Second},   // all
	} {
		w.pass(test.well)
		if got := pause(); got != test.want {
			t.Errorf("well for %v: ejected for %v, want %v", test.well, got, test.want)
		}
		w.pass(r.Load().EjectedUntil() - w.now)
	}
}

func TestNoMoreThanAShareIsEjected(t *testing.T) {
	for _, test := range []struct{ targets, percent, want int }{
		{2, 50, 1}, {3, 50, 1}, {4, 50, 2}, {5, 50, 2}, {3, 33, 0}, {3, 34, 1}, {4, 0, 0}, {4, 100, 4}, {1, 50, 0}, {1, 100, 1},
	} {
		w := newWorld(t, test.targets, rules(func(e *model.Ejection) { e.MaxShare = test.percent }))
		for _, r := range w.targets {
			w.fail(r, 10, Late)
		}
		if got := w.out(); got != test.want {
			t.Errorf("%d of %d with max_percent %d, want %d", got, test.targets, test.percent, test.want)
		}
		if test.want < test.targets {
			last := w.targets[test.targets-1].Status()
			if !strings.Contains(last.Why, "would be ejected, but") || last.State != "available" {
				t.Errorf("%d of %d: the last one does not say why it is still asked: %+v", test.want, test.targets, last)
			}
		}
	}
}

func TestWhoWaitsForTheShareIsEjectedWhenSomebodyComesBack(t *testing.T) {
	w := newWorld(t, 2, rules(nil))
	w.fail(w.targets[0], 5, Late)
	w.fail(w.targets[1], 5, Late)
	if w.isOut(w.targets[1]) {
		t.Fatal("both are out")
	}
	w.pass(11 * time.Second)
	w.fail(w.targets[1], 1, Late)
	if !w.isOut(w.targets[1]) || w.isOut(w.targets[0]) {
		t.Errorf("%+v", w.targets[1].Status())
	}
}

func TestWhenTargetsGoThoseWhoAreOutComeBackAsFarAsTheShareWants(t *testing.T) {
	w := newWorld(t, 4, rules(nil))
	w.fail(w.targets[0], 5, Late)
	w.pass(time.Second)
	w.fail(w.targets[1], 5, Late)
	w.group.Members(w.targets[:2])
	if w.isOut(w.targets[0]) || !w.isOut(w.targets[1]) {
		t.Errorf("of two targets with 50 %%: %d out; the one that was out for longer comes back first", w.out())
	}
	if s := w.targets[0].Status(); !strings.Contains(s.History[1].Why, "of the 2 targets that are left, no more than 50 % may be ejected") {
		t.Errorf("%+v", s.History)
	}
}

func TestATargetThatTakesNoRequestsIsNotEjectedAndDoesNotCount(t *testing.T) {
	w := newWorld(t, 4, rules(nil))
	w.group.Members(w.targets[:2]) // the others drain
	w.fail(w.targets[2], 50, Late)
	if w.isOut(w.targets[2]) {
		t.Error("it drains, and is ejected")
	}
	w.fail(w.targets[0], 5, Late)
	w.fail(w.targets[1], 5, Late)
	if w.out() != 1 {
		t.Errorf("%d of two that take requests are out", w.out())
	}
}

func TestFailuresThatWereOnTheirWayDoNotCountTwice(t *testing.T) {
	w := newWorld(t, 2, rules(nil))
	r := w.targets[0]
	w.fail(r, 5, Late)
	w.fail(r, 100, Late)
	if s := r.Status(); s.Ejections != 1 || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
	w.pass(10 * time.Second)
	w.fail(r, 4, Late)
	if w.isOut(r) {
		t.Error("it has no fresh chance")
	}
}

func TestOfFiveThousandTargetsThatFlapTheLogHasFewLines(t *testing.T) {
	w := newWorld(t, 5000, rules(func(e *model.Ejection) { e.MaxShare = 100 }))
	for range 3 {
		for _, r := range w.targets {
			w.fail(r, 5, Closed)
		}
		w.pass(2 * time.Minute)
		w.group.Tidy()
	}
	if n := strings.Count(w.log.String(), "\n"); n < 100 || n > 6*logBurst+6 {
		t.Errorf("%d lines for 30000 changes", n)
	}
	if !strings.Contains(w.log.String(), "changes_not_logged_before=4950") {
		t.Error("the log does not say what it leaves out")
	}
	if n := len(w.targets[0].Status().History); n != 6 {
		t.Errorf("%d changes are kept", n)
	}
}

func TestTheLastSixteenChangesAreKept(t *testing.T) {
	w := newWorld(t, 2, rules(nil))
	for range 50 {
		w.fail(w.targets[0], 5, Closed)
		w.pass(2 * time.Minute)
		w.group.Tidy()
	}
	h := w.targets[0].Status().History
	if len(h) != maxHistory || h[maxHistory-1].State != "available" || h[maxHistory-2].State != "ejected" {
		t.Errorf("%d: %+v", len(h), h)
	}
}

func TestAnAnswerOfATargetThatIsWellWritesAndAllocatesNothing(t *testing.T) {
	w := newWorld(t, 2, rules(nil))
	r := w.targets[0]
	if n := testing.AllocsPerRun(1000, func() { r.Succeeded(1, w.now, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if r.trouble.Load() != nil || r.row.Load() != nil || r.streak.Load() != 0 {
		t.Error("something was written")
	}
	w.fail(r, 1, Closed)
	if n := testing.AllocsPerRun(1000, func() { r.Succeeded(1, w.now, time.Millisecond) }); n != 0 {
		t.Errorf("after a failure: %v allocations", n)
	}
	w.pass(2 * span)
	w.answer(r, 1, time.Millisecond)
	if r.trouble.Load() != nil {
		t.Error("a failure long ago is not forgotten")
	}
}

func BenchmarkAnAnswerOfATargetThatIsWell(b *testing.B) {
	w := newWorld(b, 3, rules(nil))
	r := w.targets[0]
	for b.Loop() {
		r.Succeeded(1, w.now, time.Millisecond)
	}
}

func BenchmarkAnAnswerOfATargetInTrouble(b *testing.B) {
	w := newWorld(b, 3, rules(nil))
	r := w.targets[0]
	w.fail(r, 1, Closed)
	for b.Loop() {
		r.Succeeded(1, w.now, time.Millisecond)
	}
}
