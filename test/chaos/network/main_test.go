//go:build linux

// Package network proves what the gateway promises when the network fails: its binary and its services run on machines of their
// own, see internal/testkit/lab, and between them packets are lost, delayed, refused or swallowed while requests flow.
package network

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"headgate/internal/testkit"
	"headgate/internal/testkit/lab"
)

// role, in the environment, makes the test binary one of the tests' other processes.
const role = "HEADGATE_CHAOS_ROLE"

// binary is the gateway's, built once for all tests. It has the race detector if the tests have it.
var binary string

// atOnce is how many tests run at one time: they do little but wait for time limits.
const atOnce = "8"

func TestMain(m *testing.M) {
	if os.Getenv(role) == "service" {
		os.Exit(serve())
	}
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(lab.Enter(func() int { return run(m) }))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "network")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary, err = testkit.Build(context.Background(), dir, raceEnabled); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
