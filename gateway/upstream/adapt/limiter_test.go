package adapt

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headgate/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAFreePlaceCostsNoMemory(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	l, now, ctx := New(Config{}, clk), clk.Now(), t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		k, err := l.Acquire(ctx, now, Claim{Flow: 1})
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Millisecond)
		k.Release(now, Served)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAcquireRelease(b *testing.B) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	l, now := New(Config{Start: 1000}, clk), clk.Now()
	for b.Loop() {
		k, _ := l.Acquire(b.Context(), now, Claim{Flow: 1})
		now = now.Add(time.Microsecond)
		k.Release(now, Served)
	}
}

// TestManyGoroutinesNeverExceedTheLimit also shows that nobody who waits is forgotten: it ends.
func TestManyGoroutinesNeverExceedTheLimit(t *testing.T) {
	l := New(Config{Start: 4, Cap: 4, Floor: 4}, clock.System{})
	var now, most, served, refused atomic.Int64
	var all sync.WaitGroup
	for g := range 32 {
		all.Go(func() {
			for range 300 {
				k, err := l.Acquire(t.Context(), clock.System{}.Now(), Claim{Flow: uint64(g), Priority: g % Levels, Shard: uint32(g)})
				if err != nil {
					refused.Add(1)
					continue
				}
				for n := now.Add(1); n > most.Load(); {
					most.Store(n)
				}
				served.Add(1)
				now.Add(-1)
				k.Release(clock.System{}.Now(), Served)
			}
		})
	}
	all.Wait()
	s := l.Status()
	if most.Load() > 4 || s.InFlight != 0 || s.Waiting != 0 || served.Load()+refused.Load() != 32*300 {
		t.Errorf("most %d at one time; %+v", most.Load(), s)
	}
	if served.Load() < 32*300*9/10 {
		t.Errorf("only %d served", served.Load())
	}
}

func TestAWaitEndsWithAPlaceTheContextOrThePatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Start: 1, Cap: 1}, clock.System{})
		ask := func(ctx context.Context) chan error {
			c := make(chan error, 1)
			go func() {
				k, err := l.Acquire(ctx, time.Now(), Claim{Flow: 1})
				if c <- err; err == nil {
					k.Release(time.Now(), Ignored)
				}
			}()
			synctest.Wait()
			return c
		}
		first, err := l.Acquire(t.Context(), time.Now(), Claim{})
		if err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		canceled, late := ask(gone), ask(t.Context())
		cancel()
		if err := <-canceled; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-late; !errors.Is(err, ErrLate) { // time moves on by itself
			t.Error(err)
		}
		lucky := ask(t.Context())
		first.Release(time.Now(), Ignored)
		if err := <-lucky; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if s := l.Status(); s.InFlight != 0 || s.Waiting != 0 || s.Late != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAFullQueueLosesTheGreatestFlowOfTheLowestPriority(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	l := New(Config{Start: 1, Cap: 1, Queue: 4}, clk)
	if !l.enter() {
		t.Fatal("no place")
	}
	line := func(flow uint64, priority int) (*waiter, error) {
		return l.line(clk.Now(), Claim{Flow: flow, Priority: priority})
	}
	var great [4]*waiter
	for i := range great {
		great[i], _ = line(1, 1)
	}
	if _, err := line(1, 1); !errors.Is(err, ErrFull) {
		t.Errorf("the great flow itself: %v", err)
	}
	if _, err := line(2, 1); err != nil || !errors.Is(<-great[3].ready, ErrFull) {
		t.Errorf("a small flow: %v", err)
	}
	if _, err := line(3, 2); !errors.Is(err, ErrFull) {
		t.Errorf("a lower priority: %v", err)
	}
	if _, err := line(3, 0); err != nil || !errors.Is(<-great[2].ready, ErrFull) {
		t.Errorf("a higher priority: %v", err)
	}
}

