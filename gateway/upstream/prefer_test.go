package upstream

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// crowd is an upstream in a time of its own, and what it does with requests that come at one time.
type crowd struct {
	*Upstream
	stop func()
}

// gather makes an upstream of targets a, b, c and d. It must be called in a bubble of synctest, and dispersed.
func gather(t *testing.T, zone string, change func(*model.Upstream)) crowd {
	t.Helper()
	e := env(io.Discard)
	e.Zone = zone
	u := build(t, e, config(change, "a:1", "b:1", "c:1", "d:1"))
	ctx, stop := context.WithCancel(t.Context())
	go func() { _ = e.Sweeper.Run(ctx) }()
	return crowd{u, stop}
}

func (c crowd) disperse() {
	c.stop()
	synctest.Wait()
}

// turns is how many of so many requests each target would get. What is known of health is from before.
func (c crowd) turns(requests int) map[string]int {
	time.Sleep(3 * time.Second) // the clock of the balancer is coarse
	m := map[string]int{}
	for range requests {
		chosen, _ := c.set.Load().choose(c.Upstream, new(exchange.Exchange), nil)
		if chosen == nil {
			m["nobody"]++
			continue
		}
		chosen.load.Done(0)
		m[chosen.end.Address[:1]]++
	}
	return m
}

// out makes targets unavailable, and the others available.
func (c crowd) out(names string) {
	for _, t := range c.set.Load().targets {
		down := false
		for _, n := range names {
			down = down || t.end.Address[0] == byte(n)
		}
		t.load.SetDown(c.coarse(), down)
	}
}

// within fails unless n is a share of all requests.
func within(t *testing.T, what string, n, of int, least, most float64) {
	t.Helper()
	if got := float64(n) / float64(of); got < least || got > most {
		t.Errorf("%s: %.3f of all, not %.3f to %.3f", what, got, least, most)
	}
}

// inZones puts a and b in the north, c and d in the south.
func inZones(m *model.Upstream) {
	m.Balance.SlowStart = 0
	for i, zone := range []string{"north", "north", "south", "south"} {
		m.Targets[i].Zone = zone
	}
}

func TestTheGatewaysOwnZoneIsThatOfTheDocumentOrOfItsEnvironment(t *testing.T) {
	const all = 2000
	for _, c := range []struct {
		environment, document string
		north                 float64
	}{
		{"", "", 0.5},
		{"north", "", 1},
		{"north", "south", 0},
		{"north", "off", 0.5},
		{"", "north", 1},
		{"west", "", 0.5}, // nobody is there
	} {
		synctest.Test(t, func(t *testing.T) {
			u := gather(t, c.environment, func(m *model.Upstream) {
				inZones(m)
				m.Balance.Algorithm, m.Balance.Zone = "random", c.document
			})
			defer u.disperse()
			got := u.turns(all)
			within(t, c.environment+" "+c.document, got["a"]+got["b"], all, c.north-0.05, c.north+0.05)
		})
	}
}

func TestOtherZonesHelpInProportion(t *testing.T) {
	const all = 4000
	for _, c := range []struct {
		floor       int
		out         string
		least, most float64 // share of the other zone
	}{
		{70, "", 0, 0},
		{50, "a", 0, 0},
		{70, "a", 0.14, 0.25}, // 5 of 7 stay; of the rest two thirds go there
		{100, "a", 0.28, 0.39},
		{70, "ab", 1, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := gather(t, "north", func(m *model.Upstream) { inZones(m); m.Balance.LocalFloor = c.floor })
			defer u.disperse()
			u.out(c.out)
			got := u.turns(all)
			within(t, "without "+c.out, got["c"]+got["d"], all, c.least, c.most)
			u.out("")
			if got := u.turns(100); got["c"]+got["d"] > 0 {
				t.Errorf("when all are back: %v", got)
			}
		})
	}
}

func TestTheNextPriorityIsAskedForWhatTheFirstCannotCarry(t *testing.T) {
	const all = 4000
	for _, c := range []struct {
		out         string
		panic       int
		all         string  // when_all_are_out
		least, most float64 // share of the second tier
		nobody      int
	}{
		{"", 30, "ask-all", 0, 0, 0},
		{"a", 30, "ask-all", 0.25, 0.35, 0}, // 1.4 times a half
		{"ab", 30, "ask-all", 1, 1, 0},
		{"abc", 30, "ask-all", 1, 1, 0},
		{"abcd", 30, "ask-all", 0, 0, 0}, // nobody is believed: the first tier
		{"abcd", 30, "fail", 0, 0, all},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := gather(t, "", func(m *model.Upstream) {
				m.Balance.SlowStart, m.Balance.Panic, m.Ejection.OnAllDown = 0, c.panic, c.all
				m.Targets[2].Priority, m.Targets[3].Priority = 7, 7
			})
			defer u.disperse()
			u.out(c.out)
			got := u.turns(all)
			within(t, "without "+c.out, got["c"]+got["d"], all, c.least, c.most)
			if got["nobody"] != c.nobody {
				t.Errorf("without %s, %s: %v", c.out, c.all, got)
			}
		})
	}
}

