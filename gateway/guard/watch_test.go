package guard

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"headgate/config/model"
	"headgate/internal/metric"
)

func TestWhatIsRefusedAtWhichUse(t *testing.T) {
	const budget, goLimit = 1000 * mib, 800 * mib
	for _, c := range []struct {
		now        Level
		used, live int64 // in thousandths of the budget
		want       Level
		why        string
	}{
		{Calm, 500, 400, Calm, ""},
		{Calm, 899, 719, Calm, ""},
		{Calm, 900, 400, Sheds, "900 MiB of 1000 MiB are in use"},
		{Calm, 950, 400, Shut, "950 MiB of 1000 MiB are in use"},
		{Sheds, 949, 400, Sheds, "949 MiB of 1000 MiB are in use"},
		{Sheds, 850, 400, Sheds, "850 MiB of 1000 MiB are in use"},
		{Sheds, 849, 400, Calm, ""},
		{Shut, 900, 400, Shut, "900 MiB of 1000 MiB are in use"},
		{Shut, 899, 400, Sheds, "899 MiB of 1000 MiB are in use"},
		{Shut, 100, 100, Calm, ""},
		{Calm, 800, 720, Sheds, "Go needs 720 MiB after a collection, and may use 800 MiB"},
		{Sheds, 800, 600, Sheds, "Go needs 600 MiB after a collection, and may use 800 MiB"},
		{Sheds, 800, 599, Calm, ""},
		{Calm, 800, 600, Calm, ""},
	} {
		got, why := judge(c.now, Reading{Used: c.used * mib, Live: c.live * mib}, budget, goLimit)
		if got != c.want || why != c.why {
			t.Errorf("%v with %d used and %d live: %v because %q, want %v because %q", c.now, c.used, c.live, got, why, c.want, c.why)
		}
	}
}

func TestWithoutABudgetNothingIsRefused(t *testing.T) {
	if level, _ := judge(Sheds, Reading{Used: 1 << 50, Live: 1 << 50}, 0, 0); level != Calm {
		t.Error(level)
	}
}

// TestTheAnswerDoesNotFlicker: who was refused at some use is not taken at a higher one, whatever came between.
func TestTheAnswerDoesNotFlicker(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const budget, goLimit = 100 * mib, 80 * mib
		level := Calm
		for range rapid.IntRange(1, 50).Draw(t, "looks") {
			r := Reading{Used: rapid.Int64Range(0, 110).Draw(t, "used") * mib, Live: rapid.Int64Range(0, 90).Draw(t, "live") * mib}
			next, why := judge(level, r, budget, goLimit)
			switch {
			case r.Used >= 95*mib && next != Shut, r.Used >= 90*mib && next == Calm, r.Live >= 72*mib && next == Calm:
				t.Fatalf("%v at %+v", next, r)
			case next > level && r.Used < 90*mib && r.Live < 72*mib:
				t.Fatalf("%v after %v at %+v", next, level, r)
			case (next == Calm) != (why == ""):
				t.Fatalf("%v because %q", next, why)
			}
			level = next
		}
	})
}

func TestMemoryThatRunsShortIsDefendedAndFreedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{budget: Budget{Bytes: 1000 * mib, Source: "/a/limit"}, reading: Reading{Used: 100 * mib}}
		w := watch(m, false)
		w.Configure(model.Limits{})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		expect := func(after time.Duration, level Level, full bool) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := Level(w.level.Load()); got != level || w.Sheds() != (level != Calm) || w.Full() != full {
				t.Fatalf("%v, full: %v; want %v, %v", got, w.Full(), level, full)
			}
		}
		expect(0, Calm, false)
		m.set(900*mib, 100*mib)
		expect(calmPause, Sheds, false)
		w.Shed(0)
		w.Shed(1)
		m.set(950*mib, 100*mib)
		expect(alertPause, Shut, true)
		m.set(860*mib, 100*mib)
		expect(alertPause, Sheds, false)
		m.mu.Lock()
		m.garbage = 500 * mib // which nobody but a collection frees
		m.mu.Unlock()
		expect(collectPause+alertPause, Calm, false)
		m.set(700*mib, 100*mib)
		expect(calmPause, Calm, false)
		m.set(900*mib, 100*mib) // looked at more often since 70 %
		expect(alertPause, Sheds, false)
		stop()
		if err := <-ended; err != nil || w.Sheds() {
			t.Errorf("%v, sheds: %v", err, w.Sheds())
		}
		if got := w.sheds.Value(); got != 2 || w.begun.Value() != 2 {
			t.Errorf("%d were refused in %d times", got, w.begun.Value())
		}
		for _, line := range []string{
			`"memory is watched" limit=1048576000 source=/a/limit go_limit=838860800`,
			`"memory is short: new requests get 503" used=943718400 limit=1048576000`,
			`"memory is short: new requests get 503, and new connections wait" used=996147200`,
			`why="950 MiB of 1000 MiB are in use"`,
			`"memory suffices again: everything is taken"`, `refused=2`,
		} {
			if !strings.Contains(w.log.String(), line) {
				t.Errorf("the log does not say %s:\n%s", line, w.log)
			}
		}
	})
}

func TestCollectingIsNoLoadOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{budget: Budget{Bytes: 100 * mib}, reading: Reading{Used: 93 * mib}}
		w := watch(m, false)
		w.options.Collect = func() {
			m.collect()
			time.Sleep(time.Second) // a large heap
		}
		w.Configure(model.Limits{})
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
		defer stop()
		if err := w.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(m.collects); n < 10 || n > 16 {
			t.Errorf("%d collections of a second each in five minutes", n)
		}
	})
}

func TestWhatLimitOfMemoryCounts(t *testing.T) {
	found := Budget{Bytes: 1000 * mib, Source: "/a/limit"}
	for _, c := range []struct {
		name    string
		found   Budget
		err     error
		memory  model.Memory
		fixed   bool
		bytes   int64
		source  string
		setting []int64 // of Go's limit
		goLimit int64
		log     string
	}{
		{"what was found", found, nil, model.MemoryAuto, false, 1000 * mib, "/a/limit", []int64{800 * mib}, 800 * mib, "memory is watched"},
		{"what the document says", found, nil, 100 * mib, false, 100 * mib, "limits.memory", []int64{80 * mib}, 80 * mib, "memory is watched"},
		{"not more than there is", found, nil, 2000 * mib, false, 1000 * mib, "/a/limit", []int64{800 * mib}, 800 * mib, "more than there is"},
		{"nothing found", Budget{}, errors.New("no /proc"), 50 * mib, false, 50 * mib, "limits.memory", []int64{40 * mib}, 40 * mib, ""},
		{"nothing known", Budget{}, errors.New("no /proc"), model.MemoryAuto, false, 0, "", nil, 0, "no /proc"},
		{"off", found, nil, model.MemoryOff, false, 0, "", nil, 0, ""},
		{"GOMEMLIMIT is set", found, nil, model.MemoryAuto, true, 1000 * mib, "/a/limit", nil, 1000 * mib, "go_limit_by_operator=true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &machine{budget: c.found, err: c.err}
			w := watch(m, c.fixed)
			w.Configure(model.Limits{Memory: c.memory})
			s := w.Status().Memory
			if s.Limit != c.bytes || s.Source != c.source || s.GoLimit != c.goLimit || !slices.Equal(m.limits, c.setting) {
				t.Errorf("%d of %s, Go's limit %d, set to %v", s.Limit, s.Source, s.GoLimit, m.limits)
			}
			if !strings.Contains(w.log.String(), c.log) {
				t.Errorf("the log says %s", w.log)
			}
		})
	}
}

func TestTurningItOffGivesGoItsOwnLimitBack(t *testing.T) {
	m := &machine{budget: Budget{Bytes: 1000 * mib, Source: "/a/limit"}}
	w := watch(m, false)
	w.Configure(model.Limits{})
	w.Configure(model.Limits{})
	w.Configure(model.Limits{Memory: model.MemoryOff})
	if want := []int64{800 * mib, 1 << 60}; !slices.Equal(m.limits, want) {
		t.Errorf("%v, want %v", m.limits, want)
	}
	if n := strings.Count(w.log.String(), "memory is watched"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestAContainerThatIsResizedIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{budget: Budget{Bytes: 1000 * mib, Source: "/a/limit"}, reading: Reading{Used: 500 * mib}}
		w := watch(m, false)
		w.Configure(model.Limits{})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(time.Second)
		m.mu.Lock()
		m.budget.Bytes = 500 * mib
		m.mu.Unlock()
		time.Sleep(settleEvery)
		synctest.Wait()
		if !w.Sheds() || w.Status().Memory.Limit != 500*mib {
			t.Errorf("%+v", w.Status())
		}
		stop()
		<-ended
	})
}

func TestTheFiguresAreShown(t *testing.T) {
	m := &machine{budget: Budget{Bytes: 1000 * mib}, reading: Reading{Used: 910 * mib, Live: 5}}
	w := watch(m, false)
	w.Configure(model.Limits{Connections: 7})
	w.look()
	var page strings.Builder
	text := metric.NewText(&page)
	w.metrics.Expose(text)
	if err := text.Close(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"headgate_memory_limit_bytes 1048576000", "headgate_memory_used_bytes 954204160", "headgate_memory_live_bytes 5",
		"headgate_shedding 1", "headgate_connections_limit 7", "headgate_sheddings_total 1", "headgate_shed_total 0",
	} {
		if !strings.Contains(page.String(), line+"\n") {
			t.Errorf("no %s in\n%s", line, page.String())
		}
	}
	if s := w.Status(); s.State != "shedding" || s.Why != "910 MiB of 1000 MiB are in use" {
		t.Errorf("%+v", s)
	}
}

func TestAskingCostsNothing(t *testing.T) {
	var none *Guard
	if none.Sheds() {
		t.Error("nobody refuses")
	}
	w := watch(&machine{}, false)
	if n := testing.AllocsPerRun(100, func() { w.Sheds(); w.Shed(3) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSheds(b *testing.B) {
	w := watch(&machine{}, false)
	for b.Loop() {
		w.Sheds()
	}
}
