package adapt

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"headgate/internal/clock"
)

// world is a discrete-event simulation: clients with Poisson arrivals, a real limiter on a clock that stands still between
// events, and a service of some workers with one queue of its own, which the limiter cannot see.
type world struct {
	t       *testing.T
	clock   *clock.Manual
	start   time.Time
	r       *rand.Rand
	limiter *Limiter
	events  events
	n       int

	workers int
	busy    int
	backlog []*request
	service func(now time.Duration) (mean time.Duration, outcome Outcome)
	waiting []*request
	flows   []*load
	trace   func(now time.Duration)
}

// load is one consumer.
type load struct {
	id       uint64
	weight   int
	priority int
	rate     func(now time.Duration) float64 // per second
	clients  int                             // that ask again when they were answered, instead of a rate
	done     []done
}

// done is one request that has ended; refused ones have no latency.
type done struct {
	at, took time.Duration // at its arrival; took with its wait in the queue
	ok       bool
}

type request struct {
	load    *load
	arrived time.Duration
	ticket  Ticket
	w       *waiter
}

type event struct {
	at  time.Duration
	n   int
	run func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newWorld(t *testing.T, c Config, workers int, mean time.Duration, flows ...*load) *world {
	return newSeeded(t, 3, c, workers, mean, flows...)
}

func newSeeded(t *testing.T, seed uint64, c Config, workers int, mean time.Duration, flows ...*load) *world {
	start := time.Unix(1_800_000_000, 0)
	w := &world{t: t, clock: clock.NewManual(start), start: start, r: rand.New(rand.NewPCG(seed, 5)), workers: workers, flows: flows}
	w.limiter = New(c, w.clock)
	w.service = func(time.Duration) (time.Duration, Outcome) { return mean, Served }
	for _, f := range flows {
		if f.clients == 0 {
			w.next(f)
		}
		for range f.clients {
			w.after(time.Duration(w.r.Float64()*float64(second)), func() { w.arrive(f) })
		}
	}
	w.after(10*time.Millisecond, w.tick)
	return w
}

func steady(id uint64, rate float64) *load {
	return &load{id: id, weight: 1, rate: func(time.Duration) float64 { return rate }}
}

func (w *world) now() time.Duration { return w.clock.Now().Sub(w.start) }

func (w *world) after(d time.Duration, run func()) {
	w.n++
	heap.Push(&w.events, event{w.now() + d, w.n, run})
}

func (w *world) run(until time.Duration) {
	for len(w.events) > 0 && w.events[0].at <= until {
		e := heap.Pop(&w.events).(event)
		w.clock.Advance(e.at - w.now())
		e.run()
		w.poll()
		s := w.limiter
		if limit := s.limit.Load(); limit < int64(s.estimate.bounds.floor) || limit > int64(s.estimate.bounds.cap) {
			w.t.Fatalf("limit %d is not within %v and %v", limit, s.estimate.bounds.floor, s.estimate.bounds.cap)
		}
	}
	w.clock.Advance(until - w.now())
}

// tick stands for the timers of those who wait, and lets the test watch.
func (w *world) tick() {
	for _, q := range w.waiting {
		if w.now()-q.arrived > time.Duration(w.limiter.fresh.Load()) {
			w.limiter.lookUp(q.w)
		}
	}
	w.poll()
	if w.trace != nil {
		w.trace(w.now())
	}
	w.after(10*time.Millisecond, w.tick)
}

func (w *world) next(f *load) {
	rate := f.rate(w.now())
	if rate == 0 {
		w.after(10*time.Millisecond, func() { w.next(f) })
		return
	}
	w.after(time.Duration(w.r.ExpFloat64()/rate*float64(time.Second)), func() {
		w.arrive(f)
		w.next(f)
	})
}

func (w *world) arrive(f *load) {
	q := &request{load: f, arrived: w.now()}
	if w.limiter.enter() {
		w.send(q)
		return
	}
	var err error
	if q.w, err = w.limiter.line(w.clock.Now(), Claim{Flow: f.id, Weight: f.weight, Priority: f.priority}); err != nil {
		w.refuse(q)
		return
	}
	w.waiting = append(w.waiting, q)
}

// poll sees what became of those who wait.
func (w *world) poll() {
	if w.limiter.queue.length == len(w.waiting) {
		return // nothing has
	}
	w.waiting = slices.DeleteFunc(w.waiting, func(q *request) bool {
		select {
		case err := <-q.w.ready:
			if err != nil {
				w.refuse(q)
			} else {
				w.send(q)
			}
			return true
		default:
			return false
		}
	})
}

func (w *world) refuse(q *request) { w.end(q, 0, false) }

// end writes down what became of a request.
func (w *world) end(q *request, took time.Duration, ok bool) {
	q.load.done = append(q.load.done, done{q.arrived, took, ok})
	if q.load.clients > 0 {
		w.after(thinking, func() { w.arrive(q.load) })
	}
}

func (w *world) send(q *request) {
	q.ticket = Ticket{w.limiter, w.clock.Now(), uint32(w.n)}
	if w.busy == w.workers {
		w.backlog = append(w.backlog, q)
		return
	}
	w.work(q)
}

func (w *world) work(q *request) {
	w.busy++
	mean, outcome := w.service(w.now())
	took := time.Duration(w.r.ExpFloat64() * float64(mean))
	if outcome == TimedOut {
		took = mean // a timeout: always the same
	}
	w.after(took, func() {
		w.busy--
		q.ticket.Release(w.clock.Now(), outcome)
		w.end(q, w.now()-q.arrived, outcome == Served)
		for len(w.backlog) > 0 && w.busy < w.workers {
			first := w.backlog[0]
			w.backlog = w.backlog[1:]
			if first.ticket.began.Before(w.clock.Now().Add(-responseTime)) { // nobody waits for it any more
				first.ticket.Release(w.clock.Now(), TimedOut)
				w.end(first, 0, false)
				continue
			}
			w.work(first)
		}
	})
}

// figures of the requests that arrived in a time: good ones per second, the share that was good, and p99 of those.
func (f *load) figures(from, to time.Duration) (goodput, success float64, p99 time.Duration) {
	var took []time.Duration
	all := 0
	for _, d := range f.done {
		if d.at >= from && d.at < to {
			all++
			if d.ok {
				took = append(took, d.took)
			}
		}
	}
	slices.Sort(took)
	if len(took) > 0 {
		p99 = took[len(took)*99/100]
	}
	return float64(len(took)) / (to - from).Seconds(), float64(len(took)) / float64(max(all, 1)), p99
}

const second = time.Second

const (
	// responseTime is how long an answer is waited for.
	responseTime = 30 * time.Second
	// thinking is how long a client that waits for its answers takes to ask again.
	thinking = time.Millisecond
)

// TestTwiceTheCapacityIsOffered is scenario (c): goodput stays at the capacity and latency near the service's own.
func TestTwiceTheCapacityIsOffered(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		mean    time.Duration
	}{
		{"20 workers of 20 ms", 20, 20 * time.Millisecond},
		{"200 workers of 100 ms", 200, 100 * time.Millisecond},
		{"4 workers of 2 ms", 4, 2 * time.Millisecond},
		{"100 workers of 1 s", 100, time.Second},
		{"1 worker of 5 ms", 1, 5 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			capacity := float64(c.workers) / c.mean.Seconds()
			f := steady(1, 2*capacity)
			w := newWorld(t, Config{}, c.workers, c.mean, f)
			from, span := settled(capacity)+60*c.mean, 10*second+60*c.mean // to settle, and for some thousand requests
			w.run(from + span + 5*second)
			goodput, _, p99 := f.figures(from, from+span)
			alone := time.Duration(4.6 * float64(c.mean)) // p99 of the exponential distribution
			t.Logf("goodput %.3f C, p99 %v (the service alone: %v), %+v", goodput/capacity, p99, alone, w.limiter.Status())
			if goodput < .95*capacity || p99 > 2*(alone+leastPatience) {
				t.Errorf("goodput %.3f C, p99 %v", goodput/capacity, p99)
			}
		})
	}
}

