package upstream

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/balance"
)

// behaviour is how a simulated target answers a request that comes when the simulation is that old.
type behaviour func(age time.Duration) (takes time.Duration, status int)

func steady(takes time.Duration, status int) behaviour {
	return func(time.Duration) (time.Duration, int) { return takes, status }
}

// simulate sends requests evenly for as long as wanted, through the real balancer and what it learns, in a time of its
// own. It returns how many each target got in each tenth of the time.
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
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = e.Sweeper.Run(ctx) }()
		shares = make([][10]int, len(targets))
		began := time.Now()
		for n := range int(lasts.Seconds() * float64(rate)) {
			time.Sleep(time.Second / time.Duration(rate))
			age := time.Since(began)
			chosen, _ := u.set.Load().choose(u, new(exchange.Exchange), nil)
			i := slices.Index(u.set.Load().targets, chosen)
			shares[i][min(int(10*age/lasts), 9)]++
			takes, status := targets[i](age)
			jitter := time.Duration(n%7) * takes / 20
			go func() {
				time.Sleep(takes + jitter)
				chosen.load.Done(0)
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

// choose returns whom a request would be sent to now; nil: nobody.
func choose(u *Upstream, not *balance.Tried) *target {
	t, _ := u.set.Load().choose(u, new(exchange.Exchange), not)
	if t != nil {
		t.load.Done(0)
	}
	return t
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
	for _, algorithm := range []string{"least-latency", "round-robin"} {
		change := func(m *model.Upstream) { m.Balance.Algorithm, m.Targets[1].Weight = algorithm, 0 }
		shares, _ := simulate(t, change, 100, 10*time.Second, good, good, good)
		if n := sum(shares[1]); n != 0 {
			t.Errorf("%s: %d requests", algorithm, n)
		}
	}
}

func TestNobodyWithAWeight(t *testing.T) {
	for _, algorithm := range []string{"least-latency", "round-robin"} {
		for n := 1; n < 4; n++ {
			u := build(t, env(io.Discard), config(func(m *model.Upstream) {
				m.Balance.Algorithm = algorithm
				for i := range m.Targets {
					m.Targets[i].Weight = 0
				}
			}, []string{"a:1", "b:1", "c:1"}[:n]...))
			if got := choose(u, nil); got != nil {
				t.Errorf("%s of %d: %s", algorithm, n, got.end.Address)
			}
			if _, code := send(t, u, ask("GET")); code != "no_target" {
				t.Errorf("%s of %d: %q", algorithm, n, code)
			}
			if s := u.Status().Targets[0].State; s != "off" {
				t.Errorf("state %q", s)
			}
		}
	}
}

func TestWhoIsChosenWhenSomeAreOut(t *testing.T) {
	for _, algorithm := range []string{"least-latency", "round-robin"} {
		u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Balance.Algorithm = algorithm }, "a:1", "b:1", "c:1"))
		a, b, c := u.set.Load().targets[0], u.set.Load().targets[1], u.set.Load().targets[2]
		picks := func(failed ...*target) (got string) {
			seen := map[string]bool{}
			var not balance.Tried
			for _, t := range failed {
				not.Add(t.load)
			}
			for range 200 {
				if t := choose(u, &not); t != nil {
					seen[t.end.Address[:1]] = true
				}
			}
			for _, t := range u.set.Load().targets {
				if seen[t.end.Address[:1]] {
					got += t.end.Address[:1]
				}
			}
			return got
		}
		check := func(what, got, want string) {
			if got != want {
				t.Errorf("%s, %s: %s, want %s", algorithm, what, got, want)
			}
		}
		check("all well", picks(), "abc")
		check("a failed just now", picks(a), "bc")
		b.load.SetDown(0, true)
		check("a and b failed just now", picks(a, b), "c")
		check("all failed just now", picks(a, b, c), "")
		check("b is down", picks(), "ac")
		check("b is down and a failed just now", picks(a), "c")
		c.load.Eject(time.Hour)
		check("only a is left", picks(), "a")
		check("a, which was left, failed just now", picks(a), "bc") // fail-open
		a.load.SetDown(0, true)
		check("none is left", picks(), "abc") // fail-open
		weighted := slices.Clone(u.set.Load().wanted)
		weighted[1].weight, weighted[2].weight = 0, 0
		u.replace(weighted)
		check("a is the only one with a weight", picks(), "a")
		check("a, the only one with a weight, failed just now", picks(a), "")
	}
}
