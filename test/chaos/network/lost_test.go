//go:build linux

package network

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"headgate/internal/testkit/lab"
)

// brisk is a gateway that knows soon: what takes 2 s and 30 s by default takes less here, so that the tests do.
const brisk = `
listeners: {public: {address: ":8000"}}
upstreams:
  a:
    targets: [${HTTP}]
    timeouts: {connect: 500ms, response: 1s, idle: 1s}
    ejection: {for: 500ms}
    balance: round-robin
apis: {all: {upstream: a}}
`

// slack is what a slow machine may add to a time limit of the gateway's: far less than the kernel's own, which are minutes.
const slack = 20 * time.Second

// loss is a way in which a service can be lost, and how it comes back.
type loss struct {
	name string
	lose func(t *testing.T, w *world, s *target)
	back func(t *testing.T, w *world, s *target)
	told []string // what clients may be told, when it was the only one or had their request, and most likely first
}

func heal(_ *testing.T, w *world, s *target) { w.Heal(w.machine, s.Machine) }

// Unreachable, closed and timeout are what clients are told.
const (
	unreachable = "502 upstream_unreachable"
	closed      = "502 upstream_closed"
	timedOut    = "504 upstream_timeout"
)

var losses = []loss{
	{
		name: "partition: everything is swallowed, both ways",
		lose: func(_ *testing.T, w *world, s *target) { w.Cut(w.machine, s.Machine) },
		back: heal, told: []string{unreachable, timedOut},
	}, {
		name: "half a partition: the service hears and is not heard",
		lose: func(_ *testing.T, w *world, s *target) { w.Set(s.Machine, w.machine, lab.Condition{Loss: 1}) },
		back: heal, told: []string{unreachable, timedOut},
	}, {
		name: "half a partition: the service is heard and does not hear",
		lose: func(_ *testing.T, w *world, s *target) { w.Set(w.machine, s.Machine, lab.Condition{Loss: 1}) },
		back: heal, told: []string{unreachable, timedOut},
	}, {
		name: "the machine vanishes without a word and is started anew",
		lose: func(t *testing.T, w *world, s *target) {
			if err := s.Plug(false); err != nil {
				t.Error(err)
			}
			s.process.Kill()
		},
		back: func(t *testing.T, w *world, s *target) {
			s.run(t)
			if err := s.Plug(true); err != nil {
				t.Error(err)
			}
		},
		told: []string{unreachable, timedOut, closed},
	}, {
		name: "SIGSTOP: the kernel accepts and nobody answers",
		lose: func(t *testing.T, _ *world, s *target) { s.signal(t, syscall.SIGSTOP) },
		back: func(t *testing.T, _ *world, s *target) { s.signal(t, syscall.SIGCONT) },
		told: []string{timedOut},
	}, {
		name: "SIGKILL: the kernel resets what was open and refuses what is new",
		lose: func(_ *testing.T, _ *world, s *target) { s.process.Kill() },
		back: func(t *testing.T, _ *world, s *target) { s.run(t) },
		told: []string{closed, unreachable},
	}, {
		name: "a router answers that there is no way",
		lose: func(_ *testing.T, w *world, s *target) { w.Set(w.machine, s.Machine, lab.Condition{Unreachable: true}) },
		back: heal, told: []string{unreachable, timedOut},
	},
}

// known fails the test for what clients were told besides what they may be.
func (l *load) known(t *testing.T, told []string) {
	t.Helper()
	wrong, _ := l.failures()
	for what, n := range wrong {
		if !slices.Contains(told, what) {
			t.Errorf("%d clients were told %q; allowed: %s", n, what, strings.Join(told, ", "))
		}
	}
}

// insistent is brisk, and asks somebody else when an answer does not come in time.
const insistent = `
listeners: {public: {address: ":8000"}}
upstreams:
  a:
    targets: [${HTTP}]
    timeouts: {connect: 500ms, response: 5s, idle: 1s}
    retry: {on: [connect, refused, reset, timeout], try_timeout: 1s}
    ejection: {for: 500ms}
    balance: round-robin
apis: {all: {upstream: a}}
`

// One of three services is lost under load. Those requests fail that it had got, by the document's timeouts, unless the document
// says that they are asked again; it is left out, the others carry everything, and it is back when it is.
func TestOneOfThreeIsLost(t *testing.T) {
	t.Parallel()
	for _, c := range losses {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			t.Run("answers are waited for", func(t *testing.T) {
				t.Parallel()
				most := 4 * lossClients
				if c.told[0] == closed { // which is asked again by default
					most = 0
				}
				loseOne(t, c, brisk, most)
			})
			t.Run("others are asked when they are late", func(t *testing.T) {
				t.Parallel()
				loseOne(t, c, insistent, 0)
			})
		})
	}
}

const lossClients = 8

func loseOne(t *testing.T, c loss, document string, mostFailed int) {
	w := start(t, 3, document)
	before := w.idles(t)
	l := w.begin(t, lossClients, request("GET /"))
	for _, s := range w.targets {
		eventually(t, s.Name+" answers", func() (bool, string) { return l.by(s) > 20, l.String() })
	}
	lost := w.targets[0]
	c.lose(t, w, lost)
	w.await(t, "the lost one is out", lost)
	l.flows(t, 300)
	c.back(t, w, lost)
	n := l.by(lost)
	eventually(t, "it answers again", func() (bool, string) { return l.by(lost) > n+20, l.String() })
	w.await(t, "it is available again")
	l.end()
	l.known(t, c.told)
	if wrong, failed := l.failures(); failed > mostFailed {
		t.Errorf("%d failed, at most %d: %v", failed, mostFailed, wrong)
	}
	if most := 5*time.Second + slack; l.longest > most {
		t.Errorf("a request took %v; at most %v", l.longest, most)
	}
	w.settles(t, before)
	t.Log(l)
}

// All services are lost under load. Clients are told why, in time; nothing hangs and nothing is left behind; when the services
// are back, so is everything.
func TestAllAreLost(t *testing.T) {
	t.Parallel()
	for _, c := range losses {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, 2, brisk)
			before := w.idles(t)
			l := w.begin(t, 8, request("GET /"))
			l.flows(t, 100)
			for _, s := range w.targets {
				c.lose(t, w, s)
			}
			eventually(t, "clients are told", func() (bool, string) { _, n := l.failures(); return n > 20, l.String() })
			o := w.ask(request("GET /"))
			if o.err != nil || o.status < 502 || !slices.Contains(c.told, o.String()) || o.took > 3*time.Second+slack {
				t.Errorf("a new client is told %q after %v", o, o.took)
			}
			for _, s := range w.targets {
				c.back(t, w, s)
			}
			back := time.Now()
			l.flows(t, 100)
			w.await(t, "all are available")
			t.Logf("told after %v, recovered after %v", o.took.Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
			l.end()
			l.known(t, c.told)
			if most := 3*time.Second + slack; l.longest > most {
				t.Errorf("a request took %v; at most %v", l.longest, most)
			}
			w.settles(t, before)
			t.Log(l)
		})
	}
}
