// Package matrix proves that every way in and every way out understand each other: a client of each version of HTTP
// through the real binary to an upstream of each version, with everything that a message may be and everything that may
// happen to it. The clients and the upstreams are other people's.
package matrix

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"headgate/internal/testkit"
)

// big is the size of the large bodies: go test ./test/matrix -big 1073741824 for what the issue asks.
var big = flag.Int64("big", 8<<20, "bytes of the large bodies, both ways")

var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "matrix")
	if err == nil {
		defer os.RemoveAll(dir)
		binary, err = testkit.Build(context.Background(), dir, raceEnabled)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
