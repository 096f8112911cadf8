package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/metric"
	"headgate/internal/size"
)

// one records one exchange whose path is its number.
func (g *rig) one(shard, n int) {
	x := shop()
	x.Shard, x.Request.Path, x.Request.Query = uint32(shard), "/"+strconv.Itoa(n), ""
	g.Begin(x)
	answer(x)
	g.End(x, nil)
}

func TestEverythingPendingIsWrittenAtShutdown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	g := newRig(t)
	s := logTo(path)
	s.Access.Flush = time.Hour
	g.configure(t, s)
	g.one(0, 0) // before Run: it waits
	g.run()
	const shards, each = 9, 500
	var wg sync.WaitGroup
	for shard := range shards {
		wg.Go(func() {
			for n := range each {
				g.one(shard, shard*each+n+1)
			}
		})
	}
	wg.Wait()
	g.finish()
	checkLines(t, readFile(t, path), shards*each+1, each)
	if n := g.dropped.Value(); n != 0 {
		t.Errorf("%d lines were dropped", n)
	}
	g.one(0, 7)
	if g.dropped.Value() != 1 {
		t.Error("a line after the end is not counted as dropped")
	}
}

// checkLines proves that every number from 0 to n-1 has one whole line, and that those of a writer are in its order.
func checkLines(t *testing.T, log string, n, each int) {
	t.Helper()
	seen, last := map[int]bool{}, map[int]int{}
	for line := range strings.Lines(log) {
		var l struct{ Path string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		i, err := strconv.Atoi(l.Path[1:])
		if err != nil || seen[i] {
			t.Fatalf("%q came twice, or never was", l.Path)
		}
		seen[i] = true
		if w := (i - 1) / each; i > 0 && last[w] > i {
			t.Fatalf("%d came after %d", i, last[w])
		} else if i > 0 {
			last[w] = i
		}
	}
	if len(seen) != n {
		t.Errorf("%d lines, want %d", len(seen), n)
	}
}

func TestALineIsWrittenWithinTheFlushInterval(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	g := newRig(t)
	g.configure(t, logTo(path))
	g.run()
	g.one(3, 1)
	eventually(t, "the line is in the file", func() bool { return strings.HasSuffix(readFile(t, path), "}\n") })
}

func TestARotatedFileIsLetGoOnReloadAndNoLineIsLost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	g := newRig(t)
	g.configure(t, logTo(path))
	g.run()
	const rotations, each = 5, 2000
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for n := range each {
				g.one(w, w*each+n+1)
			}
		})
	}
	for n := range rotations {
		if err := os.Rename(path, filepath.Join(dir, fmt.Sprintf("old.%d", n))); err != nil {
			t.Fatal(err)
		}
		g.configure(t, logTo(path)) // SIGHUP
	}
	wg.Wait()
	g.one(0, 0)
	g.finish()
	var all strings.Builder
	for n := range rotations {
		all.WriteString(readFile(t, filepath.Join(dir, fmt.Sprintf("old.%d", n))))
	}
	checkLines(t, all.String()+readFile(t, path), 2*each+1, each)
	if !strings.Contains(readFile(t, path), `"path":"/0"`) {
		t.Error("the last line is not in the new file")
	}
}

func TestSettingsOfAReloadHoldForTheNextExchange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	g := newRig(t)
	g.configure(t, logTo(path))
	g.run()
	g.one(0, 1)
	s := logTo(path)
	s.Access.Format, s.Access.Fields = "text", []string{"method", "path"}
	g.configure(t, s)
	g.one(0, 2)
	g.configure(t, logTo("off"))
	g.one(0, 3)
	g.finish()
	if got := readFile(t, path); !strings.HasSuffix(got, "}\nPOST /2\n") {
		t.Errorf("got %q", got)
	}
}

// TestAFullDiskDropsLinesAndRecovers writes to a real file system that is full, where the system lets us make one.
func TestAFullDiskDropsLinesAndRecovers(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no tmpfs may be mounted here (%v); a failing writer stands in for it in another test", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	path, ballast := filepath.Join(dir, "access.log"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 60<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	g := newRig(t)
	s := logTo(path)
	s.Access.Buffer = 64 * size.KiB
	g.configure(t, s)
	g.run()
	n := 0
	eventually(t, "lines are dropped", func() bool { n++; g.one(0, n); return g.dropped.Value() > 0 })
	eventually(t, "the gateway's own log says how many and why", func() bool {
		return strings.Contains(g.own.String(), "lines of the access log were dropped") &&
			strings.Contains(g.own.String(), "no space left on device")
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	kept := n - int(g.dropped.Value())
	g.finish()
	if lines := strings.Count(readFile(t, path), "\n"); lines != kept {
		t.Errorf("%d lines in the file, but %d were kept", lines, kept)
	}
	for line := range strings.Lines(readFile(t, path)) {
		if !json.Valid([]byte(line)) {
			t.Fatalf("a torn line: %q", line)
		}
	}
}

// failing is a destination that takes a few bytes of each write and then reports a full disk, until it is repaired.
type failing struct {
	mu     sync.Mutex
	b      strings.Builder
	broken bool
}

func (f *failing) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken {
		n, _ := f.b.Write(b[:min(len(b), 7)])
		return n, &os.PathError{Op: "write", Path: "access.log", Err: syscall.ENOSPC}
	}
	return f.b.Write(b)
}

func (f *failing) Close() error { return nil }

func (f *failing) repair() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = false
}

