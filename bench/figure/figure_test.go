package figure

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		sorted []int
		q      float64
		want   int
	}{
		{nil, 0.5, 0},
		{[]int{7}, 0.999, 7},
		{[]int{1, 2}, 0.5, 1},
		{[]int{1, 2}, 0.51, 2},
		{hundred, 0, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 0.999, 100},
		{hundred, 1, 100},
	} {
		if got := Percentile(c.sorted, c.q); got != c.want {
			t.Errorf("Percentile(%d values, %v) = %d, want %d", len(c.sorted), c.q, got, c.want)
		}
	}
}

func TestPercentileCoversItsShareAndNoValueBelowItDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.IntRange(0, 50), 1, 200).Draw(t, "values")
		q := rapid.Float64Range(0.001, 1).Draw(t, "q")
		slices.Sort(values)
		got := Percentile(values, q)
		atMost := func(v int) float64 {
			n := 0
			for _, w := range values {
				if w <= v {
					n++
				}
			}
			return float64(n)
		}
		need := q * float64(len(values))
		if atMost(got) < need {
			t.Fatalf("%v of %d are at most %d, need %v", atMost(got), len(values), got, need)
		}
		if atMost(got-1) >= need {
			t.Fatalf("%d is too large: %v of %d are already at most %d", got, atMost(got-1), len(values), got-1)
		}
	})
}

func TestSummarizeLeavesOutRoundsWithoutANumber(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		values []float64
		want   Summary
	}{
		{[]float64{3}, Summary{3, 3, 3, 1}},
		{[]float64{4, 1, 2}, Summary{2, 1, 4, 3}},
		{[]float64{4, 1, nan, 2, 3}, Summary{2.5, 1, 4, 4}},
	} {
		if got := Summarize(c.values); got != c.want {
			t.Errorf("Summarize(%v) = %+v, want %+v", c.values, got, c.want)
		}
	}
	if got := Summarize([]float64{nan}); !math.IsNaN(got.Median) || got.Rounds != 0 {
		t.Errorf("no numbers at all: %+v", got)
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	nan := math.NaN()
	got := Ratios([]float64{1, 2, nan, 8, 5}, []float64{2, 2, 2, 4, 0})
	if want := []float64{0.5, 1, 2}; !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
}

func TestTheIntervalOfAMedianHoldsItInNineteenOfTwentyCases(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	held := 0
	const runs = 2000
	for range runs {
		values := make([]float64, 80)
		for i := range values {
			values[i] = math.Exp(random.NormFloat64()) // skewed, median 1
		}
		low, high := MedianInterval(values)
		if low > high {
			t.Fatalf("%v to %v", low, high)
		}
		if low <= 1 && 1 <= high {
			held++
		}
	}
	if share := float64(held) / runs; share < 0.94 || share > 0.98 {
		t.Errorf("it held the median in %v of the cases", share)
	}
	if low, high := MedianInterval([]float64{3, math.NaN()}); low != 3 || high != 3 {
		t.Errorf("%v to %v of one value", low, high)
	}
	if low, _ := MedianInterval(nil); !math.IsNaN(low) {
		t.Error("of nothing")
	}
}
