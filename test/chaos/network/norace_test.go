//go:build linux && !race

package network

const raceEnabled = false
