//go:build linux

package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"headgate/internal/testkit/lab"
)

// patience is how long anything may take that a test waits for. It is generous: a loaded machine is no failure.
const patience = 30 * time.Second

// eventually waits until what is asked for holds; the text says what was seen last.
func eventually(t *testing.T, what string, holds func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, last := holds()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v; last seen: %s", what, patience, last)
		}
		<-tick.C
	}
}

// Where the gateway listens, on every address of its machine; the operators' listener is on its loopback device.
const (
	httpPort  = 8000
	rawPort   = 7001
	adminPort = 9901
)

// world is a gateway and its services, each on a machine of its own.
type world struct {
	*lab.Network
	machine *lab.Machine // the gateway's
	targets []*target
	process *lab.Process
	dir     string
	admin   *http.Client
}

// newWorld makes a world of so many services, A, B and so on, with a gateway that is not started yet.
func newWorld(t *testing.T, targets int) *world {
	t.Helper()
	n := lab.New(t)
	w := &world{Network: n, machine: n.Machine(t, "gateway"), dir: t.TempDir()}
	for i := range targets {
		s := &target{Machine: n.Machine(t, string(rune('A'+i)))}
		s.run(t)
		w.targets = append(w.targets, s)
	}
	transport := &http.Transport{DialContext: w.machine.Dial, DisableKeepAlives: true}
	w.admin = &http.Client{Transport: transport, Timeout: patience}
	t.Cleanup(transport.CloseIdleConnections)
	return w
}

// start makes a world with a running gateway. In the document ${HTTP}, ${H2C} and ${TCP} stand for the services' URLs.
func start(t *testing.T, targets int, document string) *world {
	t.Helper()
	w := newWorld(t, targets)
	w.run(t, document)
	return w
}

// run starts the gateway and waits until it is ready. At the end of the test it must drain and exit with 0.
func (w *world) run(t *testing.T, document string) {
	t.Helper()
	path := filepath.Join(w.dir, "headgate.yaml")
	text := w.places().Replace(document) + fmt.Sprintf("\nadmin: {address: \"127.0.0.1:%d\", pprof: true}\n", adminPort) +
		"log: {access: {to: \"off\"}}\ndrain: {drain_timeout: 5s}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "run", path)
	cmd.Env = append(os.Environ(), "GORACE=exitcode=66 atexit_sleep_ms=1", "HEADGATE_STATE="+w.dir)
	w.process = w.machine.Start(t, cmd)
	t.Cleanup(func() { w.end(t) })
	eventually(t, "the gateway is ready", func() (bool, string) {
		body, err := w.page("/readyz")
		select {
		case <-w.process.Exited:
			t.Fatalf("the gateway has ended: %s", w.process.Log())
		default:
		}
		return err == nil, fmt.Sprint(body, err)
	})
}

// places are what stands for the services in documents.
func (w *world) places() *strings.Replacer {
	var pairs []string
	for name, kind := range map[string]struct {
		scheme string
		port   int
	}{"${HTTP}": {"http", servicePort}, "${H2C}": {"h2c", servicePort}, "${TCP}": {"tcp", echoPort}} {
		var list []string
		for _, s := range w.targets {
			list = append(list, fmt.Sprintf("%q", kind.scheme+"://"+s.At(kind.port)))
		}
		pairs = append(pairs, name, strings.Join(list, ", "))
	}
	return strings.NewReplacer(append(pairs, "${DIR}", w.dir)...)
}

// end stops the gateway in order.
func (w *world) end(t *testing.T) {
	_ = w.process.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-w.process.Exited:
	case <-time.After(patience):
		t.Error("the gateway does not end: ", w.goroutines())
		w.process.Kill()
	}
	if code := w.process.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the gateway exits with code %d after SIGTERM", code)
	}
	log := w.process.Log()
	if strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
		t.Error("the gateway has a data race or a panic in its log")
	}
	if t.Failed() {
		t.Logf("the gateway's log:\n%s", log[max(0, len(log)-16<<10):])
	}
}

// page asks the operators' listener.
func (w *world) page(path string) (string, error) {
	answer, err := w.admin.Get(fmt.Sprintf("http://127.0.0.1:%d%s", adminPort, path))
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return string(b), err
}

func (w *world) mustPage(t *testing.T, path string) string {
	t.Helper()
	body, err := w.page(path)
	if err != nil {
		t.Fatalf("%s: %v %s", path, err, body)
	}
	return body
}

// seen is a target as the gateway sees it.
type seen struct {
	Address  string `json:"address"`
	State    string `json:"state"`
	Why      string `json:"why"`
	InFlight int    `json:"in_flight"`
	Idle     int    `json:"idle_connections"`
	H2Conns  int    `json:"h2_connections"`
}

// sees returns the targets of the first upstream.
func (w *world) sees(t *testing.T) []seen {
	t.Helper()
	var s struct {
		Upstreams []struct {
			Targets []seen `json:"targets"`
		} `json:"upstreams"`
	}
	text := w.mustPage(t, "/status")
	if err := json.Unmarshal([]byte(text), &s); err != nil || len(s.Upstreams) == 0 {
		t.Fatal(err, text)
	}
	return s.Upstreams[0].Targets
}

// await waits until exactly the targets given are out, for whatever reason, and all others are available.
func (w *world) await(t *testing.T, what string, out ...*target) {
	t.Helper()
	eventually(t, what, func() (bool, string) {
		all := w.sees(t)
		for _, s := range all {
			want := true
			for _, o := range out {
				want = want && !strings.HasPrefix(s.Address, o.Addr.String()+":")
			}
			if (s.State == "available") != want {
				return false, fmt.Sprintf("%+v", all)
			}
		}
		return true, ""
	})
}

// holds is what a gateway holds of the system, connections to services aside.
type holds struct{ goroutines, descriptors int }

var goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)

func (w *world) holds(t *testing.T) (h holds) {
	t.Helper()
	m := goroutineTotal.FindStringSubmatch(w.goroutines())
	if m == nil {
		t.Fatal("no goroutine profile")
	}
	h.goroutines, _ = strconv.Atoi(m[1])
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	h.descriptors = len(entries)
	for _, s := range w.sees(t) {
		h.descriptors -= s.Idle + s.H2Conns
		h.goroutines -= 2 * s.H2Conns // one reads, one writes
	}
	return h
}

// idles returns what the gateway holds while nothing happens.
func (w *world) idles(t *testing.T) (h holds) {
	t.Helper()
	same := 0
	eventually(t, "all has started", func() (bool, string) {
		now := w.holds(t)
		if same++; now != h {
			h, same = now, 0
		}
		return same >= 5, fmt.Sprintf("%+v", now)
	})
	return h
}

// settles waits until the gateway holds no more than it did, and nobody waits for a service.
func (w *world) settles(t *testing.T, before holds) {
	t.Helper()
	eventually(t, "what the gateway holds falls back", func() (bool, string) {
		now, waiting := w.holds(t), 0
		for _, s := range w.sees(t) {
			waiting += s.InFlight
		}
		return now.goroutines <= before.goroutines && now.descriptors <= before.descriptors && waiting == 0,
			fmt.Sprintf("now %+v, before %+v, %d wait\n%s", now, before, waiting, w.goroutines())
	})
}

func (w *world) goroutines() string {
	body, err := w.page("/debug/pprof/goroutine?debug=1")
	if err != nil {
		return err.Error()
	}
	return body
}

// memory returns how many KiB of memory the gateway has held at most.
func (w *world) memory(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatal("no VmHWM")
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}
