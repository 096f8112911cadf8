package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"headgate/internal/testkit"
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

// output keeps what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// process is a running binary.
type process struct {
	*exec.Cmd
	log    *output
	exited chan struct{}
}

// start starts the binary, which is killed at the end of the test at the latest.
func start(t *testing.T, binary string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(binary, args...), log: &output{}, exited: make(chan struct{})}
	p.Stdout, p.Stderr = p.log, p.log
	p.Env = append(os.Environ(), "GORACE=exitcode=66 atexit_sleep_ms=1")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.Wait() // how it ended is read from ProcessState
	}()
	t.Cleanup(func() {
		p.kill()
		log := p.log.String()
		if strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
			t.Error("the process has a data race or a panic in its log")
		}
		if t.Failed() {
			t.Logf("%s says:\n%s", strings.Join(p.Args, " "), log[max(0, len(log)-16<<10):])
		}
	})
	return p
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.Process.Kill() // it may have ended by itself
	<-p.exited
}

// exit waits for the end of the process and returns its code, -1 after a signal.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("the process does not end")
		return 0
	}
}

// gateway is a running gateway.
type gateway struct {
	*process
	binary, document, listen, extra, admin string
	places                                 *strings.Replacer
	stopped                                bool // the test has ended it itself
}

// newGateway prepares a gateway: in documents ${LISTEN}, ${EXTRA}, ${ADMIN} and ${DIR} stand for places of its own, and
// more are given as pairs.
func newGateway(t *testing.T, places ...string) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{
		binary: built.checked, document: filepath.Join(dir, "headgate.yaml"),
		listen: freeAddress(t), extra: freeAddress(t), admin: freeAddress(t),
	}
	g.places = strings.NewReplacer(append(places, "${LISTEN}", g.listen, "${EXTRA}", g.extra, "${ADMIN}", g.admin, "${DIR}", dir)...)
	return g
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := testkit.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// startGateway starts a gateway with a document and waits until it is ready. At the end of the test it must drain and
// exit with 0.
func startGateway(t *testing.T, document string, places ...string) *gateway {
	t.Helper()
	g := newGateway(t, places...)
	g.start(t, document)
	return g
}

func (g *gateway) start(t *testing.T, document string) {
	t.Helper()
	g.write(t, document)
	p := start(t, g.binary, "run", g.document, "--test-clock")
	g.process = p
	g.awaitReady(t)
	t.Cleanup(func() {
		if g.stopped || p != g.process {
			return
		}
		g.signal(t, syscall.SIGTERM)
		if code := g.exit(t); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
	})
}

// exit waits for the end of the gateway and returns its code. One that does not end says what it does instead.
func (g *gateway) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-g.exited:
	case <-time.After(patience):
		t.Fatalf("the gateway does not end: %s", g.goroutineDump())
	}
	return g.process.exit(t)
}

func (g *gateway) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, "ready", func() (bool, string) {
		select {
		case <-g.exited:
			t.Fatalf("the gateway has ended: %s", g.log)
		default:
		}
		status, body, err := g.ask("GET", "/readyz")
		return status == 200, fmt.Sprint(status, body, err)
	})
}

// write replaces the document as editors do: another file is renamed over it.
func (g *gateway) write(t *testing.T, document string) {
	t.Helper()
	const common = "admin: {address: \"${ADMIN}\", pprof: true}\n"
	fresh := g.document + ".new"
	text := document
	if !strings.Contains(text, "admin:") {
		text += "\n" + common
	}
	if !strings.Contains(text, "access:") {
		text += "log: {access: {to: \"off\"}}\n"
	}
	if err := errors.Join(os.WriteFile(fresh, []byte(g.places.Replace(text)), 0o600), os.Rename(fresh, g.document)); err != nil {
		t.Fatal(err)
	}
}

// ask asks the operators' listener.
func (g *gateway) ask(method, path string) (status int, body string, err error) {
	r, err := http.NewRequest(method, "http://"+g.admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	r.Close = true
	c := http.Client{Timeout: patience}
	answer, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b), err
}

// mustAsk asks for what must be there.
func (g *gateway) mustAsk(t *testing.T, path string) string {
	t.Helper()
	status, body, err := g.ask("GET", path)
	if err != nil || status != 200 {
		t.Fatalf("%s: %d %v %s", path, status, err, body)
	}
	return body
}

// target is one target in the status.
type target struct {
	Address  string `json:"address"`
	State    string `json:"state"`
	InFlight int    `json:"in_flight"`
	Idle     int    `json:"idle_connections"`
}

// status is what the tests read of /status.
type status struct {
	Ready    string `json:"ready"`
	Document struct {
		Version string `json:"version"`
	} `json:"document"`
	Refused *struct {
		Error    string            `json:"error"`
		Problems []json.RawMessage `json:"problems"`
	} `json:"refused_document"`
	Listeners []struct {
		Name        string `json:"name"`
		Connections int    `json:"connections"`
	} `json:"listeners"`
	Upstreams []struct {
		Targets []target `json:"targets"`
	} `json:"upstreams"`
}

func (g *gateway) status(t *testing.T) (s status) {
	t.Helper()
	if err := json.Unmarshal([]byte(g.mustAsk(t, "/status")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// metric returns a metric's value, 0 if it is not there. The series is given as it is written.
func (g *gateway) metric(t *testing.T, series string) float64 {
	t.Helper()
	m := regexp.MustCompile("(?m)^" + regexp.QuoteMeta(series) + " (\\S+)$").FindStringSubmatch(g.mustAsk(t, "/metrics"))
	if m == nil {
		return 0
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// holds is what a gateway holds of the system.
type holds struct{ goroutines, descriptors int }

var goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)

func (g *gateway) holds(t *testing.T) (h holds) {
	t.Helper()
	m := goroutineTotal.FindStringSubmatch(g.mustAsk(t, "/debug/pprof/goroutine?debug=1"))
	if m == nil {
		t.Fatal("no goroutine profile")
	}
	h.goroutines, _ = strconv.Atoi(m[1])
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	h.descriptors = len(entries)
	return h
}

// settles waits until the gateway holds no more than it did, idle connections to upstreams aside.
func (g *gateway) settles(t *testing.T, before holds) {
	t.Helper()
	eventually(t, "what the gateway holds falls back", func() (bool, string) {
		now, idle := g.holds(t), 0
		for _, u := range g.status(t).Upstreams {
			for _, target := range u.Targets {
				idle += target.Idle
			}
		}
		return now.goroutines <= before.goroutines && now.descriptors-idle <= before.descriptors,
			fmt.Sprintf("now %+v with %d idle connections to upstreams, before %+v\n%s", now, idle, before, g.goroutineDump())
	})
}

func (g *gateway) goroutineDump() string {
	_, body, err := g.ask("GET", "/debug/pprof/goroutine?debug=1")
	return fmt.Sprint(body, err)
}

// residentKiB returns the memory that the process holds.
func (p *process) residentKiB(t *testing.T) int { t.Helper(); return p.memory(t, "VmRSS") }

// memory returns a figure of the process's, in KiB.
func (p *process) memory(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatal("no " + name)
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// connections returns how many connections are open at all listeners.
func (g *gateway) connections(t *testing.T) (n int) {
	t.Helper()
	for _, l := range g.status(t).Listeners {
		n += l.Connections
	}
	return n
}

// dial opens a connection that is closed at the end of the test at the latest.
func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}