func TestASmallConsumerDoesNotSufferFromAGreatOne(t *testing.T) {
	small, great := steady(1, 181), steady(2, 1819) // together twice the capacity
	w := newWorld(t, Config{}, 20, 20*time.Millisecond, small, great)
	w.run(60 * second)
	goodput, success, p99 := small.figures(5*second, 60*second)
	of, other, _ := great.figures(5*second, 60*second)
	t.Logf("small: %.4f succeed, p99 %v; great: %.3f; together %.3f C", success, p99, other, (goodput+of)/1000)
	if success < .99 || goodput+of < 950 {
		t.Errorf("%.4f of the small one's requests succeed; %.0f good a second of 1000", success, goodput+of)
	}
}

func TestWeightsShareTheCapacity(t *testing.T) {
	one, three := steady(1, 1500), steady(2, 1500)
	three.weight = 3
	w := newWorld(t, Config{}, 20, 20*time.Millisecond, one, three)
	w.run(30 * second)
	a, _, _ := one.figures(5*second, 30*second)
	b, _, _ := three.figures(5*second, 30*second)
	if b/a < 2.6 || b/a > 3.4 {
		t.Errorf("%.0f and %.0f a second, want 1 to 3", a, b)
	}
}

func TestPrioritiesGoFirstAndStarveNobody(t *testing.T) {
	high, low := steady(1, 800), steady(2, 1200)
	low.priority = 2
	w := newWorld(t, Config{}, 20, 20*time.Millisecond, high, low)
	w.run(30 * second)
	_, first, _ := high.figures(5*second, 30*second)
	second2, _, _ := low.figures(5*second, 30*second)
	if first < .97 || second2 < 50 {
		t.Errorf("high: %.3f succeed; low: %.0f a second", first, second2)
	}
}

