//go:build linux && race

package network

// The binary under test has the race detector if the tests have it.
const raceEnabled = true
