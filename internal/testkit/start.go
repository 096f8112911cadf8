package testkit

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Gateway is the binary, running with a document of a test's.
type Gateway struct {
	Dir     string // its folder, which holds the document
	running *gateway
	t       testing.TB
}

// Start runs a binary, see Build, with the document, to which an admin listener on a free
// address and a silent access log are added unless it speaks of them. It returns when the gateway is ready, and ends it
// with the test, which fails when it does not end well.
func Start(t testing.TB, binary, document string, flags ...string) *Gateway {
	t.Helper()
	admin, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{Dir: t.TempDir(), t: t}
	if !strings.Contains(document, "\nadmin:") {
		document += fmt.Sprintf("\nadmin: {address: %q}\n", admin)
	}
	if !strings.Contains(document, "\nlog:") {
		document += "\nlog: {access: {to: \"off\"}}\n"
	}
	g.Write("headgate.yaml", document)
	g.running, err = startGateway(binary, g.Dir, filepath.Join(g.Dir, "headgate.yaml"), admin, nil, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", g.Log())
		}
		if err := g.running.end(); err != nil {
			t.Error(err)
		}
	})
	if err := g.running.ready(); err != nil {
		t.Fatalf("%v\n%s", err, g.Log())
	}
	return g
}

// Write puts a file into the gateway's folder.
func (g *Gateway) Write(name, text string) {
	g.t.Helper()
	WriteFile(g.t, filepath.Join(g.Dir, name), text)
}

// WriteFile writes a text that only its owner may read.
func WriteFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Ask sends a GET, or a POST of a path that begins with "POST ", to the operators' listener and returns what it says.
func (g *Gateway) Ask(path string) string {
	g.t.Helper()
	method := http.MethodGet
	if rest, post := strings.CutPrefix(path, "POST "); post {
		method, path = http.MethodPost, rest
	}
	status, body, err := g.running.ask(method, path)
	if err != nil || status >= 300 {
		g.t.Fatalf("%s %s: %d %s, %v", method, path, status, body, err)
	}
	return body
}

// Await asks again and again until the page of the operators' listener fits.
func (g *Gateway) Await(path string, fits func(page string) bool) {
	g.t.Helper()
	err := g.running.await(patience, func() (bool, string) {
		_, body, err := g.running.ask(http.MethodGet, path)
		return err == nil && fits(body), body
	})
	if err != nil {
		g.t.Fatalf("GET %s: %v", path, err)
	}
}

// Log returns what the gateway has printed so far.
func (g *Gateway) Log() string { return g.running.out.String() }

// Admin returns the address of the operators' listener.
func (g *Gateway) Admin() string { return g.running.admin }

// PID returns the gateway's process.
func (g *Gateway) PID() int { return g.running.cmd.Process.Pid }
