package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const discovered = `
listeners: {public: {address: "${LISTEN}"}}
upstreams: {a: {discover: {file: "${DIR}/targets.json"}, health: {path: /, interval: 100ms}}}
apis: {all: {upstream: a}}
`

// list replaces the file of targets as a whole.
func (g *gateway) list(t *testing.T, addresses []string) {
	t.Helper()
	text, err := json.Marshal(addresses)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(g.document), "targets.json")
	if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// uses waits until the gateway has exactly these targets.
func (g *gateway) uses(t *testing.T, addresses []string) {
	t.Helper()
	want := slices.Sorted(slices.Values(addresses))
	eventually(t, "the targets", func() (bool, string) {
		var s status
		if err := json.Unmarshal([]byte(g.mustAsk(t, "/status")), &s); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, target := range s.Upstreams[0].Targets {
			got = append(got, target.Address)
		}
		slices.Sort(got)
		return slices.Equal(got, want), fmt.Sprint(got)
	})
}

// replaceable is a service that is stopped as services are: it finishes what it answers.
type replaceable struct {
	server  *http.Server
	address string
	ended   chan struct{}
}

func startReplaceable(t *testing.T) *replaceable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &replaceable{&http.Server{Handler: &origin{name: "R"}}, l.Addr().String(), make(chan struct{})}
	go func() {
		defer close(r.ended)
		_ = r.server.Serve(l) // it ends by being shut down
	}()
	t.Cleanup(func() { r.server.Close(); <-r.ended })
	return r
}

// Every target of a service is replaced, one after the other and twice over, under load: no request is lost.
func TestRollingReplacementLosesNoRequest(t *testing.T) {
	t.Parallel()
	var targets []*replaceable
	var addresses []string
	for range 3 {
		r := startReplaceable(t)
		targets, addresses = append(targets, r), append(addresses, r.address)
	}
	g := newGateway(t)
	g.list(t, addresses)
	g.start(t, discovered)
	g.uses(t, addresses)
	l := (&load{
		address: g.listen, every: 2 * time.Millisecond, workers: 16,
		ask: func(n int) string { return request(fmt.Sprintf("GET /%d", n)) },
		judge: func(n int, r reply, err error) error {
			if want := fmt.Sprintf("R /%d", n); err != nil || r.status != 200 || r.body != want {
				return fmt.Errorf("%d %q, %v", r.status, r.body, err)
			}
			return nil
		},
	}).begin()
	for i := range 2 * len(targets) {
		old := targets[i%3]
		next := startReplaceable(t)
		targets[i%3], addresses[i%3] = next, next.address
		g.list(t, addresses)
		g.uses(t, addresses)
		if err := old.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	l.end()
	if faults := l.faults(); len(faults) > 0 {
		t.Errorf("%d of %d requests were lost; the first: %v", len(faults), l.sent.Load(), faults[0])
	}
	t.Logf("%d requests, %d targets replaced", l.sent.Load(), 2*len(targets))
}

// A list that is gone, empty or nonsense takes no target away, and it is said; nor does a restart, while it is so.
func TestALostListTakesNoTargetAway(t *testing.T) {
	state := t.TempDir()
	t.Setenv("HEADGATE_STATE", state)
	r := startReplaceable(t)
	addresses := []string{r.address}
	g := newGateway(t)
	g.list(t, addresses)
	g.start(t, discovered)
	g.uses(t, addresses)
	path := filepath.Join(filepath.Dir(g.document), "targets.json")
	for _, lost := range []struct{ text, says string }{
		{"[]", "names no target"}, {"[", "neither JSON nor YAML"}, {"", "names no target"}, {"[x]", "not host:port"},
	} {
		if err := os.WriteFile(path, []byte(lost.text), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is noticed", func() (bool, string) {
			s := g.mustAsk(t, "/status")
			return strings.Contains(s, `"last_good"`) && strings.Contains(s, lost.says), s
		})
		if got := connect(t, g.listen).get(t, "/"); got.status != 200 {
			t.Errorf("with the list %q: %d", lost.text, got.status)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	g.kill()
	g.stopped = true
	g.process = start(t, g.binary, "run", g.document, "--test-clock")
	g.awaitReady(t)
	if got := connect(t, g.listen).get(t, "/"); got.status != 200 {
		t.Errorf("after a restart without the list: %d", got.status)
	}
}
