package balance

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// service is the behaviour of a simulated endpoint: how long a request takes when it arrives at now, and whether it fails.
type service func(now time.Duration, r *rand.Rand) (took time.Duration, failed bool)

// exponential returns a service of that mean.
func exponential(mean time.Duration) service {
	return func(_ time.Duration, r *rand.Rand) (time.Duration, bool) {
		return time.Duration(r.ExpFloat64() * float64(mean)), false
	}
}

type arrival struct {
	at   time.Duration
	end  int
	took time.Duration
	bad  bool
}

type arrivals []arrival

func (a arrivals) Len() int           { return len(a) }
func (a arrivals) Less(i, j int) bool { return a[i].at < a[j].at }
func (a arrivals) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *arrivals) Push(x any)        { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// outcome is one request of a simulation.
type outcome struct {
	at, took time.Duration
	end      int
	failed   bool
}

// simulate sends Poisson arrivals at rate per second for a time, through one balancer.
func simulate(b *Balancer, services []service, rate float64, span time.Duration) (all []outcome) {
	r := rand.New(rand.NewPCG(7, 11))
	var pending arrivals
	now := time.Duration(0)
	for ; now < span; now += time.Duration(r.ExpFloat64() / rate * float64(time.Second)) {
		for len(pending) > 0 && pending[0].at <= now {
			p := heap.Pop(&pending).(arrival)
			b.ends[p.end].Load.Done(0)
			b.ends[p.end].Load.Learn(begin+p.at, p.took, p.bad)
		}
		i, _ := b.Pick(&Query{Now: begin + now, Random: r.Uint64()})
		took, failed := services[i](now, r)
		b.ends[i].Load.Begin(0, 0)
		heap.Push(&pending, arrival{now + took, i, took, failed})
		all = append(all, outcome{now, took, i, failed})
	}
	return all
}

func p99(all []outcome, from, to time.Duration) time.Duration {
	var took []time.Duration
	for _, o := range all {
		if o.at >= from && o.at < to {
			took = append(took, o.took)
		}
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

func shareOf(all []outcome, end int, from, to time.Duration) float64 {
	n, of := 0, 0
	for _, o := range all {
		if o.at >= from && o.at < to {
			of++
			if o.end == end {
				n++
			}
		}
	}
	return float64(n) / float64(of)
}

// TestOneOfThreeBecomesTenTimesSlower is scenario (a) of the upstreams' figures: the default keeps its latency, round robin does
// not, and the endpoint is used again when it is well.
func TestOneOfThreeBecomesTenTimesSlower(t *testing.T) {
	fast, slow := exponential(5*time.Millisecond), exponential(50*time.Millisecond)
	services := []service{fast, fast, func(now time.Duration, r *rand.Rand) (time.Duration, bool) {
		if now >= 10*time.Second && now < 40*time.Second {
			return slow(now, r)
		}
		return fast(now, r)
	}}
	figures := map[string]time.Duration{}
	for _, name := range []string{"least-latency", "round-robin"} {
		all := simulate(build(t, set(1, 1, 1), Config{Algorithm: name}), services, 1000, 80*time.Second)
		before, during := p99(all, 5*time.Second, 10*time.Second), p99(all, 10*time.Second, 40*time.Second)
		back := shareOf(all, 2, 70*time.Second, 80*time.Second)
		t.Logf("%s: p99 %v before, %v in the 30 s after; share of the slow one %.4f, and %.3f when it is well again",
			name, before, during, shareOf(all, 2, 11*time.Second, 40*time.Second), back)
		figures[name] = during
		if name == "least-latency" && (during > before*3/2 || back < .15) {
			t.Errorf("p99 %v before, %v after; share %.3f at the end", before, during, back)
		}
	}
	if figures["round-robin"] < 3*figures["least-latency"] {
		t.Error("round robin does as well: the scenario shows nothing")
	}
}

func TestOneThatFailsFastDoesNotLookFast(t *testing.T) {
	services := []service{exponential(20 * time.Millisecond), exponential(20 * time.Millisecond),
		func(time.Duration, *rand.Rand) (time.Duration, bool) { return time.Millisecond, true }}
	all := simulate(build(t, set(1, 1, 1), Config{}), services, 500, 30*time.Second)
	if got := shareOf(all, 2, time.Second, 30*time.Second); got > .02 {
		t.Errorf("it gets %.3f of the requests", got)
	}
}

func TestOneThatNeverAnswersIsNotAskedAgainAndAgain(t *testing.T) {
	services := []service{exponential(20 * time.Millisecond), exponential(20 * time.Millisecond),
		func(time.Duration, *rand.Rand) (time.Duration, bool) { return time.Hour, false }}
	all := simulate(build(t, set(1, 1, 1), Config{}), services, 500, 30*time.Second)
	if got := shareOf(all, 2, 0, 30*time.Second); got > .001 {
		t.Errorf("it gets %.4f of the requests", got)
	}
}

func TestLeastRequestsKeepsQueuesShort(t *testing.T) {
	services := []service{exponential(10 * time.Millisecond), exponential(10 * time.Millisecond), exponential(40 * time.Millisecond)}
	all := simulate(build(t, set(1, 1, 1), Config{Algorithm: "least-requests"}), services, 1000, 20*time.Second)
	if got := shareOf(all, 2, time.Second, 20*time.Second); got > .2 { // in proportion to speed it would be 1/9; equal is 1/3
		t.Errorf("one that is four times slower gets %.3f", got)
	}
}
