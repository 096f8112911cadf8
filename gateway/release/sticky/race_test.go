//go:build race

package sticky

// raced: the race detector makes pools forget on purpose, so that allocations cannot be counted.
const raced = true
