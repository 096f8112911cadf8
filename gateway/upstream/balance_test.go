package upstream

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// behaviour is how a simulated target answers a request that comes when the simulation is that old.
type behaviour func(age time.Duration) (takes time.Duration, status int)

func steady(takes time.Duration, status int) behaviour {
	return func(time.Duration) (time.Duration, int) { return takes, status }
}

// simulate sends requests evenly for as long as wanted, through the real balancer and what it learns, in a time of its
// own and with random numbers of a fixed seed. It returns how many each target got in each tenth of the time.
func simulate(
	t *testing.T, change func(*model.Upstream), rate int, lasts time.Duration, targets ...behaviour,
) (shares [][10]int, u *Upstream) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := env(io.Discard)
		var addresses []string
		for i := range targets {
			addresses = append(addresses, fmt.Sprintf("10.0.0.%d:80", i+1))
		}
		u = build(t, e, config(change, addresses...))
		random := rand.New(rand.NewPCG(1, 2))
		all := u.set.Load().targets
		u.set.Store(&set{all, newBalancer(u.config.Balance.Algorithm, all, random.Uint64)})
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = e.Sweeper.Run(ctx) }()
		shares = make([][10]int, len(targets))
		began := time.Now()
		for n := range int(lasts.Seconds() * float64(rate)) {
			time.Sleep(time.Second / time.Duration(rate))
			age := time.Since(began)
			chosen := u.set.Load().balance.pick(e.Sweeper.Coarse(), tried{})
			i := slices.Index(u.set.Load().targets, chosen)
			shares[i][min(int(10*age/lasts), 9)]++
			takes, status := targets[i](age)
			jitter := time.Duration(n%7) * takes / 20
			chosen.inFlight.Add(1)
			go func() {
				time.Sleep(takes + jitter)
				chosen.inFlight.Add(-1)
				x := &exchange.Exchange{Reply: exchange.Reply{Status: status}}
				chosen.judge(x, nil, false, takes+jitter)
			}()
		}
		time.Sleep(2 * time.Hour) // those that hang
		stop()
		synctest.Wait()
	})
	return shares, u
}

func sum(a [10]int) (n int) {
	for _, v := range a {
		n += v
	}
	return n
}

func noEjection(m *model.Upstream) { m.Ejection.Failures = 0 }

func TestLeastLatencyShiftsAwayFromASlowTarget(t *testing.T) {
	for n := 2; n <= 6; n++ {
		all := []behaviour{steady(200*time.Millisecond, 200)}
		for range n - 1 {
			all = append(all, steady(20*time.Millisecond, 200))
		}
		shares, _ := simulate(t, nil, 200, time.Minute, all...)
		if slow := sum(shares[0]); slow > 12_000/n/5 {
			t.Errorf("of %d targets the one that is ten times as slow got %d of 12000 requests", n, slow)
		}
	}
}

func TestLeastLatencySharesOutAmongEquals(t *testing.T) {
	equal := steady(20*time.Millisecond, 200)
	shares, _ := simulate(t, nil, 500, time.Minute, equal, equal, equal, equal)
	for i, s := range shares {
		if n := sum(s); n < 30_000/4/2 || n > 30_000/4*3/2 {
			t.Errorf("target %d got %d of 30000 requests", i, n)
		}
	}
}

func TestAFastFailingTargetDoesNotAttractTraffic(t *testing.T) {
	good := steady(50*time.Millisecond, 200)
	shares, _ := simulate(t, noEjection, 200, time.Minute, steady(time.Millisecond, 503), good, good)
	if n := sum(shares[0]); n > 12_000/3/5 {
		t.Errorf("the failing one got %d of 12000 requests", n)
	}
}

func TestATargetThatNeverAnswersDoesNotAttractTraffic(t *testing.T) {
	for name, hangs := range map[string]behaviour{
		"from the beginning": steady(time.Hour, 200),
		"after a while": func(age time.Duration) (time.Duration, int) {
			if age > 20*time.Second {
				return time.Hour, 200
			}
			return 20 * time.Millisecond, 200
		},
	} {
		shares, u := simulate(t, noEjection, 200, time.Minute, hangs, steady(20*time.Millisecond, 200))
		late := 0
		for _, n := range shares[0][4:] {
			late += n
		}
		if late > 50 {
			t.Errorf("%s: %d of 7200 requests went where nothing answers (%+v)", name, late, u.Status())
		}
	}
}

func TestATargetThatHasRecoveredIsFoundOut(t *testing.T) {
	recovers := func(age time.Duration) (time.Duration, int) {
		if age < time.Minute {
			return time.Second, 200
		}
		return 20 * time.Millisecond, 200
	}
	good := steady(20*time.Millisecond, 200)
	shares, _ := simulate(t, nil, 200, 5*time.Minute, recovers, good, good)
	if before := shares[0][1]; before > 6000/3/5 {
		t.Errorf("%d requests while it was slow", before)
	}
	if after := shares[0][9]; after < 6000/3/2 {
		t.Errorf("only %d of the last 6000 requests after it recovered", after)
	}
}

