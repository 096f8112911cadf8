package retry

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWhichAttemptsAreRepeated(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	usual := NewRules(Options{})
	anyhow := NewRules(Options{Anyhow: true})
	own := NewRules(Options{On: []Failure{Timeout}, Statuses: []int{429}, GRPC: []int{8}, Attempts: 2})
	get := Attempt{Method: "GET", Whole: true, Number: 1, GRPC: -1}
	with := func(change func(*Attempt)) Attempt {
		a := get
		change(&a)
		return a
	}
	for _, c := range []struct {
		what  string
		rules *Rules
		a     Attempt
		again bool
		wait  time.Duration
	}{
		{"a good reply", usual, with(func(a *Attempt) { a.Status = 200 }), false, 0},
		{"503", usual, with(func(a *Attempt) { a.Status = 503 }), true, 0},
		{"500 is an answer", usual, with(func(a *Attempt) { a.Status = 500 }), false, 0},
		{"503 that asks for a moment", usual, with(func(a *Attempt) { a.Status, a.RetryAfter = 503, "1" }), true, time.Second},
		{"503 that asks for longer than is waited", usual, with(func(a *Attempt) { a.Status, a.RetryAfter = 503, "2" }), false, 0},
		{"a moment by date", usual, with(func(a *Attempt) { a.Status, a.RetryAfter = 503, "Fri, 02 Jan 2026 03:04:06 GMT" }), true, time.Second},
		{"no connection", usual, with(func(a *Attempt) { a.Failure = Connect }), true, 0},
		{"no connection, and POST", usual, with(func(a *Attempt) { a.Failure, a.Method = Connect, "POST" }), true, 0},
		{"not processed, and POST", usual, with(func(a *Attempt) { a.Failure, a.Method = Refused, "POST" }), true, 0},
		{"broken off", usual, with(func(a *Attempt) { a.Failure = Reset }), true, 0},
		{"broken off, and POST", usual, with(func(a *Attempt) { a.Failure, a.Method = Reset, "POST" }), false, 0},
		{"POST with Idempotency-Key", usual, with(func(a *Attempt) { a.Failure, a.Method, a.Key = Reset, "POST", true }), true, 0},
		{"POST when told so", anyhow, with(func(a *Attempt) { a.Failure, a.Method = Reset, "POST" }), true, 0},
		{"the body is gone", usual, with(func(a *Attempt) { a.Failure, a.Whole = Connect, false }), false, 0},
		{"a timeout", usual, with(func(a *Attempt) { a.Failure = Timeout }), false, 0},
		{"the client's fault", anyhow, with(func(a *Attempt) { a.Failure = OwnFault }), false, 0},
		{"the third attempt", usual, with(func(a *Attempt) { a.Failure, a.Number = Reset, 3 }), false, 0},
		{"the third target that is not reached", usual, with(func(a *Attempt) { a.Failure, a.Number = Connect, 3 }), true, 0},
		{"the fourth", usual, with(func(a *Attempt) { a.Failure, a.Number = Connect, 4 }), false, 0},
		{"gRPC UNAVAILABLE", usual, with(func(a *Attempt) { a.Status, a.GRPC = 200, 14 }), true, 0},
		{"gRPC INTERNAL", usual, with(func(a *Attempt) { a.Status, a.GRPC = 200, 13 }), false, 0},
		{"gRPC code that is none", usual, with(func(a *Attempt) { a.Status, a.GRPC = 200, 99 }), false, 0},
		{"a timeout when told so", own, with(func(a *Attempt) { a.Failure = Timeout }), true, 0},
		{"429 when told so", own, with(func(a *Attempt) { a.Status = 429 }), true, 0},
		{"RESOURCE_EXHAUSTED when told so", own, with(func(a *Attempt) { a.Status, a.GRPC = 200, 8 }), true, 0},
		{"503 when told otherwise", own, with(func(a *Attempt) { a.Status = 503 }), false, 0},
		{"the second attempt of two", own, with(func(a *Attempt) { a.Failure, a.Number = Timeout, 2 }), false, 0},
	} {
		if again, wait := c.rules.Again(&c.a, now); again != c.again || wait != c.wait {
			t.Errorf("%s: again %v after %v", c.what, again, wait)
		}
	}
}

func TestRetryAfterInAllItsForms(t *testing.T) {
	now := time.Date(1994, 11, 6, 8, 49, 30, 0, time.UTC)
	for field, want := range map[string]time.Duration{
		"": 0, "0": 0, " 7 ": 7 * time.Second, "-1": 0, "soon": 0, "1.5": 0,
		"99999999999999999999": maxAfter, "86401": maxAfter,
		"Sun, 06 Nov 1994 08:49:37 GMT": 7 * time.Second, "Sunday, 06-Nov-94 08:49:37 GMT": 7 * time.Second,
		"Sun Nov  6 08:49:37 1994": 7 * time.Second, "Sun, 06 Nov 1994 08:49:00 GMT": 0,
	} {
		if got := After(field, now); got != want {
			t.Errorf("%q: %v, want %v", field, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Sun, 06 Nov 1994 08:49:37 GMT")
	f.Fuzz(func(t *testing.T, field string) {
		if d := After(field, time.Unix(0, 0)); d < 0 || d > maxAfter {
			t.Errorf("%q: %v", field, d)
		}
	})
}

func TestPausesAreWithinTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Backoff{Base: time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "base"))}
		b.Most = time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "most"))
		at := rapid.IntRange(-1, 100).Draw(t, "attempts")
		least := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "asked"))
		p := b.Pause(at, rapid.Uint64().Draw(t, "random"), least) - least
		base, most := b.Base, b.Most
		if base == 0 {
			base = defaultBase
		}
		if most == 0 {
			most = 10 * base
		}
		if p < 0 || p > most || at <= 1 && p > base {
			t.Fatalf("%v is not within 0 and %v", p, most)
		}
	})
}

func TestABudgetIsNeverExceededAndComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		share := rapid.Float64Range(0, 1).Draw(t, "share")
		b, now := NewBudget(share), time.Duration(rapid.Int64Range(0, 1<<50).Draw(t, "begin"))
		var requests, taken []time.Duration
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "pause"))
			shard := rapid.Uint32().Draw(t, "shard")
			for range rapid.IntRange(0, 30).Draw(t, "requests") {
				b.Request(shard, now)
				requests = append(requests, now)
			}
			for range rapid.IntRange(0, 30).Draw(t, "retries") {
				if !b.Take(shard, now) {
					break
				}
				taken = append(taken, now)
			}
			if len(taken) == 0 || taken[len(taken)-1] != now {
				continue // what was taken rightly stays right when the requests that it was for are longer ago
			}
			since := func(d time.Duration) func(time.Duration) bool {
				return func(at time.Duration) bool { return at >= now-d }
			}
			n, of := count(taken, since(budgetSpan-budgetSpan/slots)), count(requests, since(budgetSpan))
			if float64(n) > share*float64(of)+spare || share == 0 && n > 0 {
				t.Fatalf("%d retries for %d requests, share %v", n, of, share)
			}
		}
		if now += 2 * budgetSpan; share > 0 && !b.Take(0, now) {
			t.Fatal("it does not come back")
		}
	})
}

func count(all []time.Duration, which func(time.Duration) bool) (n int) {
	for _, at := range all {
		if which(at) {
			n++
		}
	}
	return n
}

func TestABudgetHoldsUnderRaces(t *testing.T) {
	b := NewBudget(DefaultShare)
	var taken atomic.Int64
	var all sync.WaitGroup
	for shard := range uint32(8) {
		all.Go(func() {
			for range 1000 {
				b.Request(shard, time.Hour)
				if b.Take(shard, time.Hour) {
					taken.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := taken.Load(); n > 8000/5+spare || n < 8000/5 {
		t.Errorf("%d retries for 8,000 requests", n)
	}
}

// TestHedgingCutsTheTail is scenario (e): one request in fifty is stuck for a second. 100 seconds, 1,000 a second.
func TestHedgingCutsTheTail(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	service := func() time.Duration {
		if r.IntN(50) == 0 {
			return time.Second
		}
		return time.Duration(r.ExpFloat64() * float64(10*time.Millisecond))
	}
	h := NewHedge(HedgeShare)
	var plain, hedged []time.Duration
	extra := 0
	for n := range 100_000 {
		now := time.Hour + time.Duration(n)*time.Millisecond
		shard := uint32(n)
		first := service()
		took := first
		if delay, ok := h.Request(shard, now); ok && first > delay && h.Take(shard, now) {
			extra++
			took = min(first, delay+service())
		}
		h.Observe(shard, first)
		plain, hedged = append(plain, first), append(hedged, took)
	}
	slices.Sort(plain)
	slices.Sort(hedged)
	q := func(all []time.Duration, share float64) time.Duration { return all[int(float64(len(all))*share)] }
	delay, _ := h.Request(0, time.Hour+100*time.Second)
	t.Logf("delay %v; p99 %v became %v, p99.9 %v became %v; extra load %.2f %%", delay,
		q(plain, .99), q(hedged, .99), q(plain, .999), q(hedged, .999), float64(extra)/1000)
	if extra > 5000 || q(hedged, .99) > q(plain, .99)/3 || delay < q(plain, .95) || delay > 2*q(plain, .95) {
		t.Error("too much extra load, or too little use")
	}
}

func TestTheFirstHundredRequestsTellWhatIsLong(t *testing.T) {
	h := NewHedge(HedgeShare)
	for n := range hedgeSamples {
		if delay, ok := h.Request(uint32(n), time.Hour); ok {
			t.Fatalf("%v after %d", delay, n)
		}
		h.Observe(uint32(n), 10*time.Millisecond)
	}
	if delay, ok := h.Request(0, time.Hour); !ok || delay < 10*time.Millisecond || delay > 20*time.Millisecond {
		t.Errorf("%v, %v", delay, ok)
	}
}

func TestAHedgeIsCappedWhenEverythingBecomesSlow(t *testing.T) {
	h := NewHedge(HedgeShare)
	extra, requests := 0, 0
	for n := range 60_000 {
		now := time.Hour + time.Duration(n)*time.Millisecond
		took := 10 * time.Millisecond
		if n > 20_000 {
			took = 500 * time.Millisecond
		}
		if delay, ok := h.Request(uint32(n), now); ok && took > delay && h.Take(uint32(n), now) {
			extra++
		}
		h.Observe(uint32(n), took)
		requests++
	}
	if float64(extra) > HedgeShare*float64(requests) {
		t.Errorf("%d hedges for %d requests", extra, requests)
	}
}

func TestNothingPerRequestCostsMemory(t *testing.T) {
	b, h, k, rules := NewBudget(.2), NewHedge(HedgeShare), NewBreaker(BreakerConfig{}), NewRules(Options{})
	a := Attempt{Method: "GET", Status: 503, Whole: true, Number: 1}
	now := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += time.Millisecond
		b.Request(1, now)
		b.Take(1, now)
		h.Request(1, now)
		h.Observe(1, time.Millisecond)
		p, _ := k.Allow(now)
		k.Record(1, now, p, false)
		rules.Again(&a, time.Time{})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
