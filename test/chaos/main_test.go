// Package chaos proves what the gateway promises when things go wrong around it: real faults, on real processes and
// sockets, under load. What a single exchange can show stands in test/scripts; here are crowds, kills and shortages.
package chaos

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"headgate/internal/testkit"
)

// binaries are built once for all tests.
type binaries struct {
	checked string // with the race detector if the tests have it
	plain   string // without: the detector cannot follow as many goroutines as there are connections in a crowd
}

var built binaries

// atOnce is how many tests run at one time: most of what they do is to wait for a time limit of the gateway's.
const atOnce = "4"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if built, err = build(dir); err != nil {
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

func build(dir string) (b binaries, err error) {
	for _, race := range []bool{false, true} {
		if race && !raceEnabled {
			b.checked = b.plain
			continue
		}
		own := fmt.Sprintf("%s/race-%v", dir, race)
		if err = os.Mkdir(own, 0o755); err != nil {
			return b, err
		}
		path, err := testkit.Build(context.Background(), own, race)
		if err != nil {
			return b, err
		}
		if b.checked = path; !race {
			b.plain = path
		}
	}
	return b, nil
}
