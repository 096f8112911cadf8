package retry

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestABreakerOpensProbesAndCloses(t *testing.T) {
	b, now := NewBreaker(BreakerConfig{}), time.Hour
	ask := func(failed bool) bool {
		t.Helper()
		p, ok := b.Allow(now)
		if ok {
			b.Record(0, now, p, failed)
		}
		return ok
	}
	for range 19 {
		ask(true)
	}
	if b.State() != Closed {
		t.Error("it opens on too few requests")
	}
	ask(true)
	if b.State() != Open || ask(false) {
		t.Error("it does not open")
	}
	now += 5 * time.Second
	if !ask(true) || b.State() != Open {
		t.Error("a probe that fails must open it again")
	}
	if now += 9 * time.Second; ask(false) {
		t.Error("the second pause must be longer")
	}
	now += time.Second
	var passes []Pass
	for range 10 {
		if p, ok := b.Allow(now); ok {
			passes = append(passes, p)
		}
	}
	if len(passes) != 3 || b.State() != HalfOpen {
		t.Fatalf("%d probes, %v", len(passes), b.State())
	}
	b.Forget(passes[0])
	if p, ok := b.Allow(now); !ok {
		t.Error("a probe that told nothing is not replaced")
	} else {
		passes[0] = p
	}
	for _, p := range passes {
		b.Record(0, now, p, false)
	}
	if b.State() != Closed || !ask(true) || b.State() != Closed {
		t.Error("it does not close, or remembers what was before")
	}
}

func TestAProbeThatIsLostDoesNotCloseTheDoorForEver(t *testing.T) {
	b, now := NewBreaker(BreakerConfig{}), time.Hour
	for range 20 {
		b.Record(0, now, Pass{}, true)
	}
	now += 5 * time.Second
	var lost Pass
	for range 3 {
		lost, _ = b.Allow(now)
	}
	if _, ok := b.Allow(now + time.Second); ok {
		t.Error("a fourth probe")
	}
	now += 21 * time.Second
	if _, ok := b.Allow(now); !ok {
		t.Error("no new round of probes")
	}
	if b.Record(0, now, lost, true); b.State() != HalfOpen {
		t.Error("a probe of an earlier round decides")
	}
}

// TestABreakerNeverOpensBelowItsShareAndAlwaysRecovers is the law of breakers, for any traffic.
func TestABreakerNeverOpensBelowItsShareAndAlwaysRecovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := BreakerConfig{Share: rapid.Float64Range(.1, 1).Draw(t, "share"), Least: rapid.Int64Range(1, 50).Draw(t, "least")}
		b, now := NewBreaker(c), time.Hour
		fail, all := int64(0), int64(0) // since it was closed last; the window is never left
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			failed := rapid.Bool().Draw(t, "failed")
			p, ok := b.Allow(now)
			if !ok {
				break
			}
			if all++; failed {
				fail++
			}
			b.Record(rapid.Uint32().Draw(t, "shard"), now, p, failed)
			if open := failed && all >= c.Least && float64(fail) >= c.Share*float64(all); open != (b.State() == Open) {
				t.Fatalf("%d of %d failed, share %v of at least %d: %v", fail, all, c.Share, c.Least, b.State())
			}
		}
		for n := 0; b.State() != Closed; n++ { // now it is well
			if n > 1000 {
				t.Fatal("it never closes")
			}
			now += time.Second
			if p, ok := b.Allow(now); ok {
				b.Record(0, now, p, false)
			}
		}
	})
}
