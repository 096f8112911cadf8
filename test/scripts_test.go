// Package test proves the gateway's behaviour from outside: scripts on the raw wire against the real binary. The format is
// told in scripts/README.md.
package test

import (
	"testing"

	"headgate/internal/testkit"
)

// TestScripts runs every script of the gateway and of its policies. One alone:
//
//	go test ./test -run TestScripts/scripts/keepalive
func TestScripts(t *testing.T) {
	binary, err := testkit.Build(t.Context(), t.TempDir(), raceEnabled)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, binary, "scripts/*.txt", "../policies/*/testdata/*.txt")
}
