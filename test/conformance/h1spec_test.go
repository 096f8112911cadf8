package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// h1specVariable says where the suite is: a clone's folder, or "fetch" to clone it.
	h1specVariable = "HEADGATE_H1SPEC"
	h1specSource   = "https://github.com/uNetworking/h1spec"
	// silence is how long the suite wants a server to wait for the rest of a request.
	silence = 500 * time.Millisecond
)

// TestH1spec runs uNetworking's h1spec. The suite is a script for Deno around a table; here the table is read from the script
// and driven as the script drives it, so that nothing but git is needed:
//
//	HEADGATE_H1SPEC=fetch go test ./test/conformance -run H1spec -v
func TestH1spec(t *testing.T) {
	cases := h1specCases(t)
	address := startGateway(t)
	var passed atomic.Int32
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel() // as the suite does
				if err := c.run(address); err != nil {
					t.Error(err)
					return
				}
				passed.Add(1)
			})
		}
	})
	t.Logf("h1spec: %d of %d", passed.Load(), len(cases))
}

// h1specCase is one row of the suite's table.
type h1specCase struct {
	name, request string
	statuses      [][2]int
	waits         bool
}

var (
	h1specRow = regexp.MustCompile(`request:\s*("(?:[^"\\]|\\.)*"),\s*description:\s*("(?:[^"\\]|\\.)*"),\s*` +
		`expectedStatus:\s*\[((?:\[-?\d+,\s*-?\d+\],?\s*)+)\],?\s*(expectedTimeout:\s*true)?`)
	h1specRange = regexp.MustCompile(`\[(-?\d+),\s*(-?\d+)\]`)
)

// h1specCases reads the suite's table, or skips the test when nobody said where it is.
func h1specCases(t *testing.T) (cases []h1specCase) {
	t.Helper()
	dir := os.Getenv(h1specVariable)
	switch dir {
	case "":
		t.Skipf("set %s to \"fetch\", or to the folder of a clone of %s", h1specVariable, h1specSource)
	case "fetch":
		dir = t.TempDir()
		clone := exec.CommandContext(t.Context(), "git", "clone", "--quiet", "--depth", "1", h1specSource, dir)
		if out, err := clone.CombinedOutput(); err != nil {
			t.Skipf("%s cannot be fetched: %v\n%s", h1specSource, err, out)
		}
	}
	script, err := os.ReadFile(filepath.Join(dir, "http_test.ts"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range h1specRow.FindAllStringSubmatch(string(script), -1) {
		request, err := strconv.Unquote(row[1])
		if err != nil {
			t.Fatalf("%s: %v", row[1], err)
		}
		c := h1specCase{name: row[2], request: request, waits: row[4] != ""}
		for _, r := range h1specRange.FindAllStringSubmatch(row[3], -1) {
			from, _ := strconv.Atoi(r[1]) // the pattern is digits
			to, _ := strconv.Atoi(r[2])
			c.statuses = append(c.statuses, [2]int{from, to})
		}
		cases = append(cases, c)
	}
	const known = 33
	if len(cases) < known {
		t.Fatalf("only %d rows were found in the script, of at least %d: its form has changed", len(cases), known)
	}
	return cases
}

// run sends the request and judges the first bytes of the answer by the suite's rules.
func (c h1specCase) run(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, c.request); err != nil {
		return err
	}
	limit := patience
	if c.waits {
		limit = silence
	}
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	buf := make([]byte, 1024)
	n, err := conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if c.waits {
			return nil
		}
		return errors.New("no answer")
	}
	status := 0
	if m := regexp.MustCompile(`^HTTP/1\.\d (\d{3})`).FindSubmatch(buf[:n]); m != nil {
		status, _ = strconv.Atoi(string(m[1])) // three digits
	}
	for _, s := range c.statuses {
		if status >= s[0] && status <= s[1] {
			return nil
		}
	}
	return fmt.Errorf("status %d, want one of %v (waits: %v)", status, c.statuses, c.waits)
}

// stays fails if anything comes from the connection, or if it ends, although a request is only half there.
func stays(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(silence / 2)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes and %v came for half a request", n, err)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}
