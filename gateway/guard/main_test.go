package guard

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/internal/clock"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// machine is one whose memory a test fills.
type machine struct {
	mu       sync.Mutex
	budget   Budget
	err      error
	reading  Reading
	garbage  int64 // what the next collection frees
	limits   []int64
	collects []time.Time
}

func (m *machine) Budget() (Budget, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.budget, m.err
}

func (m *machine) Read(Budget) Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reading
}

func (m *machine) set(used, live int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reading = Reading{Used: used, Live: live}
}

func (m *machine) setLimit(n int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n >= 0 {
		m.limits = append(m.limits, n)
	}
	return 1 << 60
}

func (m *machine) collect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.collects = append(m.collects, time.Now())
	m.reading.Used -= m.garbage
	m.garbage = 0
}

// watched is a guard of a machine, with what it says.
type watched struct {
	*Guard
	machine *machine
	log     *bytes.Buffer
	metrics *metric.Registry
}

func watch(m *machine, fixed bool) *watched {
	w := &watched{machine: m, log: new(bytes.Buffer), metrics: metric.NewRegistry()}
	w.Guard = New(Options{
		Clock: clock.System{}, Log: slog.New(slog.NewTextHandler(w.log, nil)), Metrics: w.metrics, Machine: m, Fixed: fixed,
		SetLimit: m.setLimit, Collect: m.collect,
	})
	return w
}
