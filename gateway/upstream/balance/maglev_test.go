package balance

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func place(b *Balancer, keys int) []string {
	out := make([]string, keys)
	for k := range out {
		if i, _ := b.Pick(&Query{Now: begin, Hash: mix(uint64(k))}); i != None {
			out[k] = b.ends[i].Key
		}
	}
	return out
}

func TestKeysStayWhenAnEndpointLeaves(t *testing.T) {
	ends := set(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	c := Config{Algorithm: "consistent-hash"}
	const keys = 20_000
	before := place(build(t, ends, c), keys)
	gone := ends[4].Key
	moved := func(after []string) (others, orphans int) {
		spread := map[string]int{}
		for k, key := range before {
			switch {
			case key == gone:
				orphans++
				spread[after[k]]++
			case after[k] != key:
				others++
			}
		}
		for key, n := range spread {
			if key == gone || n > orphans/4 {
				t.Errorf("%d of %d keys of the lost one are at %s", n, orphans, key)
			}
		}
		return others, orphans
	}
	ends[4].Load.SetDown(begin, true)
	if others, orphans := moved(place(build(t, ends, c), keys)); others != 0 || orphans < keys/12 {
		t.Errorf("down: %d other keys moved, %d were its own", others, orphans)
	}
	without := slices.Delete(slices.Clone(ends), 4, 5)
	if others, _ := moved(place(build(t, without, c), keys)); others > keys*3/100 {
		t.Errorf("removed: %d other keys of %d moved", others, keys)
	}
}

func TestKeysFollowNamesAndNotTheOrderOfTheDocument(t *testing.T) {
	ends := set(1, 2, 3, 4)
	turned := slices.Clone(ends)
	slices.Reverse(turned)
	c := Config{Algorithm: "consistent-hash"}
	a, b := place(build(t, ends, c), 10_000), place(build(t, turned, c), 10_000)
	if !slices.Equal(a, b) {
		t.Error("keys moved")
	}
}

func TestAHotKeyNeverLoadsAnEndpointAboveTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 20).Draw(t, "endpoints")
		weights := make([]int64, n)
		var sum int64
		for i := range weights {
			weights[i] = rapid.Int64Range(1, 4).Draw(t, "weight")
			sum += weights[i]
		}
		ends := set(weights...)
		b, err := New(ends, Config{Algorithm: "consistent-hash", Total: ends[0].Load.total, Bound: 1.25})
		if err != nil {
			t.Fatal(err)
		}
		hot := rapid.Uint64().Draw(t, "key")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for k := int64(1); k <= 200; k++ {
			key := hot
			if r.IntN(10) == 0 {
				key = r.Uint64()
			}
			i, _ := b.Pick(&Query{Now: begin, Hash: key})
			ends[i].Load.Begin(0, 0)
			bound := math.Ceil(1.25*float64(k)/float64(sum)*float64(weights[i]) + 1e-9) // which is for rounding
			if got := ends[i].Load.InFlight(); float64(got) > bound {
				t.Fatalf("%d of %d requests at an endpoint of weight %d of %d; at most %v", got, k, weights[i], sum, bound)
			}
		}
	})
}
