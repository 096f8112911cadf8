package h2

import (
	"net"
	"os"
	"os/exec"
	"testing"
)

// TestH2spec runs h2spec (github.com/summerwind/h2spec) against a bare server, when HEADGATE_H2SPEC says where its binary is.
func TestH2spec(t *testing.T) {
	path := os.Getenv("HEADGATE_H2SPEC")
	if path == "" {
		t.Skip("set HEADGATE_H2SPEC to the path of an h2spec binary")
	}
	r := begin(t, echo, nil)
	host, port, err := net.SplitHostPort(r.address)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-h", host, "-p", port, "--timeout", "2", "--strict"}
	if only := os.Getenv("HEADGATE_H2SPEC_ONLY"); only != "" {
		args = append(args, only)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
