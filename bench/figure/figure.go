// Package figure is the arithmetic of the benchmark: percentiles of one run, and medians over rounds.
package figure

import (
	"math"
	"slices"
)

// Percentile returns the smallest value that at least the share q (0 to 1) of the sorted values do not exceed: the
// nearest rank, never an interpolated value that nobody measured. Without values it is 0.
func Percentile[T any](sorted []T, q float64) T {
	var none T
	if len(sorted) == 0 {
		return none
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Summary is what several rounds say together.
type Summary struct {
	Median, Min, Max float64
	Rounds           int
}

// Summarize returns the median, smallest and largest of the values that are numbers; NaN stands for a round that has none.
func Summarize(values []float64) Summary {
	kept := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	n := len(kept)
	if n == 0 {
		return Summary{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	slices.Sort(kept)
	return Summary{Median: (kept[(n-1)/2] + kept[n/2]) / 2, Min: kept[0], Max: kept[n-1], Rounds: n}
}

// MedianInterval returns the values between which the true median lies in 95 of 100 cases, whatever their distribution: the ranks of the
// binomial distribution at one half, by its normal approximation. NaN without values.
func MedianInterval(values []float64) (low, high float64) {
	kept := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	n := len(kept)
	if n == 0 {
		return math.NaN(), math.NaN()
	}
	slices.Sort(kept)
	const deviations = 1.96 // of the normal distribution: 95 %
	half := deviations * math.Sqrt(float64(n)) / 2
	first := int(math.Floor(float64(n)/2-half)) - 1
	return kept[max(first, 0)], kept[min(n-1-first, n-1)]
}

// Ratios divides each round's value by the other's of the same round; a round that only one of them has is left out.
func Ratios(values, others []float64) []float64 {
	out := make([]float64, 0, len(values))
	for i := range min(len(values), len(others)) {
		if r := values[i] / others[i]; !math.IsNaN(r) && !math.IsInf(r, 0) {
			out = append(out, r)
		}
	}
	return out
}
