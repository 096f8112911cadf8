package adapt

import (
	"fmt"
	"testing"
	"time"
)

// shape is a service.
type shape struct {
	workers int
	mean    time.Duration
}

func (s shape) String() string { return fmt.Sprintf("%d workers of %v", s.workers, s.mean) }

func (s shape) capacity() float64 { return float64(s.workers) / s.mean.Seconds() }

// TestGoodputOfManyShapes is scenario (c) for services from 1 to 1,000 workers and from 1 ms to 2 s, of which latencies and
// arrivals are random. least is the share of the capacity that is wanted; where it is less than 0.95 the service gives few
// answers a second, so that each judgement takes long and rests on little, and its latency is not bounded either.
func TestGoodputOfManyShapes(t *testing.T) {
	for _, c := range []struct {
		shape
		least float64
	}{
		{shape{1, time.Millisecond}, .95}, {shape{1, 20 * time.Millisecond}, .9}, {shape{2, 200 * time.Millisecond}, .8},
		{shape{4, 2 * time.Millisecond}, .95}, {shape{10, 2 * time.Second}, .5}, {shape{20, 20 * time.Millisecond}, .95},
		{shape{64, 5 * time.Millisecond}, .95}, {shape{100, time.Second}, .95}, {shape{200, 100 * time.Millisecond}, .95},
		{shape{1000, 2 * time.Second}, .95},
	} {
		for seed := range uint64(2) {
			f := steady(1, 2*c.capacity())
			w := newSeeded(t, seed, Config{}, c.workers, c.mean, f)
			from := 10*second + 40*c.mean
			span := min(max(20*c.mean, 5*second, time.Duration(4000/c.capacity()*float64(time.Second))), 200*second)
			w.run(from + span + 5*second)
			goodput, _, p99 := f.figures(from, from+span)
			alone := time.Duration(4.6 * float64(c.mean))
			t.Logf("%v, seed %d: goodput %.3f C, p99 %v, limit %d", c.shape, seed, goodput/c.capacity(), p99, w.limiter.limit.Load())
			if goodput < c.least*c.capacity() || c.least == .95 && p99 > 2*alone+leastPatience {
				t.Errorf("%v, seed %d: goodput %.3f C, p99 %v", c.shape, seed, goodput/c.capacity(), p99)
			}
		}
	}
}

// TestAServiceThatIsWellIsNotRefused: at 70 % of the capacity, at first nearly, and later not at all.
func TestAServiceThatIsWellIsNotRefused(t *testing.T) {
	for _, s := range []shape{{4, 2 * time.Millisecond}, {20, 20 * time.Millisecond}, {100, time.Second}, {200, 100 * time.Millisecond},
		{1000, 2 * time.Second}} {
		for seed := range uint64(3) {
			f := steady(1, .7*s.capacity())
			w := newSeeded(t, seed, Config{}, s.workers, s.mean, f)
			first := 5*second + 10*s.mean
			w.run(2*first + 5*second)
			_, cold, _ := f.figures(0, first)
			_, warm, p99 := f.figures(first, 2*first)
			t.Logf("%v, seed %d: %.4f succeed at first, then %.4f (p99 %v)", s, seed, cold, warm, p99)
			if cold < .7 || warm < .999 {
				t.Errorf("%v, seed %d: %.4f succeed at first, then %.4f", s, seed, cold, warm)
			}
		}
	}
}

// mixed makes a share of the requests end in another way than the others do.
func mixed(w *world, share float64, took time.Duration, from time.Duration) {
	usual := w.service
	w.service = func(now time.Duration) (time.Duration, Outcome) {
		if now >= from && w.r.Float64() < share {
			return took, Overloaded
		}
		return usual(now)
	}
}

// A quota that refuses one consumer, or a path of which all fails, is not overload: what is well must not suffer from it.
func TestRefusalsThatDoNotDependOnTheLoadAreTolerated(t *testing.T) {
	f := steady(1, 600)
	w := newWorld(t, Config{}, 20, 20*time.Millisecond, f)
	mixed(w, .3, time.Millisecond, 5*second)
	w.run(40 * second)
	s := w.limiter.Status()
	goodput, _, p99 := f.figures(10*second, 35*second)
	t.Logf("goodput %.0f a second of 420, p99 %v, %+v", goodput, p99, s)
	if goodput < 400 || s.Limit < 15 {
		t.Errorf("goodput %.0f a second of 420, limit %d", goodput, s.Limit)
	}
}