func TestATargetOfWeight0GetsNothing(t *testing.T) {
	good := steady(20*time.Millisecond, 200)
	for _, balance := range []string{"least-latency", "round-robin"} {
		change := func(m *model.Upstream) { m.Balance.Algorithm, m.Targets[1].Weight = balance, 0 }
		shares, _ := simulate(t, change, 100, 10*time.Second, good, good, good)
		if n := sum(shares[1]); n != 0 {
			t.Errorf("%s: %d requests", balance, n)
		}
	}
}

func TestNobodyWithAWeight(t *testing.T) {
	for _, balance := range []string{"least-latency", "round-robin"} {
		for n := 1; n < 4; n++ {
			u := build(t, env(io.Discard), config(func(m *model.Upstream) {
				m.Balance.Algorithm = balance
				for i := range m.Targets {
					m.Targets[i].Weight = 0
				}
			}, []string{"a:1", "b:1", "c:1"}[:n]...))
			if got := u.set.Load().balance.pick(0, tried{}); got != nil {
				t.Errorf("%s of %d: %s", balance, n, got.end.address)
			}
			if _, code := send(t, u, ask("GET")); code != "no_target" {
				t.Errorf("%s of %d: %q", balance, n, code)
			}
			if s := u.Status().Targets[0].State; s != "off" {
				t.Errorf("state %q", s)
			}
		}
	}
}

func weighing(weight int64, address string) *target {
	t := &target{end: endpoint{address: address}}
	t.weight.Store(weight)
	return t
}

// In every full circle each target comes exactly as often as its weight says.
func TestRoundRobinIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Int64Range(0, 12), 2, 8).Draw(t, "weights")
		var targets []*target
		var total, divisor int64
		for _, w := range weights {
			targets = append(targets, weighing(w, ""))
			total, divisor = total+w, gcd(divisor, w)
		}
		b := newRoundRobin(targets)
		if total == 0 {
			if b.pick(0, tried{}) != nil {
				t.Fatal("somebody without a weight")
			}
			return
		}
		for range 3 {
			got := make([]int64, len(targets))
			for range total / divisor {
				got[slices.Index(targets, b.pick(0, tried{}))]++
			}
			for i := range got {
				if got[i] != weights[i]/divisor {
					t.Fatalf("%v for the weights %v", got, weights)
				}
			}
		}
	})
}

func TestRoundRobinIsSpreadEvenly(t *testing.T) {
	r := newRoundRobin([]*target{weighing(5, "a"), weighing(1, "b"), weighing(1, "c")})
	var got strings.Builder
	for range 14 {
		got.WriteString(r.pick(0, tried{}).end.address)
	}
	if got.String() != "aabacaaaabacaa" {
		t.Errorf("%s", got.String())
	}
}

func TestACircleIsBounded(t *testing.T) {
	r := newRoundRobin([]*target{weighing(999_983, "a"), weighing(999_979, "b")})
	if len(r.circle) > maxCircle {
		t.Errorf("%d places", len(r.circle))
	}
}

func TestWhoIsChosenWhenSomeAreOut(t *testing.T) {
	for _, balance := range []string{"least-latency", "round-robin"} {
		u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Balance.Algorithm = balance }, "a:1", "b:1", "c:1"))
		a, b, c := u.set.Load().targets[0], u.set.Load().targets[1], u.set.Load().targets[2]
		picks := func(failed ...*target) (got string) {
			seen := map[string]bool{}
			var not tried
			for _, t := range failed {
				not.add(t)
			}
			for range 200 {
				if t := u.set.Load().balance.pick(0, not); t != nil {
					seen[t.end.address[:1]] = true
				}
			}
			for _, t := range u.set.Load().targets {
				if seen[t.end.address[:1]] {
					got += t.end.address[:1]
				}
			}
			return got
		}
		check := func(what, got, want string) {
			if got != want {
				t.Errorf("%s, %s: %s, want %s", balance, what, got, want)
			}
		}
		check("all well", picks(), "abc")
		check("a failed just now", picks(a), "bc")
		b.down.Store(true)
		check("a and b failed just now", picks(a, b), "c")
		check("all failed just now", picks(a, b, c), "")
		check("b is down", picks(), "ac")
		check("b is down and a failed just now", picks(a), "c")
		c.until.Store(int64(time.Hour))
		check("only a is left", picks(), "a")
		check("a, which was left, failed just now", picks(a), "bc") // fail-open
		a.down.Store(true)
		check("none is left", picks(), "abc") // fail-open
		b.weight.Store(0)
		c.weight.Store(0)
		check("a is the only one with a weight", picks(), "a")
		check("a, the only one with a weight, failed just now", picks(a), "")
	}
}
