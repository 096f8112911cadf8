// Package conformance runs suites that others wrote, and attacks, against the real binary. What belongs to others is
// fetched when it is run and is no part of this repository.
package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/internal/testkit"
)

func TestMain(m *testing.M) {
	http.DefaultTransport.(*http.Transport).DisableKeepAlives = true // so that nothing is left when the tests have ended
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if path, err := binary(); err == nil && os.Getenv("HEADGATE_BINARY") == "" {
			_ = os.RemoveAll(filepath.Dir(path)) // built for these tests
		}
		os.Exit(code)
	}))
}

// patience is how long anything may take that is not what a test measures.
const patience = 30 * time.Second

// binary builds the gateway once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "headgate-conformance")
	if err != nil {
		return "", err
	}
	return testkit.Build(context.Background(), dir, false)
})

// startGateway starts the binary with its defaults in front of an origin that echoes bodies, and returns its address.
func startGateway(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	origin := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(origin.Close)
	var addresses [2]string
	for i := range addresses {
		if addresses[i], err = testkit.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	document := filepath.Join(t.TempDir(), "headgate.yaml")
	text := fmt.Sprintf("listeners: {public: {address: %q}}\nupstreams: {o: %q}\napis: {all: {upstream: o}}\nadmin: {address: %q}\n"+
		"log: {access: {to: \"off\"}}\n", addresses[0], origin.URL, addresses[1])
	if err := os.WriteFile(document, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	gateway := exec.Command(path, "run", document)
	gateway.Stdout, gateway.Stderr = &out, &out
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = gateway.Process.Kill() // it has no more to say
		_ = gateway.Wait()         // what it was killed by
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", out.String())
		}
	})
	awaitReady(t, "http://"+addresses[1]+"/readyz")
	return addresses[0]
}

func awaitReady(t *testing.T, url string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		resp, err := http.Get(url)
		if err == nil {
			_ = resp.Body.Close() // only the status counts
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not become ready: %v", url, err)
		}
	}
}

// echo answers with the body that came; /large answers with more than fits into anybody's socket buffers.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/large" {
		line := []byte(strings.Repeat("0123456789abcde\n", 4<<10))
		for range 256 {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
		return
	}
	_, _ = io.Copy(w, r.Body) // a client that has gone needs no answer
}

// dial opens a connection that is closed when the test ends.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}
