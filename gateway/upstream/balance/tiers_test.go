package balance

import (
	"testing"
	"time"
)

// tiers returns 10 endpoints of tier 0 and 10 of tier 1, of which some are down.
func tiered(down0, down1 int) []Endpoint {
	ends := set(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	for i := range ends {
		ends[i].Tier = i / 10 * 5 // numbers need not be dense
		ends[i].Load.SetDown(begin, i < 10 && i < down0 || i >= 10 && i < 10+down1)
	}
	return ends
}

func TestTiersFailOverGraduallyAndPanicLast(t *testing.T) {
	for _, c := range []struct {
		down0, down1 int
		first        float64 // share of tier 0
		bad          float64 // share that those that are down get
	}{
		{0, 0, 1, 0},
		{2, 0, 1, 0},         // 80 % with some to spare carry everything
		{5, 0, .7, 0},        // 50 % × 1.4
		{10, 0, 0, 0},        // the second tier alone
		{10, 9, 0, .9},       // 14 % of everything: its health is not believed
		{8, 8, .5, .8},       // both alike
		{10, 10, 1, 1},       // all down: as if all were well
		{4, 10, 1, 0},        // 84 %, nobody else; more than half available
		{6, 4, .56 / 1, .34}, // .56 + .84: together they carry everything; no panic, see below
	} {
		got := shares(build(t, tiered(c.down0, c.down1), Config{Algorithm: "random", Panic: .5}), 40_000, begin)
		first, bad := 0.0, 0.0
		for i, share := range got {
			if i < 10 {
				first += share
			}
			if i < 10 && i < c.down0 || i >= 10 && i < 10+c.down1 {
				bad += share
			}
		}
		if c.down0 == 6 {
			c.bad = 0
		}
		near(t, "first tier", first, c.first, .02)
		near(t, "those that are down", bad, c.bad, .02)
	}
}

func TestRequestsStayInTheZoneAsFarAsItCarriesThem(t *testing.T) {
	for _, c := range []struct {
		down int
		here float64
	}{
		{0, 1},
		{2, 1},              // 50 % of the zone, which is the floor
		{3, .5 + .5*(1./7)}, // half of the floor: half stay; the rest goes to all that are available
		{4, 0},
	} {
		ends := set(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
		for i := range ends {
			ends[i].Zone = "far"
			if i < 4 {
				ends[i].Zone = "near"
				ends[i].Load.SetDown(begin, i < c.down)
			}
		}
		got := shares(build(t, ends, Config{Algorithm: "random", Zone: "near", LocalFloor: .5}), 40_000, begin)
		near(t, "own zone", got[0]+got[1]+got[2]+got[3], c.here, .02)
	}
}

func TestANewEndpointGetsAGrowingShare(t *testing.T) {
	for _, name := range []string{"round-robin", "random", "consistent-hash", "least-requests", "least-latency"} {
		for _, c := range []struct {
			age  time.Duration
			fade float64
		}{{0, .1}, {30 * time.Second, .5}, {time.Minute, 1}} {
			ends := set(1, 1, 1, 1)
			ends[3].Load.Join(begin - c.age) // a reload that makes another balancer changes nothing
			got := shares(build(t, ends, Config{Algorithm: name, SlowStart: time.Minute}), 40_000, begin)
			near(t, name, got[3], c.fade/(3+c.fade), .025)
		}
	}
}

func TestHealthIsCountedAgainWithinATenthOfASecond(t *testing.T) {
	ends := tiered(0, 0)
	b := build(t, ends, Config{Algorithm: "random"})
	shares(b, 10, begin)
	for i := range 10 {
		ends[i].Load.Eject(begin + time.Minute)
	}
	if got := shares(b, 1000, begin); got[0] > 0 { // at once, whatever the last count says
		t.Error("one that is ejected was picked before the next count")
	}
	got := shares(b, 1000, begin+time.Minute+censusEvery)
	back := 0.0
	for _, share := range got[:10] {
		back += share
	}
	near(t, "after the ejections", back, 1, .001)
}
