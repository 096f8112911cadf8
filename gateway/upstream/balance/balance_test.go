package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const begin = time.Hour // long after slow start

func set(weights ...int64) []Endpoint {
	ends := make([]Endpoint, len(weights))
	total := new(Total)
	for i, w := range weights {
		ends[i] = Endpoint{Key: fmt.Sprintf("10.0.%d.%d:80", i/256, i%256), Weight: w, Load: NewLoad(total)}
	}
	return ends
}

func build(t testing.TB, ends []Endpoint, c Config) *Balancer {
	t.Helper()
	if c.Total == nil && len(ends) > 0 && c.Algorithm == "consistent-hash" {
		c.Total = ends[0].Load.total
	}
	b, err := New(ends, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shares picks n times at one moment, with nothing in flight, and returns who got which share.
func shares(b *Balancer, n int, now time.Duration) []float64 {
	r := rand.New(rand.NewPCG(1, 2))
	got := make([]float64, len(b.ends))
	for k := range n {
		i, _ := b.Pick(&Query{Now: now, Random: r.Uint64(), Hash: r.Uint64(), Shard: uint32(k)})
		if i != None {
			got[i] += 1 / float64(n)
		}
	}
	return got
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance {
		t.Errorf("%s: %.3f, want %.3f", what, got, want)
	}
}

func TestSharesFollowWeights(t *testing.T) {
	for _, c := range []struct {
		algorithm string
		want      []float64
	}{
		{"round-robin", []float64{.1, .3, .6, 0}},
		{"random", []float64{.1, .3, .6, 0}},
		{"consistent-hash", []float64{.1, .3, .6, 0}},
	} {
		got := shares(build(t, set(1, 3, 6, 0), Config{Algorithm: c.algorithm}), 60_000, begin)
		for i, want := range c.want {
			near(t, fmt.Sprintf("%s: endpoint %d", c.algorithm, i), got[i], want, .02)
		}
	}
}

func TestSmoothRoundRobinSpreadsTurnsEvenly(t *testing.T) {
	b := build(t, set(5, 1, 1), Config{Algorithm: "round-robin"})
	run, longest, last := 0, 0, None
	for range 700 {
		i, _ := b.Pick(&Query{Now: begin})
		if run++; i != last {
			run = 1
		}
		last, longest = i, max(longest, run)
	}
	if longest > 3 { // all five in a row, were it not smooth
		t.Errorf("%d turns in a row", longest)
	}
}

func TestATurnOfOneThatIsOutIsSharedByAll(t *testing.T) {
	ends := set(1, 1, 1, 1)
	ends[1].Load.SetDown(begin, true)
	got := shares(build(t, ends, Config{Algorithm: "round-robin"}), 30_000, begin)
	for _, i := range []int{0, 2, 3} {
		near(t, fmt.Sprint("endpoint ", i), got[i], 1./3, .01)
	}
}

// TestPicksAreAvailableAndHaveRoom is the law of all algorithms: as long as somebody is available and has room, nobody else is
// picked; weight 0 never is; who was tried is not picked again.
func TestPicksAreAvailableAndHaveRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 150).Draw(t, "endpoints")
		ends := set(make([]int64, n)...)
		for i := range ends {
			e := &ends[i]
			e.Weight = rapid.SampledFrom([]int64{0, 1, 1, 1, 7, 100}).Draw(t, "weight")
			e.Tier = rapid.IntRange(0, 2).Draw(t, "tier")
			e.Zone = rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "zone")
			e.MaxRequests = rapid.SampledFrom([]int64{0, 0, 3}).Draw(t, "maximum")
			if rapid.Bool().Draw(t, "new") {
				e.Load.Join(rapid.SampledFrom([]time.Duration{0, begin - time.Second, begin}).Draw(t, "since"))
			}
			for range rapid.IntRange(0, 4).Draw(t, "in flight") {
				e.Load.Begin(0, e.MaxRequests)
			}
			e.Load.SetDown(0, rapid.Bool().Draw(t, "down"))
			if rapid.Bool().Draw(t, "ejected") {
				e.Load.Eject(begin + time.Second)
			}
		}
		strict := rapid.Bool().Draw(t, "strict")
		b, err := New(ends, Config{
			Algorithm: rapid.SampledFrom(Algorithms()).Draw(t, "algorithm"), Zone: "a", LocalFloor: .5, SlowStart: time.Minute,
			Total: ends[0].Load.total, Strict: strict,
		})
		if err != nil {
			t.Fatal(err)
		}
		not := new(Tried)
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, n-1), 0, MaxTried).Draw(t, "tried") {
			not.Add(ends[i].Load)
		}
		best, room := false, false
		for i := range ends {
			if ends[i].Weight > 0 && !ends[i].full() && !not.Has(ends[i].Load) {
				room = true
				best = best || ends[i].Load.Available(begin)
			}
		}
		for range 20 {
			i, full := b.Pick(&Query{Now: begin, Random: rapid.Uint64().Draw(t, "random"), Hash: rapid.Uint64().Draw(t, "hash"), Not: not})
			switch {
			case i == None && best:
				t.Fatalf("nobody was picked (full: %v)", full)
			case i == None && !full && room && !strict:
				t.Fatal("nobody was picked, though not all are full")
			case i == None:
			case ends[i].Weight == 0 || ends[i].full():
				t.Fatalf("%+v has no share or no room", ends[i])
			case not.Has(ends[i].Load):
				t.Fatalf("endpoint %d was picked again", i)
			case !ends[i].Load.Available(begin) && (best || strict):
				t.Fatalf("endpoint %d was picked, which is out", i)
			}
		}
	})
}