// TestTheServiceBecomesTenTimesSlower: the limit falls while requests wait for each other, and both limit and throughput are
// back soon after the service is.
func TestTheServiceBecomesTenTimesSlower(t *testing.T) {
	f := steady(1, 2000)
	w := newWorld(t, Config{}, 20, 20*time.Millisecond, f)
	w.service = func(now time.Duration) (time.Duration, Outcome) {
		if now >= 20*second && now < 50*second {
			return 200 * time.Millisecond, Served
		}
		return 20 * time.Millisecond, Served
	}
	before, least := int64(0), int64(1<<30)
	w.trace = func(now time.Duration) {
		limit := w.limiter.limit.Load()
		if now < 20*second {
			before = limit
		} else if now < 50*second {
			least = min(least, limit)
		}
	}
	w.run(75 * second)
	slow, _, during := f.figures(30*second, 49*second)
	after, _, p99 := f.figures(52*second, 72*second)
	t.Logf("limit %d, least %d while slow, %d at the end; goodput %.2f of what is left while slow (p99 %v), %.3f C after (p99 %v)",
		before, least, w.limiter.limit.Load(), slow/100, during, after/1000, p99)
	if least >= before || after < 950 || slow < 90 || p99 > 400*time.Millisecond {
		t.Error("it did not fall, or did not recover")
	}
}

// TestALongOutageTeachesNothing: ten minutes in which everything times out, then the service is well.
func TestALongOutageTeachesNothing(t *testing.T) {
	f := steady(1, 400)
	w := newWorld(t, Config{}, 20, 20*time.Millisecond, f)
	w.service = func(now time.Duration) (time.Duration, Outcome) {
		if now >= 20*second && now < 620*second {
			return 5 * second, TimedOut
		}
		return 20 * time.Millisecond, Served
	}
	w.run(19 * second)
	before := w.limiter.Status().Baseline
	w.run(619 * second)
	during := w.limiter.Status()
	f.rate = func(time.Duration) float64 { return 2000 }
	w.run(710 * second) // what came in the outage is worked off first, and nobody waits for it any more
	goodput, _, p99 := f.figures(680*second, 700*second)
	t.Logf("baseline %v before, %v at the end of the outage with limit %d (%s); after: %.3f C, p99 %v",
		before, during.Baseline, during.Limit, during.Reason, goodput/1000, p99)
	if during.Baseline > before*3/2 || goodput < 950 {
		t.Error("the baseline drifted, or it did not recover")
	}
}

// TestBurstsBelowTheCapacityAreNotRefused is envoy #18152.
func TestBurstsBelowTheCapacityAreNotRefused(t *testing.T) {
	f := &load{id: 1, weight: 1}
	f.rate = func(now time.Duration) float64 { // 40 ms of 3 C each 250 ms: half of it on average
		if now%(250*time.Millisecond) < 40*time.Millisecond {
			return 3000
		}
		return 0
	}
	w := newWorld(t, Config{}, 20, 20*time.Millisecond, f)
	w.run(60 * second)
	_, success, p99 := f.figures(5*second, 59*second)
	t.Logf("%.4f succeed, p99 %v, %+v", success, p99, w.limiter.Status())
	if success < .999 {
		t.Errorf("%.4f succeed", success)
	}
}
