package survive

import (
	"math"
	"testing"
	"time"

	"headgate/bench/load"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

func TestGoodputCountsOnlyAnswersThatCameInTime(t *testing.T) {
	var o outcomes
	add := func(n int, one load.Outcome) {
		for range n {
			o = append(o, one)
		}
	}
	add(60, load.Outcome{Took: 50 * ms, Status: 200})
	add(30, load.Outcome{Took: 100 * ms, Status: 200})
	add(10, load.Outcome{Took: 2 * time.Second, Status: 200})          // too late
	add(5, load.Outcome{Due: 990 * ms, Took: 100 * ms, Status: 200})   // after the end: it belongs to nobody's second
	add(60, load.Outcome{Took: ms, Status: 503, RetryAfter: true})     // told when
	add(30, load.Outcome{Took: 3 * ms, Status: 503})                   // told nothing
	add(10, load.Outcome{Took: 3 * ms, Status: 502, RetryAfter: true}) // not a refusal but a failure told as one
	add(45, load.Outcome{Took: time.Second, Status: 0})                // no answer
	f := overload(o, 100, 50*ms, time.Second, 0, time.Second)
	for name, want := range map[Figure]float64{
		Goodput: 0.9, ServedP50: 50, ServedP99: 2000, ServedTime: 40, Refused: 40, Told: 60, RefusedP50: 1, RefusedP99: 3, Late: 4, Failed: 45,
	} {
		if math.Abs(f[name]-want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, f[name], want)
		}
	}
	if got, want := success(o, time.Second), 100*95.0/250; got != want {
		t.Errorf("served in time: %v, want %v", got, want)
	}
}

func TestWithoutRefusalsNothingIsSaidAboutThem(t *testing.T) {
	f := overload(outcomes{{Took: 50 * ms, Status: 200}}, 1, 50*ms, time.Second, 0, time.Second)
	if !math.IsNaN(f[Told]) || !math.IsNaN(f[RefusedP99]) || f[Refused] != 0 || f[Goodput] != 1 {
		t.Error(f)
	}
}

func TestWindowsHoldWhatWasDueInThem(t *testing.T) {
	o := outcomes{
		{Due: 0, Took: 9 * ms, Status: 200}, {Due: 5 * ms, Took: ms, Status: 503}, {Due: 9 * ms, Took: 2 * ms, Status: 200}, {Due: 10 * ms},
	}
	for _, c := range []struct {
		from, until time.Duration
		all         int
		failed, max float64
	}{{0, 10 * ms, 3, 1, 9}, {5 * ms, 9 * ms, 1, 1, 1}, {9 * ms, 11 * ms, 2, 1, 2}} {
		got := o.due(c.from, c.until)
		if len(got) != c.all || got.failed() != c.failed || got.millis(1) != c.max {
			t.Errorf("%v to %v: %v", c.from, c.until, got)
		}
	}
	if !math.IsNaN(o.due(time.Hour, 2*time.Hour).millis(0.5)) {
		t.Error("a percentile of nothing is a number")
	}
}

func TestTheShareOfATargetIsThatOfWhatWasAskedBetweenTheCounts(t *testing.T) {
	if got := share([]int{100, 100, 100}, []int{145, 145, 110}, 2); got != 10 {
		t.Error(got)
	}
	if got := share([]int{1, 1}, []int{1, 1}, 0); !math.IsNaN(got) {
		t.Error(got)
	}
}

func TestAnOverloadIsTwiceTheCapacityAndOneConsumerSendsTenTimesAsMuch(t *testing.T) {
	capacity := limited().Capacity()
	if one := Overloaded().Rates; len(one) != 1 || float64(one[0]) != 2*capacity {
		t.Errorf("%v requests/s for a capacity of %v", one, capacity)
	}
	two := Unfair().Rates
	if two[1] != 10*two[0] || math.Abs(float64(two[0]+two[1])/capacity-2) > 0.05 {
		t.Errorf("%v requests/s for a capacity of %v", two, capacity)
	}
	if slow := quick().Capacity() / slower; slow >= quickRate/3 {
		t.Errorf("a slow target can do its share: %v of %d/3", slow, quickRate)
	}
}
