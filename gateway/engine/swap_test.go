package engine

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// watched returns a snapshot that counts how often it was closed, and fails the test when it is closed while pinned.
func watched(report func(format string, args ...any), closed *atomic.Int64) *Snapshot {
	s := NewSnapshot()
	s.OnClose = append(s.OnClose, func() error {
		closed.Add(1)
		if n := s.pinned(); n < 0 {
			report("%d pins", n)
		}
		return nil
	})
	return s
}

// Whatever the order of pins, unpins and swaps: a snapshot is closed exactly once, after it was replaced and when nobody
// holds it any more, and what is pinned is the snapshot of that moment.
func TestASnapshotIsClosedOnceAndOnlyWhenNobodyHoldsIt(t *testing.T) {
	type hold struct {
		s     *Snapshot
		shard uint32
	}
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			e := new(Engine)
			closed := map[*Snapshot]*atomic.Int64{}
			swap := func() {
				n := new(atomic.Int64)
				s := watched(rt.Errorf, n)
				closed[s] = n
				e.Swap(s)
			}
			swap()
			var held []hold
			check := func() {
				synctest.Wait()
				pins := map[*Snapshot]bool{e.Current(): true}
				for _, h := range held {
					pins[h.s] = true
				}
				for s, n := range closed {
					if want := int64(1); pins[s] && n.Load() != 0 || !pins[s] && n.Load() != want {
						rt.Fatalf("closed %d times; held or current: %v", n.Load(), pins[s])
					}
				}
			}
			for _, step := range rapid.SliceOfN(rapid.IntRange(0, 5), 0, 40).Draw(rt, "steps") {
				switch {
				case step == 0:
					swap()
				case step <= 3:
					shard := rapid.Uint32().Draw(rt, "shard")
					s := e.pin(shard)
					if s != e.Current() {
						rt.Fatal("pinned an old one")
					}
					held = append(held, hold{s, shard})
				case len(held) > 0:
					i := rapid.IntRange(0, len(held)-1).Draw(rt, "which")
					held[i].s.unpin(held[i].shard)
					held = append(held[:i], held[i+1:]...)
				}
				check()
			}
			for _, h := range held {
				h.s.unpin(h.shard)
			}
			if err := e.Close(); err != nil {
				rt.Error(err)
			}
			for _, n := range closed {
				if n.Load() != 1 {
					rt.Errorf("closed %d times in the end", n.Load())
				}
			}
		})
	})
}

func TestPinsAndSwapsAtTheSameTime(t *testing.T) {
	e := new(Engine)
	var closes atomic.Int64
	dead := new(sync.Map) // snapshots that were closed
	fresh := func() *Snapshot {
		s := NewSnapshot()
		s.OnClose = append(s.OnClose, func() error { closes.Add(1); dead.Store(s, true); return nil })
		return s
	}
	e.Swap(fresh())
	const swaps = 500
	var stop atomic.Bool
	var pinners sync.WaitGroup
	for range 4 {
		pinners.Go(func() {
			for !stop.Load() {
				shard := rand.Uint32()
				s := e.pin(shard)
				for range 3 {
					if _, closed := dead.Load(s); closed {
						t.Error("closed while it was pinned")
					}
				}
				s.unpin(shard)
			}
		})
	}
	for range swaps {
		e.Swap(fresh())
	}
	stop.Store(true)
	pinners.Wait()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if closes.Load() != swaps+1 {
		t.Errorf("%d of %d were closed", closes.Load(), swaps+1)
	}
}

func TestASnapshotThatDoesNotCloseCleanlyIsReportedAndClosedWhole(t *testing.T) {
	h := newHouse(t)
	s := h.serve()
	s.OnClose = append(s.OnClose, func() error { h.note("first"); return errors.New("stuck") }, func() error { h.note("second"); return nil })
	s.Version = "v1"
	h.serve()
	h.engine.closing.Wait()
	if got := h.noted(); got != "first second" {
		t.Errorf("closed %q", got)
	}
	if log := h.log.String(); !strings.Contains(log, "stuck") || !strings.Contains(log, "v1") {
		t.Errorf("the log does not say so: %s", log)
	}
}

func TestSwapHandlersRunBeforeTheSnapshotIsCurrent(t *testing.T) {
	h := newHouse(t)
	old := h.serve()
	s := NewSnapshot()
	s.Table, s.NotFound = old.Table, old.NotFound
	s.OnSwap = append(s.OnSwap, func() {
		if h.engine.Current() != old {
			t.Error("too late")
		}
		h.note("swap")
	})
	h.engine.Swap(s)
	if h.engine.Current() != s || h.noted() != "swap" {
		t.Error("not swapped, or not told")
	}
}

func TestAnExchangeKeepsTheSnapshotItBeganWith(t *testing.T) {
	h := newHouse(t)
	old := h.serve(rule{path: "/", answer: fixed(200, "old")})
	x, w := request("GET /")
	w.before = func() {
		h.serve(rule{path: "/", answer: fixed(200, "new")})
		select {
		case <-old.drained:
			t.Error("drained while an exchange holds it")
		default:
		}
	}
	h.entrance.Serve(x)
	if w.body != "old" {
		t.Errorf("answered %q", w.body)
	}
	<-old.drained
	if _, w := h.ask("GET /"); w.body != "new" {
		t.Errorf("then answered %q", w.body)
	}
}

func TestClosingAnEngineThatNeverServed(t *testing.T) {
	if err := new(Engine).Close(); err != nil {
		t.Error(err)
	}
}