// TestTheQueueKeepsItsBooks pushes, takes out and refuses at random: nobody is lost, and each flow goes in its order.
func TestTheQueueKeepsItsBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		waiting := map[*waiter]int{}
		last := map[*flow]int{}
		for n := range rapid.IntRange(1, 300).Draw(t, "steps") {
			now := time.Duration(n)
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				w := &waiter{ready: make(chan error, 1)}
				f := q.flow(rapid.Uint64Range(0, 600).Draw(t, "flow"), rapid.IntRange(-1, Levels).Draw(t, "priority"))
				q.push(w, f, rapid.IntRange(0, 4).Draw(t, "weight"), now)
				waiting[w] = n
			case 2:
				w := q.first()
				if (w == nil) != (len(waiting) == 0) {
					t.Fatalf("%d wait, and next is %v", len(waiting), w)
				}
				if w != nil {
					if f := w.flow; last[f] > waiting[w] {
						t.Fatal("out of order")
					}
					last[w.flow] = waiting[w]
					w.flow.turns--
					q.remove(w, now)
					delete(waiting, w)
				}
			case 3:
				for w := range waiting {
					q.remove(w, now)
					delete(waiting, w)
					break
				}
			}
			sum := 0
			for _, l := range q.levels {
				if l != nil {
					sum += l.length()
				}
			}
			if q.length != len(waiting) || sum != q.length {
				t.Fatalf("%d wait; the queue says %d, its flows %d", len(waiting), q.length, sum)
			}
		}
	})
}

// TestTheLimitStaysWithinItsBounds feeds epochs of any latencies and refusals.
func TestTheLimitStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clk := clock.NewManual(time.Unix(1_800_000_000, 0))
		floor := rapid.IntRange(1, 10).Draw(t, "floor")
		most := rapid.IntRange(floor, 100).Draw(t, "cap")
		l := New(Config{Floor: floor, Cap: most, Start: rapid.IntRange(0, 200).Draw(t, "start")}, clk)
		now := time.Duration(0)
		for range rapid.IntRange(1, 60).Draw(t, "epochs") {
			took := time.Duration(rapid.Int64Range(-5, 1<<40).Draw(t, "latency"))
			for _, o := range []Outcome{Served, Ignored, Refused, TimedOut} {
				for range rapid.IntRange(0, epochSamples).Draw(t, "requests") {
					l.samples[0].add(took, o)
				}
			}
			l.reached.Store(rapid.Bool().Draw(t, "reached"))
			now += time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "pause"))
			l.mu.Lock()
			l.settle(now)
			l.mu.Unlock()
			if s := l.Status(); s.Limit < floor || s.Limit > most {
				t.Fatalf("limit %d is not within %d and %d", s.Limit, floor, most)
			}
		}
	})
}

// Who waited seconds ago is no pressure now, whatever happened since; who waits now is.
func TestPressureIsAboutTheLastSecond(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	l := New(Config{Start: 1, Cap: 1}, clk)
	one := func() {
		k, ok := l.Try(clk.Now(), 0)
		if !ok {
			t.Fatal("no place")
		}
		k.Release(clk.Now(), Served)
	}
	held, _ := l.Try(clk.Now(), 0)
	clk.Advance(time.Second)
	w, err := l.line(clk.Now(), Claim{Flow: 1})
	if err != nil {
		t.Fatal(err)
	}
	if p := l.Pressure(clk.Now()); p < 40 {
		t.Errorf("%d %% while somebody waits", p)
	}
	if _, err := l.line(clk.Now(), Claim{Flow: 1}); err != nil {
		t.Fatal(err)
	}
	clk.Advance(pressureSpan / 5)
	held.Release(clk.Now(), Served)
	Ticket{limiter: l, began: clk.Now()}.Release(clk.Now(), Served) // of the first who waited
	Ticket{limiter: l, began: clk.Now()}.Release(clk.Now(), Served) // and of the second
	if err := <-w.ready; err != nil {
		t.Fatal(err)
	}
	clk.Advance(5 * time.Second)
	one()
	if p := l.Pressure(clk.Now()); p != 0 {
		t.Errorf("%d %% five seconds after the last one has waited", p)
	}
}
