package counter_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headgate/internal/counter"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func take(t testing.TB, l counter.Limiter, key string, cost int64, now time.Time) counter.Result {
	t.Helper()
	r, ready, err := l.Take(key, cost, now, false)
	if err != nil || !ready {
		t.Fatalf("Take: ready %v, error %v; a local limiter always answers", ready, err)
	}
	return r
}

func TestABucketAllowsItsBurstAndThenItsRate(t *testing.T) {
	l := counter.NewLocal().Limiter("a", counter.Rate{Limit: 60, Per: time.Minute, Burst: 3})
	steps := []struct {
		after time.Duration // since the step before
		cost  int64
		want  counter.Result
	}{
		{0, 1, counter.Result{Allowed: true, Remaining: 2, Reset: time.Second}},
		{0, 1, counter.Result{Allowed: true, Remaining: 1, Reset: 2 * time.Second}},
		{0, 0, counter.Result{Allowed: true, Remaining: 1, Reset: 2 * time.Second}},
		{0, 2, counter.Result{Remaining: 1, RetryAfter: time.Second, Reset: 2 * time.Second}},
		{0, 1, counter.Result{Allowed: true, Remaining: 0, Reset: 3 * time.Second}},
		{0, 1, counter.Result{Remaining: 0, RetryAfter: time.Second, Reset: 3 * time.Second}},
		{400 * time.Millisecond, 1, counter.Result{Remaining: 0, RetryAfter: 600 * time.Millisecond, Reset: 2600 * time.Millisecond}},
		{600 * time.Millisecond, 1, counter.Result{Allowed: true, Remaining: 0, Reset: 3 * time.Second}},
		{time.Hour, 3, counter.Result{Allowed: true, Remaining: 0, Reset: 3 * time.Second}},
		{time.Hour, 4, counter.Result{Remaining: 3, RetryAfter: -1}},
		{0, -7, counter.Result{Allowed: true, Remaining: 3}},
	}
	now := start
	for i, s := range steps {
		now = now.Add(s.after)
		if got := take(t, l, "k", s.cost, now); got != s.want {
			t.Fatalf("step %d: took %d and got %+v, want %+v", i, s.cost, got, s.want)
		}
	}
}

func TestKeysHaveBucketsOfTheirOwn(t *testing.T) {
	l := counter.NewLocal().Limiter("a", counter.Rate{Limit: 1, Per: time.Hour, Burst: 1})
	for i := range 5000 {
		key := fmt.Sprint("key-", i)
		if !take(t, l, key, 1, start).Allowed {
			t.Fatalf("%s was refused its first unit", key)
		}
	}
	for i := range 5000 {
		if take(t, l, fmt.Sprint("key-", i), 1, start.Add(time.Minute)).Allowed {
			t.Fatalf("key-%d was given a second unit within the hour", i)
		}
	}
}

func TestNamesHaveBucketsOfTheirOwnAndTheSameNameTheSame(t *testing.T) {
	store, rate := counter.NewLocal(), counter.Rate{Limit: 1, Per: time.Hour, Burst: 1}
	first := store.Limiter("a", rate)
	take(t, first, "k", 1, start)
	if take(t, store.Limiter("a", rate), "k", 1, start).Allowed {
		t.Error("the second limiter of the same name forgot what was spent")
	}
	if !take(t, store.Limiter("b", rate), "k", 1, start).Allowed {
		t.Error("another name shares the bucket")
	}
	runtime.KeepAlive(first)
}

