package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"headgate/internal/testkit"
)

const (
	// h2specVariable says where the suite's program is.
	h2specVariable = "HEADGATE_H2SPEC"
	h2specSource   = "https://github.com/summerwind/h2spec"
	// h2specKnown is how many cases the suite had when this was written, strict ones included.
	h2specKnown = 147
)

// TestH2spec runs summerwind's h2spec against the real binary, over TLS: its generic, http2 and hpack cases, and the strict
// ones. The attacks that it does not have, and what is refused of requests, are tables in gateway/wire/h2, which always run.
//
//	HEADGATE_H2SPEC=h2spec go test ./test/conformance -run H2spec -v
func TestH2spec(t *testing.T) {
	program := os.Getenv(h2specVariable)
	if program == "" {
		t.Skipf("set %s to the program of %s", h2specVariable, h2specSource)
	}
	s := newSecured(t)
	s.issue("a", nil, nil, "a.example")
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the suite judges bodies, which only who reads them can meet
		_, _ = io.WriteString(w, "hello")  // a client that has gone needs no answer
	}))
	t.Cleanup(origin.Close)
	testkit.Start(t, must(binary())(t), fmt.Sprintf("listeners: {door: {address: %q, tls: {certificates: [{cert: %q, key: %q}]}}}\n"+
		"upstreams: {origin: %q}\napis: {all: {upstream: origin}}\n",
		s.address, filepath.Join(s.files, "a.crt"), filepath.Join(s.files, "a.key"), origin.URL))
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "--strict", "--tls", "--insecure", "-h", host, "-p", port).CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	total, passed := h2specScore(t, string(out))
	t.Logf("h2spec: %d of %d", passed, total)
	if passed != total || total < h2specKnown {
		t.Errorf("%d of %d cases pass, and %d are known\n%s", passed, total, h2specKnown, out)
	}
}

var h2specLine = regexp.MustCompile(`(\d+) tests, (\d+) passed, \d+ skipped, \d+ failed`)

func h2specScore(t *testing.T, out string) (total, passed int) {
	t.Helper()
	m := h2specLine.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("the suite has said no score:\n%s", out)
	}
	total, _ = strconv.Atoi(m[1]) // the pattern is digits
	passed, _ = strconv.Atoi(m[2])
	return total, passed
}
