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
			if got := ends[i].Load.InFlight(); float64(got) > max(bound, leastBound) {
				t.Fatalf("%d of %d requests at an endpoint of weight %d of %d; at most %v", got, k, weights[i], sum, max(bound, leastBound))
			}
		}
	})
}

// While a key's endpoint has few requests the key stays there, whatever is under way elsewhere and however small a bound.
func TestAKeyStaysWhileItsEndpointHasFewRequests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 20).Draw(t, "endpoints")
		weights := make([]int64, n)
		for i := range weights {
			weights[i] = rapid.Int64Range(1, 100).Draw(t, "weight")
		}
		ends := set(weights...)
		b, err := New(ends, Config{
			Algorithm: "consistent-hash", Total: ends[0].Load.total, Bound: rapid.Float64Range(1, 3).Draw(t, "bound"),
		})
		if err != nil {
			t.Fatal(err)
		}
		keys := rapid.SliceOfN(rapid.Uint64(), 1, 30).Draw(t, "keys")
		own := make([]int, len(keys))
		for k, key := range keys { // nothing is under way
			own[k], _ = b.Pick(&Query{Now: begin, Hash: key})
		}
		var busy []int
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if len(busy) > 0 && rapid.IntRange(0, 2).Draw(t, "ends") == 0 {
				ends[busy[0]].Load.Done(0)
				busy = busy[1:]
				continue
			}
			k := rapid.IntRange(0, len(keys)-1).Draw(t, "key")
			few := ends[own[k]].Load.InFlight() < leastBound
			i, _ := b.Pick(&Query{Now: begin, Hash: keys[k]})
			if few && i != own[k] {
				t.Fatalf("%d requests at its own endpoint, %d in all, and it goes to another one", ends[own[k]].Load.InFlight(), len(busy))
			}
			ends[i].Load.Begin(0, 0)
			busy = append(busy, i)
		}
	})
}

// A page that asks for a few things at one time gets them from one endpoint; a key that asks for many is spread, and each of
// the places that it spreads to is the same each time.
func TestTheFewRequestsOfAKeyAreNotTornApart(t *testing.T) {
	visits := func(requests int) (order []int) {
		ends := set(1, 1, 1, 1, 1)
		b, err := New(ends, Config{Algorithm: "consistent-hash", Total: ends[0].Load.total})
		if err != nil {
			t.Fatal(err)
		}
		for range requests {
			i, _ := b.Pick(&Query{Now: begin, Hash: 7})
			ends[i].Load.Begin(0, 0)
			order = append(order, i)
		}
		return order
	}
	if few := visits(leastBound); len(slices.Compact(few)) != 1 {
		t.Errorf("%d requests go to %v", leastBound, few)
	}
	many := visits(40)
	if !slices.Equal(many, visits(40)) {
		t.Error("they are not spread alike")
	}
	count := map[int]int{}
	for _, i := range many {
		count[i]++
	}
	for _, n := range count {
		if n > 10 { // 1.25 times the average
			t.Errorf("of 40 requests %v", count)
		}
	}
}
