package exchange

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blocked is something that can be interrupted.
type blocked struct{ times atomic.Int32 }

// Interrupt implements Interrupter.
func (b *blocked) Interrupt() { b.times.Add(1) }

func TestCancelInterruptsWhatIsGuarded(t *testing.T) {
	var c Canceler
	var first, second blocked
	if !c.Guard(&first) || !c.Guard(&second) || c.Canceled() {
		t.Fatal("nothing is canceled yet")
	}
	c.Cancel()
	if first.times.Load() != 0 || second.times.Load() != 1 {
		t.Errorf("interrupted: %d and %d times, want only the one guarded last", first.times.Load(), second.times.Load())
	}
	if c.Guard(&first) || !c.Canceled() {
		t.Error("what is guarded later must learn that it is too late")
	}
	if !errors.Is(c.Context().Err(), context.Canceled) {
		t.Error("a context that is asked for later is done")
	}
	c.Rest()
	if !c.Guard(nil) || c.Canceled() || c.Context().Err() != nil {
		t.Error("after Rest everything is as new")
	}
	c.Rest()
}

func TestCancelEndsTheContext(t *testing.T) {
	var c Canceler
	ctx := c.Context()
	if ctx != c.Context() {
		t.Error("one exchange, one context")
	}
	c.Cancel()
	<-ctx.Done()
	c.Rest()
	if next := c.Context(); next == ctx || next.Err() != nil {
		t.Error("the next exchange has a context of its own")
	}
	c.Rest()
}

func TestRestEndsTheContext(t *testing.T) {
	var c Canceler
	ctx := c.Context()
	c.Rest()
	<-ctx.Done() // what an exchange has left behind must not run on
}

func TestAnExchangeWithoutCancelerHasAContext(t *testing.T) {
	if ctx := new(Exchange).Context(); ctx == nil || ctx.Done() != nil {
		t.Error("it is never done")
	}
}

// Once Guard(nil) has returned, what was guarded belongs to somebody else and must be left alone, whenever Cancel comes.
func TestNothingIsInterruptedAfterItsGuardIsGone(t *testing.T) {
	for range 500 {
		var c Canceler
		var conn blocked
		var racing sync.WaitGroup
		racing.Go(c.Cancel)
		racing.Go(func() { _ = c.Context().Err() })
		heard := c.Guard(&conn)
		c.Guard(nil)
		before := conn.times.Load()
		racing.Wait()
		if after := conn.times.Load(); after != before {
			t.Fatalf("interrupted %d times after its guard was gone", after-before)
		}
		if !heard && before != 0 {
			t.Fatal("Guard said that it was too late, and yet Cancel found it")
		}
		c.Rest()
	}
}

func TestADeadlineEndsTheExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Canceler
		var b blocked
		c.Guard(&b)
		ctx, now := c.Context(), time.Now()
		c.Expire(now, now.Add(time.Second))
		c.Expire(now, now.Add(time.Minute)) // the earliest counts
		if at, ok := c.Until(); !ok || !at.Equal(now.Add(time.Second)) {
			t.Errorf("until %v", at)
		}
		time.Sleep(time.Second - 1)
		synctest.Wait()
		if c.Expired() || c.Canceled() {
			t.Fatal("too early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !c.Expired() || !c.Canceled() || b.times.Load() != 1 || ctx.Err() == nil || c.Guard(&b) {
			t.Error("the time has passed and somebody has not heard of it")
		}
		c.Rest()
		if _, ok := c.Until(); ok || c.Expired() || c.Canceled() {
			t.Error("after Rest everything is as new")
		}
	})
}

func TestAnEarlierDeadlineTakesTheLatersPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Canceler
		now := time.Now()
		c.Expire(now, now.Add(time.Minute))
		c.Expire(now, now.Add(time.Second))
		time.Sleep(time.Second)
		synctest.Wait()
		if !c.Expired() {
			t.Error("the earlier one counts")
		}
		c.Rest()
	})
}

func TestADeadlineThatHasPassedEndsTheExchangeAtOnce(t *testing.T) {
	var c Canceler
	now := time.Now()
	if c.Expire(now, now); !c.Expired() || c.Guard(nil) {
		t.Error("there was no time at all")
	}
	c.Rest()
}

func TestAClientThatHasGoneIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Canceler
		now := time.Now()
		c.Expire(now, now.Add(time.Second))
		c.Cancel()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c.Expired() {
			t.Error("it was the client that ended the exchange")
		}
		c.Rest()
	})
}

// The timer of one exchange never ends the next one of its connection, whenever it fires.
func TestADeadlineIsOfOneExchange(t *testing.T) {
	var c Canceler
	for i := range 2000 {
		now := time.Now()
		c.Expire(now, now.Add(time.Duration(i%50)*time.Microsecond))
		for range i % 100 {
			c.Canceled()
		}
		c.Rest()
		if c.Canceled() || c.Expired() {
			t.Fatal("the next exchange begins with the last one's end")
		}
	}
}

// What has rested is nobody's any more: its memory may be cleared while a timer is on its way.
func TestARestedCancelerMayBeForgotten(t *testing.T) {
	type stream struct{ cancel Canceler }
	var s stream
	for i := range 2000 {
		now := time.Now()
		s.cancel.Expire(now, now.Add(time.Duration(i%50)*time.Microsecond))
		for range i % 100 {
			s.cancel.Canceled()
		}
		s.cancel.Rest()
		s = stream{}
	}
}

func TestADeadlineAllocatesOnceForAllExchanges(t *testing.T) {
	var c Canceler
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() { c.Expire(now, now.Add(time.Hour)); c.Rest() }); n != 0 {
		t.Errorf("%v allocations for each exchange", n)
	}
}

// locked is something whose Interrupt takes a lock, as that of a connection which many exchanges share does.
type locked struct{ mu sync.Mutex }

// Interrupt implements Interrupter.
func (l *locked) Interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
}

func TestWhoHoldsTheLockOfAnInterrupterMayAsk(t *testing.T) {
	var c Canceler
	var l locked
	c.Guard(&l)
	l.mu.Lock()
	done := make(chan struct{})
	go func() { defer close(done); c.Cancel() }()
	for !c.Canceled() { // which Cancel says before it interrupts, and it cannot finish yet
		runtime.Gosched()
	}
	if c.Expired() {
		t.Error("nobody set a deadline")
	}
	l.mu.Unlock()
	<-done
	c.Rest()
}