func TestAReloadWithAnotherRateKeepsWhatWasSpent(t *testing.T) {
	store := counter.NewLocal()
	old := store.Limiter("a", counter.Rate{Limit: 100, Per: time.Minute, Burst: 100})
	take(t, old, "k", 40, start)
	for _, c := range []struct {
		rate counter.Rate
		left int64
	}{
		{counter.Rate{Limit: 200, Per: time.Minute, Burst: 200}, 160},
		{counter.Rate{Limit: 50, Per: time.Hour, Burst: 50}, 10},
		{counter.Rate{Limit: 100, Per: time.Minute, Burst: 100}, 60},
		{counter.Rate{Limit: 30, Per: time.Second, Burst: 30}, 0},
	} {
		if got := take(t, store.Limiter("a", c.rate), "k", 0, start).Remaining; got != c.left {
			t.Errorf("%d per %v: %d units left after 40 were spent, want %d", c.rate.Limit, c.rate.Per, got, c.left)
		}
	}
	runtime.KeepAlive(old)
}

func TestNeverMoreThanBurstPlusRateTimesTimeIsAllowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := counter.Rate{
			Limit: rapid.Int64Range(1, 2_000_000).Draw(t, "limit"),
			Per:   time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(24*time.Hour)).Draw(t, "per")),
			Burst: rapid.Int64Range(1, 5000).Draw(t, "burst"),
		}
		l := counter.NewLocal().Limiter("a", rate)
		now, forward, spent := start, time.Duration(0), int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			step := time.Duration(rapid.Int64Range(-int64(rate.Per), int64(rate.Per)).Draw(t, "step"))
			now = now.Add(step) // may go back
			forward += max(step, 0)
			cost := rapid.Int64Range(0, rate.Burst+1).Draw(t, "cost")
			r, _, _ := l.Take("k", cost, now, false)
			if r.Allowed {
				spent += cost
			}
			allowance := float64(rate.Burst) + float64(rate.Limit)*float64(forward)/float64(rate.Per)
			if float64(spent) > allowance*(1+1e-9) {
				t.Fatalf("%d units were given in %v where %.1f is all there may be", spent, forward, allowance)
			}
			if r.Remaining < 0 || r.Remaining > rate.Burst || r.Reset < 0 || r.Allowed != (r.RetryAfter == 0) {
				t.Fatalf("a result that cannot be: %+v", r)
			}
		}
	})
}

func TestAfterRetryAfterTheCostIsAllowedAndNotBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := counter.Rate{
			Limit: rapid.Int64Range(1, 100_000).Draw(t, "limit"),
			Per:   time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(t, "per")),
			Burst: rapid.Int64Range(1, 100).Draw(t, "burst"),
		}
		l := counter.NewLocal().Limiter("a", rate)
		l.Take("k", rate.Burst, start, false)
		cost := rapid.Int64Range(1, rate.Burst).Draw(t, "cost")
		r, _, _ := l.Take("k", cost, start, false)
		if r.Allowed {
			t.Fatalf("an empty bucket gave %d", cost)
		}
		if early, _, _ := l.Take("k", cost, start.Add(r.RetryAfter-1), false); early.Allowed {
			t.Fatal("allowed a nanosecond before RetryAfter")
		}
		if then, _, _ := l.Take("k", cost, start.Add(r.RetryAfter), false); !then.Allowed {
			t.Fatalf("refused at RetryAfter: %+v", then)
		}
	})
}

func TestAClockSetBackShutsNobodyOutForLongerThanAnEmptyBucketTakes(t *testing.T) {
	l := counter.NewLocal().Limiter("a", counter.Rate{Limit: 10, Per: time.Second, Burst: 10})
	take(t, l, "k", 10, start)
	back := start.Add(-24 * time.Hour)
	if r := take(t, l, "k", 1, back); r.Allowed || r.RetryAfter > 100*time.Millisecond {
		t.Errorf("just after the step: %+v, want a refusal for 100ms at most", r)
	}
	if r := take(t, l, "k", 10, back.Add(time.Second)); !r.Allowed {
		t.Errorf("a second after the step: %+v, want the whole burst", r)
	}
}