func TestAWriteThatFailsHalfwayLeavesNoTornLine(t *testing.T) {
	file := &failing{broken: true}
	a := model.AccessLog{Format: "json", Buffer: 64 * size.KiB, Flush: time.Millisecond}
	m := newMask(nil)
	y, err := newLayout(&a, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	dropped := new(metric.Counter)
	l := newAccessLog(&a, m, y, file, dropped)
	go l.run(nil)
	x := shop()
	const n = 1000 // far more than fits
	for i := range n {
		x.ID, x.Shard = strconv.Itoa(i), uint32(i)
		l.append(x, 0)
	}
	eventually(t, "a write fails", func() bool { return l.failure.Load() != nil })
	if !errors.Is(*l.failure.Load(), syscall.ENOSPC) || dropped.Value() == 0 {
		t.Errorf("%v, %d dropped", *l.failure.Load(), dropped.Value())
	}
	file.repair()
	if !l.close() {
		t.Fatal("the writer did not end")
	}
	lines := 0
	for line := range strings.Lines(file.b.String()) {
		if lines++; !json.Valid([]byte(line)) {
			t.Fatalf("a torn line: %q", line)
		}
	}
	if lines+int(dropped.Value()) != n {
		t.Errorf("%d lines written and %d dropped of %d", lines, dropped.Value(), n)
	}
}

func TestWhatCannotBeWrittenAtTheEndIsCountedAsDropped(t *testing.T) {
	file := &failing{broken: true}
	a := model.AccessLog{Format: "json", Buffer: 64 * size.KiB, Flush: time.Millisecond}
	m := newMask(nil)
	y, err := newLayout(&a, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	dropped := new(metric.Counter)
	l := newAccessLog(&a, m, y, file, dropped)
	go l.run(nil)
	for i := range 10 {
		x := shop()
		x.Shard = uint32(i)
		l.append(x, 0)
	}
	if !l.close() || dropped.Value() != 10 {
		t.Errorf("%d lines were counted as dropped, want 10", dropped.Value())
	}
	if l.append(shop(), 0) {
		t.Error("a closed log took a line")
	}
}

// TestAPipeThatNobodyReadsHoldsUpNoRequest fills a real pipe; requests go on, a reload goes on, and a stop ends in time.
func TestAPipeThatNobodyReadsHoldsUpNoRequest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	g := newRig(t)
	s := logTo(path)
	s.Access.Buffer = 64 * size.KiB
	if err := g.Configure(s); err == nil || !strings.Contains(err.Error(), "nobody reads") {
		t.Fatalf("a pipe without a reader: %v", err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	g.configure(t, s)
	g.run()
	n := 0
	eventually(t, "lines are dropped", func() bool { n++; g.one(n, n); return g.dropped.Value() > 100 })
	eventually(t, "the gateway's own log says so", func() bool {
		return regexp.MustCompile(`lines of the access log were dropped" lines=\d+ reason="lines come faster`).MatchString(g.own.String())
	})

	other := filepath.Join(t.TempDir(), "access.log")
	g.configure(t, logTo(other)) // does not wait
	g.one(0, 1)
	scanner, lines := bufio.NewScanner(reader), 0 // what was kept comes out once somebody reads
	for lines < n-int(g.dropped.Value()) && scanner.Scan() {
		if lines++; !json.Valid(scanner.Bytes()) {
			t.Fatalf("a torn line: %q", scanner.Text())
		}
	}
	eventually(t, "the new log is written", func() bool { return strings.Contains(readFile(t, other), `"path":"/1"`) })
}

func TestAStuckPipeDelaysAStopByTheCloseTimeoutAtMost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	g := newRig(t)
	g.configure(t, logTo(path))
	g.run()
	const n = 1000 // about 400 kB; a pipe holds 64
	for i := range n {
		g.one(i, i)
	}
	g.finish() // returns although nobody reads
	if d := g.dropped.Value(); d == 0 || d >= n {
		t.Errorf("%d of %d lines were counted as lost", d, n)
	}
}

func TestAPanicInAnExpressionCostsItsFieldAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	g := newRig(t)
	s := logTo(path)
	s.Access.Fields, s.Expr = []string{"path", "{x}"}, panicking{}
	g.configure(t, s)
	g.run()
	g.one(0, 666)
	g.one(0, 1)
	g.finish()
	if got := readFile(t, path); got != `{"path":"/666","x":"<panic>"}`+"\n"+`{"path":"/1"}`+"\n" {
		t.Errorf("got %q", got)
	}
}

// panicking compiles expressions that panic on one path.
type panicking struct{}

func (panicking) String(string) (func(*exchange.Exchange) string, error) {
	return func(x *exchange.Exchange) string {
		if x.Request.Path == "/666" {
			panic("broken expression")
		}
		return ""
	}, nil
}
