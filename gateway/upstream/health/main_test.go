package health

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/config/model"
	"headgate/gateway/upstream/balance"
	"headgate/internal/clock"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when every test begins.
var noon = time.Date(2026, 11, 21, 12, 3, 7, 0, time.UTC)

// world is a group of targets whose time stands still until it is moved.
type world struct {
	now     time.Duration
	clock   *clock.Manual
	log     bytes.Buffer
	metrics *metric.Registry
	random  *rand.Rand
	group   *Group
	targets []*Record
}

// rules are the defaults, changed by change.
func rules(change func(*model.Ejection)) model.Ejection {
	var e model.Ejection
	e.SetDefaults()
	if change != nil {
		change(&e)
	}
	return e
}

// failing is a test, a benchmark or a property.
type failing interface {
	Helper()
	Fatal(args ...any)
}

func newWorld(t failing, n int, e model.Ejection) *world {
	t.Helper()
	w := &world{clock: clock.NewManual(noon), metrics: metric.NewRegistry(), random: rand.New(rand.NewPCG(1, 2)), now: time.Hour}
	w.group = w.fresh(t, nil, e)
	for i := range n {
		w.targets = append(w.targets, w.join(i))
	}
	w.group.Members(w.targets)
	w.group.Live()
	return w
}

// fresh returns a group in the same world.
func (w *world) fresh(t failing, h *model.Health, e model.Ejection) *Group {
	t.Helper()
	g, err := New(h, e, Env{
		Upstream: "shop", Now: func() time.Duration { return w.now }, Clock: w.clock, Random: w.random.Uint64,
		Log: slog.New(slog.NewTextHandler(&w.log, nil)), Metrics: w.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (w *world) join(i int) *Record {
	address := fmt.Sprintf("10.0.0.%d:80", i)
	return w.group.Join(address, address, func() *balance.Load { return balance.NewLoad(nil) })
}

func (w *world) pass(d time.Duration) {
	w.now += d
	w.clock.Advance(d)
}

func (w *world) fail(r *Record, n int, f Failure) {
	for range n {
		r.Load().Learn(w.now, time.Millisecond, true)
		r.Failed(0, w.now, f)
	}
}

func (w *world) answer(r *Record, n int, took time.Duration) {
	for range n {
		r.Load().Learn(w.now, took, false)
		r.Succeeded(0, w.now, took)
	}
}

func (w *world) isOut(r *Record) bool { return !r.Load().Available(w.now) }

func (w *world) out() (n int) {
	for _, r := range w.targets {
		if w.isOut(r) {
			n++
		}
	}
	return n
}

// series returns the line of a metric.
func (w *world) series(t *testing.T, name string) string {
	t.Helper()
	var text strings.Builder
	out := metric.NewText(&text)
	w.metrics.Expose(out)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, name) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
