package health

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headgate/config/model"
)

// Whatever happens to whom: never more than the share is out, no ejection lasts longer than ten times the first one, and a
// target that is well from some moment on comes back and stays.
func TestEjectionKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "targets")
		share := rapid.IntRange(0, 100).Draw(t, "max_percent")
		w := newWorld(t, n, rules(func(e *model.Ejection) { e.MaxShare = share }))
		members := w.targets
		holds := func() {
			out := 0
			for _, r := range members {
				if pause := r.Load().EjectedUntil() - w.now; pause > 0 {
					out++
					if pause > maxFactor*w.group.rules.For {
						t.Fatalf("ejected for %v", pause)
					}
				}
			}
			if out*100 > share*len(members) {
				t.Fatalf("%d of %d are out, and max_percent is %d", out, len(members), share)
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			r := w.targets[rapid.IntRange(0, n-1).Draw(t, "target")]
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				w.fail(r, rapid.IntRange(1, 30).Draw(t, "failures"), Failure(rapid.IntRange(0, int(failures)-1).Draw(t, "failure")))
			case 2:
				w.answer(r, rapid.IntRange(1, 50).Draw(t, "answers"), time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms"))*time.Millisecond)
			case 3:
				w.pass(time.Duration(rapid.IntRange(0, 300).Draw(t, "seconds")) * time.Second)
			case 4:
				w.clock.Advance(time.Duration(rapid.IntRange(-1000, 1000).Draw(t, "jump")) * time.Hour) // the machine's clock is set
				w.group.Tidy()
			case 5:
				members = w.targets[:rapid.IntRange(1, n).Draw(t, "members")]
				w.group.Members(members)
			}
			holds()
		}
		w.group.Members(w.targets)
		members = w.targets
		w.pass(maxFactor * w.group.rules.For)
		for range 20 {
			for _, r := range w.targets {
				w.answer(r, 5, time.Millisecond)
			}
			w.pass(time.Second)
			w.group.Tidy()
			holds()
		}
		if w.out() != 0 {
			t.Fatalf("%d are out although all have been well for 20 s", w.out())
		}
	})
}

// sent is what is simulated: requests to targets of which each fails by its own chance, shared out evenly among those who
// are not out.
func (w *world) sent(random *rand.Rand, requests int, apart time.Duration, chance func(i int, n int) float64, each func(n int)) {
	for n := range requests {
		i := random.IntN(len(w.targets))
		for k := 0; k < len(w.targets) && w.isOut(w.targets[i]); k++ {
			i = (i + 1) % len(w.targets)
		}
		if random.Float64() < chance(i, n) {
			w.fail(w.targets[i], 1, Status503)
		} else {
			w.answer(w.targets[i], 1, time.Millisecond)
		}
		w.pass(apart)
		each(n)
	}
}

func TestHowSoonATargetThatFailsIsOut(t *testing.T) {
	for _, test := range []struct {
		fails float64 // of the requests of one of three targets
		most  int     // requests that it may get until it is out, in nine of ten runs
	}{
		{1, 5}, {0.9, 12}, {0.7, 30}, {0.6, 50},
	} {
		var late int
		for seed := range uint64(100) {
			w := newWorld(t, 3, rules(nil))
			random := rand.New(rand.NewPCG(seed, 7))
			got := 0
			w.sent(random, 500, 10*time.Millisecond, func(i, _ int) float64 {
				if i == 0 {
					if w.targets[0].Load().EjectedUntil() == 0 {
						got++
					}
					return test.fails
				}
				return 0
			}, func(int) {})
			if w.targets[0].Status().Ejections == 0 || got > test.most {
				late++
			}
			if w.targets[1].Status().Ejections+w.targets[2].Status().Ejections > 0 {
				t.Errorf("seed %d: a target that never fails was ejected", seed)
			}
		}
		if late > 10 {
			t.Errorf("one that fails %.0f %% of its requests had more than %d in %d of 100 runs", 100*test.fails, test.most, late)
		}
	}
}

func TestTargetsThatFailOneRequestInAHundredAreLeftAlone(t *testing.T) {
	ejections, requests := 0, 0
	for seed := range uint64(5) {
		w := newWorld(t, 5, rules(nil))
		w.sent(rand.New(rand.NewPCG(seed, 9)), 10_000, 5*time.Millisecond, func(int, int) float64 { return 0.01 }, func(int) { requests++ })
		for _, r := range w.targets {
			ejections += r.Status().Ejections
		}
	}
	if ejections > 0 {
		t.Errorf("%d ejections in %d requests", ejections, requests)
	}
}

func TestATargetThatFlapsEndsUpOutMostOfTheTime(t *testing.T) {
	for _, well := range []time.Duration{2 * time.Second, 8 * time.Second, 30 * time.Second} {
		w := newWorld(t, 3, rules(nil))
		const lasts = time.Hour
		var out time.Duration
		back := w.now
		for began := w.now; w.now-began < lasts; {
			w.pass(100 * time.Millisecond)
			r := w.targets[0]
			if w.isOut(r) {
				out += 100 * time.Millisecond
				back = w.now
				continue
			}
			if w.now-back < well { // it is well for a while each time that it comes back, and breaks then
				w.answer(r, 3, time.Millisecond)
			} else {
				w.fail(r, 3, Late)
			}
		}
		share, want := float64(out)/float64(lasts), 0.75
		if well > 10*time.Second {
			want = 0.2
		}
		if share < want {
			t.Errorf("one that is well for %v each time is out for %.0f %% of the time", well, 100*share)
		}
		if n := w.targets[1].Status().Ejections; n != 0 {
			t.Errorf("another one was ejected %d times", n)
		}
	}
}
