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

// settled is how long a service of a capacity takes to be limited rightly: fewer answers tell less.
func settled(capacity float64) time.Duration {
	return min(max(4*second, time.Duration(10_000/capacity*float64(second))), 40*second)
}

// TestGoodputOfManyShapes is scenario (c) for services from 1 to 1,000 workers and from 1 ms to 2 s, of which latencies and
// arrivals are random. least is the share of the capacity that is wanted; where it is less than 0.95 the service gives few
// answers a second, so that each judgement takes long and rests on little, and its latency is not bounded either.
func TestGoodputOfManyShapes(t *testing.T) {
	for _, c := range []struct {
		shape
		least float64
	}{
		{shape{1, time.Millisecond}, .95}, {shape{1, 20 * time.Millisecond}, .9}, {shape{2, 200 * time.Millisecond}, .85},
		{shape{4, 2 * time.Millisecond}, .95}, {shape{10, 2 * time.Second}, .5}, {shape{20, 20 * time.Millisecond}, .95},
		{shape{16, 5 * time.Millisecond}, .95}, {shape{100, time.Second}, .95}, {shape{200, 100 * time.Millisecond}, .95},
		{shape{300, 2 * time.Second}, .95},
	} {
		for seed := range uint64(2) {
			f := steady(1, 2*c.capacity())
			w := newSeeded(t, seed, Config{}, c.workers, c.mean, f)
			from := settled(c.capacity()) + 70*c.mean
			span := min(max(20*c.mean, 3*second, time.Duration(4000/c.capacity()*float64(time.Second))), 200*second)
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

// TestAServiceThatIsWellIsNotRefused: at 70 % of the capacity, from the first request on.
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
			if cold < .999 || warm < .999 {
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
			return took, Refused
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

// A service that takes long without being busy is not overloaded: from the first request on, when all ask at once, and when its
// answers become slower, at once or step by step.
func TestSlownessIsNoOverload(t *testing.T) {
	for name, c := range map[string]struct {
		rate    func(now time.Duration) float64
		service func(now time.Duration) time.Duration
	}{
		"long polls, of which all come at once": {
			func(now time.Duration) float64 {
				if now < second {
					return 2500
				}
				return 50
			}, func(time.Duration) time.Duration { return 20 * second },
		},
		"ten times slower at once": {
			func(time.Duration) float64 { return 300 },
			func(now time.Duration) time.Duration {
				if now > 20*second {
					return 200 * time.Millisecond
				}
				return 20 * time.Millisecond
			},
		},
		"ten times slower within a minute": {
			func(time.Duration) float64 { return 200 },
			func(now time.Duration) time.Duration {
				return 20*time.Millisecond + time.Duration(float64(180*time.Millisecond)*min(1, now.Seconds()/60))
			},
		},
		"ten times as many requests at once": {
			func(now time.Duration) float64 {
				if now > 20*second {
					return 1500
				}
				return 150
			}, func(time.Duration) time.Duration { return 50 * time.Millisecond },
		},
		"a service that answers now and then, and becomes ten times slower": {
			func(time.Duration) float64 { return 2 },
			func(now time.Duration) time.Duration {
				if now > 20*second {
					return 10 * second
				}
				return second
			},
		},
		"a service that answers now and then": {
			func(time.Duration) float64 { return .5 }, func(time.Duration) time.Duration { return 3 * second },
		},
	} {
		for seed := range uint64(2) {
			f := &load{id: 1, weight: 1, rate: c.rate}
			w := newSeeded(t, seed, Config{}, 100_000, time.Second, f)
			w.service = func(now time.Duration) (time.Duration, Outcome) { return c.service(now), Served }
			w.run(70 * second)
			_, success, _ := f.figures(0, 50*second)
			t.Logf("%s, seed %d: %.5f succeed, %+v", name, seed, success, w.limiter.Status())
			if success < .999 {
				t.Errorf("%s, seed %d: %.5f succeed", name, seed, success)
			}
		}
	}
}

// As many clients as there are, of which each waits for its answer before it asks again, are served, however few of them the
// service can work for at one time, and also while the machine is starved so that everything takes long for a while.
func TestClientsThatWaitForTheirAnswersAreServed(t *testing.T) {
	for name, c := range map[string]struct {
		shape
		clients int
		slow    func(now time.Duration) float64
	}{
		"many":           {shape{8, time.Millisecond}, 256, nil},
		"more":           {shape{64, 20 * time.Millisecond}, 1000, nil},
		"few":            {shape{2, 5 * time.Millisecond}, 16, nil},
		"a slow service": {shape{20, 100 * time.Millisecond}, 100, nil},
		"starved now and then": {shape{8, time.Millisecond}, 64, func(now time.Duration) float64 {
			if now%(7*second) < 3*second {
				return 20
			}
			return 1
		}},
		"starved more and more": {shape{8, time.Millisecond}, 64, func(now time.Duration) float64 { return 1 + now.Seconds() }},
		"standing still now and then": {shape{8, time.Millisecond}, 64, func(now time.Duration) float64 {
			if now%(5*second) < 20*time.Millisecond {
				return 2000
			}
			return 1
		}},
	} {
		for seed := range uint64(2) {
			f := &load{id: 1, weight: 1, clients: c.clients}
			w := newSeeded(t, seed, Config{}, c.workers, c.mean, f)
			if c.slow != nil {
				w.service = func(now time.Duration) (time.Duration, Outcome) {
					return time.Duration(float64(c.mean) * c.slow(now)), Served
				}
			}
			w.run(10 * second)
			goodput, success, p99 := f.figures(0, 8*second)
			t.Logf("%s, seed %d: %.5f succeed, %.3f C, p99 %v, %+v", name, seed, success, goodput/c.capacity(), p99, w.limiter.Status())
			if success < .999 || c.slow == nil && goodput < .9*c.capacity() {
				t.Errorf("%s, seed %d: %.5f succeed, %.3f C", name, seed, success, goodput/c.capacity())
			}
		}
	}
}

// An upstream of which everything times out for a while, such as one that cannot be reached, gets its requests again at once
// when it is back.
func TestAfterAnOutageNobodyIsRefused(t *testing.T) {
	for _, s := range []shape{{20, 20 * time.Millisecond}, {200, 100 * time.Millisecond}, {8, time.Millisecond}, {100, time.Second}} {
		for _, outage := range []time.Duration{5 * second, 40 * second} {
			f := steady(1, .5*s.capacity())
			w := newWorld(t, Config{}, 1<<20, s.mean, f)
			w.service = func(now time.Duration) (time.Duration, Outcome) {
				if now > 20*second && now < 20*second+outage {
					return 3 * second, TimedOut
				}
				return s.mean, Served
			}
			w.run(20*second + outage + 15*second)
			back := 20*second + outage
			_, at, _ := f.figures(back, back+second)
			_, later, _ := f.figures(back+second, back+10*second)
			t.Logf("%v, away for %v: %.4f succeed in the first second, then %.4f; %+v", s, outage, at, later, w.limiter.Status())
			if later < .999 {
				t.Errorf("%v, away for %v: %.4f succeed in the first second, then %.4f", s, outage, at, later)
			}
		}
	}
}