func TestFewWhoAreLeftAreNotCrushed(t *testing.T) {
	const all = 4000
	for panic, share := range map[int]float64{30: 0.25, 20: 1, 0: 1} { // one of four is left
		synctest.Test(t, func(t *testing.T) {
			u := gather(t, "", func(m *model.Upstream) {
				m.Balance.Algorithm, m.Balance.SlowStart, m.Balance.Panic = "random", 0, panic
			})
			defer u.disperse()
			u.out("abc")
			within(t, "who is left", u.turns(all)["d"], all, share-0.05, share+0.05)
		})
	}
}

// Targets that discovery brings beside others begin with a small share that grows; those of the first answer, and those that
// stay, have theirs at once.
func TestTargetsThatJoinOthersGetAGrowingShare(t *testing.T) {
	const all = 4000
	for _, algorithm := range []string{"least-latency", "round-robin", "least-requests", "random"} {
		synctest.Test(t, func(t *testing.T) {
			u := gather(t, "", func(m *model.Upstream) { m.Balance.Algorithm, m.Balance.SlowStart = algorithm, time.Minute })
			defer u.disperse()
			u.replace(at("a:1", "b:1"))
			within(t, algorithm+": one of the first", u.turns(all)["a"], all, 0.4, 0.6)
			u.replace(at("a:1", "b:1", "e:1"))
			began, last := time.Now(), 0
			for _, c := range []struct {
				age         time.Duration
				least, most float64
			}{
				{4 * time.Second, 0.01, 0.12},
				{30 * time.Second, 0.15, 0.30},
				{70 * time.Second, 0.28, 0.39},
			} {
				time.Sleep(c.age - 3*time.Second - time.Since(began))
				n := u.turns(all)["e"]
				within(t, algorithm+" after "+c.age.String(), n, all, c.least, c.most)
				if n <= last {
					t.Errorf("%s: %d turns after %v, and %d before", algorithm, n, c.age, last)
				}
				last = n
				for _, s := range u.Status().Targets {
					if want := s.Address == "e:1" && c.age < time.Minute; (s.Started < 1) != want {
						t.Errorf("%s is told to have %v of its share after %v", s.Address, s.Started, c.age)
					}
				}
			}
		})
	}
}

// A target that a document adds to those that are there begins slowly, too, and its requests count for the bound of consistent
// hashing; when all are others, they begin at once, since nobody else could carry the requests.
func TestTargetsThatAReloadAddsBesideOthersBeginSlowly(t *testing.T) {
	for _, c := range []struct {
		before, after []string
		slow          string
	}{
		{[]string{"a:1", "b:1"}, []string{"a:1", "e:1", "b:1"}, "e:1"},
		{[]string{"a:1", "b:1"}, []string{"a:1", "b:1"}, ""},
		{[]string{"a:1", "b:1"}, []string{"e:1", "f:1"}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := env(io.Discard)
			ctx, stop := context.WithCancel(t.Context())
			go func() { _ = e.Sweeper.Run(ctx) }()
			defer crowd{nil, stop}.disperse()
			old := build(t, e, config(nil, c.before...))
			time.Sleep(time.Minute)
			u := build(t, e, config(nil, c.after...))
			u.Inherit(old)
			for _, s := range u.Status().Targets {
				if (s.Started < 1) != (s.Address == c.slow) {
					t.Errorf("%v after %v: %s has %v of its share", c.after, c.before, s.Address, s.Started)
				}
			}
			for _, t := range u.set.Load().targets {
				t.load.Begin(0, 0)
			}
			if n := u.total.Value(); n != int64(len(c.after)) {
				t.Errorf("%d requests of %d are counted", n, len(c.after))
			}
			time.Sleep(11 * time.Second)
			for _, s := range u.Status().Targets {
				if s.Started < 1 {
					t.Errorf("%s has %v of its share after its time", s.Address, s.Started)
				}
			}
		})
	}
}
