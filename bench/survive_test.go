package main

import (
	"errors"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/bench/origin"
	"headgate/bench/peers"
	"headgate/bench/proc"
	"headgate/bench/survive"
)

func TestWithHeadgate(t *testing.T) {
	cores, err := proc.Cores()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{ctx: t.Context(), core: cores[len(cores)-1], work: t.TempDir(), results: results{}, origins: map[string]string{}}
	b.pace = 0.05
	if b.headgate, err = headgateBinary(b.ctx, options{contestants: []peers.Kind{peers.Headgate}}, b.work); err != nil {
		t.Fatal(err)
	}
	t.Run("every scenario of survival runs from end to end", func(t *testing.T) { everyScenario(t, b) })
	t.Run("a binary costs what it costs", func(t *testing.T) { sameBinary(t, b) })
}

// sameBinary compares Headgate with itself, in turns that are too short for more than a rough look.
func sameBinary(t *testing.T, b *bench) {
	s, err := origin.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	defer func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Error(err)
		}
	}()
	b.origin, b.against, b.duration = s.Addr().String(), b.headgate, 200*time.Millisecond
	const turns = 5 // of which one must be fit to be looked at: where the machine stands still, requests are refused and costs differ
	for n := 1; ; n++ {
		got, err := b.guard(guardTask(), peers.Headgate)
		r := got[costRatio]
		if err == nil && got[costLow] <= r && r <= got[costHigh] && r >= 0.5 && r <= 2 && got[nowMicros] >= 1 {
			break
		}
		if n == turns {
			t.Fatalf("%v, %v", got, err)
		}
		t.Logf("%v, %v", got, err)
	}
	if _, err := b.guard(guardTask(), peers.Nginx); err != errCannot {
		t.Errorf("nginx: %v", err)
	}
}

// everyScenario plays them in a twentieth of their time, with real gateways and targets, and looks for what must be true however slow
// the machine is.
func everyScenario(t *testing.T, b *bench) {
	for _, kind := range []peers.Kind{peers.Headgate, peers.Nginx, peers.HAProxy} {
		if _, err := exec.LookPath(string(kind)); err == nil || kind == peers.Headgate {
			b.contestants = append(b.contestants, kind)
		}
	}
	for _, c := range surviveTasks() {
		for _, turn := range b.turns(c) {
			switch {
			case turn.err == errCannot:
				if c.id != "U5/hedge" || turn.kind == peers.Headgate {
					t.Errorf("%s cannot do %s", turn.kind, c.id)
				}
				continue
			case turn.err != nil:
				t.Errorf("%s, %s: %v", c.id, turn.kind, turn.err)
				continue
			}
			b.results.add(c.id, turn.kind, 0, turn.sample)
			plausible(t, c, turn)
		}
	}
	text := b.report(machine{})
	for _, want := range []string{"U1, p99 ms after / nginx", "U3/capacity, goodput / C", "U5/hedge, extra load %", "## U4: three targets"} {
		if _, err := exec.LookPath("nginx"); err == nil && !strings.Contains(text, want) {
			t.Errorf("the report has no %q:\n%s", want, text)
		}
	}
}

// plausible checks that every column has its figure, and that no answer came sooner than a target can give it.
func plausible(t *testing.T, c task, turn turn) {
	t.Helper()
	perhaps := []survive.Figure{survive.Told, survive.RefusedP50, survive.RefusedP99, survive.SlowShare, survive.BackShare}
	for _, m := range c.columns {
		if v, ok := turn.sample[m]; !ok || math.IsNaN(v) && !slices.Contains(perhaps, survive.Figure(m)) {
			t.Errorf("%s, %s: %s is %v", c.id, turn.kind, m, v)
		}
	}
	for m, least := range map[survive.Figure]float64{
		survive.AfterP50: 10, survive.AwayP99: 10, survive.ServedP50: 50, survive.SmallP99: 50, survive.ExtraLoad: 0,
	} {
		if v, ok := turn.sample[metric(m)]; ok && v < least {
			t.Errorf("%s, %s: %s is %v, which is less than %v", c.id, turn.kind, m, v, least)
		}
	}
	goodput, ok := turn.sample[metric(survive.Goodput)]
	before := turn.sample[metric(survive.Learning)] // in so short a form nothing is found out yet
	if ok && (goodput < 0 || goodput > 1.2 || before <= 0) {
		t.Errorf("%s, %s: goodput is %v times the capacity, and %v before", c.id, turn.kind, goodput, before)
	}
}