func TestManyAtOnceGetExactlyTheBurst(t *testing.T) {
	const workers, keys, burst = 8, 300, 50
	l := counter.NewLocal().Limiter("a", counter.Rate{Limit: 1, Per: time.Hour, Burst: burst})
	var given [keys]atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range burst {
				for k := range keys {
					if r, _, _ := l.Take(fmt.Sprint(k), 1, start, false); r.Allowed {
						given[k].Add(1)
					}
				}
			}
		})
	}
	all.Wait()
	for k := range keys {
		if n := given[k].Load(); n != burst {
			t.Errorf("key %d got %d units of %d", k, n, burst)
		}
	}
}

func TestInventedKeysResetNobodyAndGetNoMoreThanTheirShare(t *testing.T) {
	store := counter.NewLocal()
	l := store.Limiter("a", counter.Rate{Limit: 2, Per: time.Hour, Burst: 2})
	take(t, l, "victim", 2, start)
	var allowed int
	invented := 0
	for ; store.Crowded() < 100_000 && invented < 3_000_000; invented++ {
		before := store.Crowded()
		r := take(t, l, fmt.Sprint("invented-", invented), 1, start)
		if r.Allowed && store.Crowded() > before {
			allowed++
		}
	}
	if store.Crowded() < 100_000 {
		t.Fatalf("%d live keys and still room: the table is not bounded", invented)
	}
	if shards := 64; allowed > 2*shards {
		t.Errorf("keys without a place got %d units, want at most the burst of each of %d shared buckets", allowed, shards)
	}
	if take(t, l, "victim", 1, start.Add(time.Minute)).Allowed {
		t.Error("inventing keys gave the victim a fresh bucket")
	}
	if !take(t, l, "newcomer", 1, start.Add(2*time.Hour)).Allowed {
		t.Error("when the invented buckets are full again, their places are not free")
	}
}

func TestTakingFromAKnownKeyAllocatesNothing(t *testing.T) {
	l := counter.NewLocal().Limiter("a", counter.Rate{Limit: 1000, Per: time.Second, Burst: 1000})
	var networks counter.Networks
	ip := netip.MustParseAddr("2001:db8::1")
	take(t, l, networks.Key(ip), 1, start)
	if n := testing.AllocsPerRun(100, func() { take(t, l, networks.Key(ip), 1, start) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNamesThatNobodyUsesAreForgotten(t *testing.T) {
	store, rate := counter.NewLocal(), counter.Rate{Limit: 1, Per: 1000 * time.Hour, Burst: 1}
	take(t, store.Limiter("gone", rate), "k", 1, start)
	for range 100 {
		runtime.GC()
		if take(t, store.Limiter("gone", rate), "k", 1, start).Allowed {
			return
		}
	}
	t.Error("the buckets of a name that no document has are still there")
}

func TestClientsAreCountedByAddressAndInIPv6ByTheirSlash64(t *testing.T) {
	for _, c := range []struct{ ip, key string }{
		{"192.0.2.7", "192.0.2.7"},
		{"::ffff:192.0.2.7", "192.0.2.7"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"2001:db8:1:2::9", "2001:db8:1:2::"},
		{"2001:db8:1:3::9", "2001:db8:1:3::"},
		{"fe80::1%eth0", "fe80::"},
	} {
		var networks counter.Networks
		if got := networks.Key(netip.MustParseAddr(c.ip)); got != c.key {
			t.Errorf("%s is counted as %q, want %q", c.ip, got, c.key)
		}
	}
	if got := new(counter.Networks).Key(netip.Addr{}); got != "" {
		t.Errorf("no address is counted as %q", got)
	}
}

func BenchmarkTake(b *testing.B) {
	l := counter.NewLocal().Limiter("a", counter.Rate{Limit: 1e6, Per: time.Second, Burst: 1e6})
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = fmt.Sprint("consumer-", i)
	}
	for i := 0; b.Loop(); i++ {
		l.Take(keys[i%len(keys)], 1, start.Add(time.Duration(i)), false)
	}
}