func TestAMaximumIsNeverExceeded(t *testing.T) {
	l, done := NewLoad(nil), make(chan int)
	for shard := range 8 {
		go func() {
			most := 0
			for range 10_000 {
				if l.Begin(uint32(shard), 3) {
					most = max(most, int(l.InFlight()))
					l.Done(uint32(shard))
				}
			}
			done <- most
		}()
	}
	for range 8 {
		<-done
	}
	if l.InFlight() != 0 {
		t.Errorf("%d in flight at the end", l.InFlight())
	}
	for range 3 {
		if !l.Begin(0, 3) {
			t.Error("refused below the maximum")
		}
	}
	if l.Begin(0, 3) || l.InFlight() != 3 {
		t.Errorf("%d in flight", l.InFlight())
	}
}

func TestWhoeverIsFullIsSkippedAndNobodyElseIsToBlame(t *testing.T) {
	ends := set(1, 1)
	ends[0].MaxRequests, ends[1].MaxRequests = 1, 1
	ends[0].Load.Begin(0, 1)
	b := build(t, ends, Config{})
	if i, _ := b.Pick(&Query{Now: begin}); i != 1 {
		t.Errorf("picked %d", i)
	}
	ends[1].Load.SetDown(begin, true)
	if i, full := b.Pick(&Query{Now: begin}); i != None || !full {
		t.Errorf("picked %d, full %v: a full upstream is no reason to ask one that is down", i, full)
	}
}

func TestPicksCostNoMemoryAndLittleTimeWith5000Endpoints(t *testing.T) {
	weights := make([]int64, 5000)
	for i := range weights {
		weights[i] = int64(i%7) + 1
	}
	for _, name := range Algorithms() {
		for _, down := range []int{0, 4990} {
			ends := set(weights...)
			for i := range down {
				ends[i].Load.SetDown(begin, true)
			}
			b := build(t, ends, Config{Algorithm: name})
			q, r := Query{Now: begin}, uint64(1)
			if n := testing.AllocsPerRun(1000, func() {
				r = mix(r)
				q.Random, q.Hash = r, r
				if i, _ := b.Pick(&q); i == None {
					t.Fatal("nobody")
				}
			}); n != 0 {
				t.Errorf("%s with %d down: %v allocations", name, down, n)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, name := range Algorithms() {
		for _, n := range []int{3, 5000} {
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				weights := make([]int64, n)
				for i := range weights {
					weights[i] = 1
				}
				bal := build(b, set(weights...), Config{Algorithm: name})
				q, r := Query{Now: begin}, uint64(1)
				for b.Loop() {
					r = mix(r)
					q.Random, q.Hash = r, r
					bal.Pick(&q)
				}
			})
		}
	}
}
