package chaos

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fixed is a gateway that answers by itself; limits follow as ${LIMITS}.
const fixed = `
listeners: {public: {address: "${LISTEN}", limits: {${LIMITS}}}}
apis: {all: {routes: {r: {match: /**, respond: {body: "ok"}}}}}
`

// judgeFixed judges its answers.
func judgeFixed(_ int, r reply, err error) error {
	if err == nil && (r.status != 200 || r.body != "ok") {
		err = fmt.Errorf("%d %q", r.status, r.body)
	}
	return err
}

func askFixed(n int) string { return request(fmt.Sprintf("GET /%d", n)) }

// limitDescriptors leaves the process only so many descriptors from now on.
func (p *process) limitDescriptors(t *testing.T, n uint64) {
	t.Helper()
	if err := unix.Prlimit(p.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}, nil); err != nil {
		t.Fatal(err)
	}
}

// crowd opens n connections without a goroutine for each, and sends text on each.
func crowd(t *testing.T, address, text string, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, n)
	var group sync.WaitGroup
	const openers = 8
	for o := range openers {
		group.Go(func() {
			for i := o; i < n; i += openers {
				c, err := net.DialTimeout("tcp", address, patience)
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = c
				if _, err := io.WriteString(c, text); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			}
		})
	}
	group.Wait()
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return conns
}

// Without a free descriptor accepting pauses, and with it nothing else: those who are connected are served, upstream
// connections that are there are used, and when others leave, those who waited are taken in.
func TestDescriptorsExhausted(t *testing.T) {
	t.Parallel()
	g := startGateway(t, strings.ReplaceAll(fixed, "${LIMITS}", "header_timeout: 1m"))
	before := g.idles(t)
	kept := connect(t, g.listen)
	kept.get(t, "/")
	g.limitDescriptors(t, 64)
	others := crowd(t, g.listen, "GET / HTTP/1.1\r\nHost: chaos\r\nX-", 100)
	eventually(t, "accepting pauses", func() (bool, string) {
		return strings.Contains(g.log.String(), "too many open files"), g.log.String()
	})
	waiting := connect(t, g.listen) // in the kernel's queue
	if _, err := io.WriteString(waiting, request("GET /waited")); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if r := kept.get(t, "/"); r.body != "ok" {
			t.Fatalf("%+v", r)
		}
	}
	for _, c := range others {
		c.Close()
	}
	if r, err := waiting.reply("GET"); err != nil || r.body != "ok" {
		t.Errorf("who has waited: %+v %v", r, err)
	}
	waiting.Close()
	kept.Close()
	if g.metric(t, `headgate_accept_pauses_total{listener="public"}`) == 0 {
		t.Error("no pause is counted")
	}
	g.settles(t, before)
	if lines := strings.Count(g.log.String(), "accepting pauses"); lines > 3 {
		t.Errorf("%d lines about it in the log", lines)
	}
}

// Thousands of clients that open a request and never end it cost the others nothing, take a bounded memory, and are all
// let go with 408 when header_timeout has passed.
func TestTenThousandHalfOpenClients(t *testing.T) {
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		t.Fatal(err)
	}
	n := min(10_000, int(have.Cur)-1000)
	g := newGateway(t)
	g.binary = built.plain
	g.start(t, strings.ReplaceAll(fixed, "${LIMITS}", "header_timeout: 5s"))
	before := g.idles(t)
	l := (&load{address: g.listen, every: 5 * time.Millisecond, workers: 4, ask: askFixed, judge: judgeFixed}).begin()
	l.flows(t, 200)
	alone, memory := median(t, g), g.residentKiB(t)

	conns := crowd(t, g.listen, "GET / HTTP/1.1\r\nHost: chaos\r\nX-", n)
	beside, held := median(t, g), g.residentKiB(t)-memory
	l.flows(t, 200)
	t.Logf("%d half-open clients: %.1f KiB each; median %v alone, %v beside them", n, float64(held)/float64(n), alone, beside)
	if each := held * 1024 / n; each > 32<<10 {
		t.Errorf("%d bytes for each half-open client", each)
	}
	answers := map[string]int{}
	for _, c := range conns {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		status, _, _ := strings.Cut(string(b), "\r\n")
		answers[fmt.Sprint(status, err)]++
		c.Close()
	}
	if answers["HTTP/1.1 408 Request Timeout<nil>"] != n {
		t.Errorf("the crowd was let go with %v", answers)
	}
	if wrong := l.end(); len(wrong) > 0 {
		t.Errorf("%d wrong, such as %v", len(wrong), wrong[0])
	}
	g.settles(t, before)
}

// median returns the median time of an answer, for the log.
func median(t *testing.T, g *gateway) time.Duration {
	t.Helper()
	c, took := connect(t, g.listen), make([]time.Duration, 101)
	defer c.Close()
	for i := range took {
		began := time.Now()
		c.get(t, "/")
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// A disk that is full costs lines of the access log, which are counted and reported, and no request; when there is room
// again, lines are written again, each whole.
func TestDiskFullUnderTheAccessLog(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount the small disk that this test fills")
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 200<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	const accessLog = `log: {access: {to: "${DISK}/access.log", flush: 10ms, buffer: 64KiB}}`
	g := startGateway(t, strings.ReplaceAll(fixed, "${LIMITS}", "")+accessLog, "${DISK}", disk)
	l := (&load{address: g.listen, every: time.Millisecond, workers: 4, ask: askFixed, judge: judgeFixed}).begin()
	eventually(t, "lines are dropped", func() (bool, string) {
		dropped := g.metric(t, "headgate_log_dropped_total")
		return dropped > 100, fmt.Sprint(dropped)
	})
	eventually(t, "the log says why", func() (bool, string) {
		return strings.Contains(g.log.String(), "no space left on device"), g.log.String()
	})
	l.flows(t, 100)
	if wrong := l.end(); len(wrong) > 0 {
		t.Errorf("%d wrong, such as %v", len(wrong), wrong[0])
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	const mark = "/behind-the-full-disk"
	eventually(t, "lines are written again", func() (bool, string) {
		connect(t, g.listen).get(t, mark)
		b, err := os.ReadFile(filepath.Join(disk, "access.log"))
		return strings.Contains(string(b), mark), fmt.Sprint(len(b), err)
	})
	b, err := os.ReadFile(filepath.Join(disk, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.SplitAfter(string(b), "\n") {
		if line != "" && (!strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}\n")) {
			t.Fatalf("line %d is torn: %q", i, line)
		}
	}
}
