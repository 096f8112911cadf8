package exchange

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Interrupter is something that may be blocked for the exchange's sake; Interrupt unblocks it from another goroutine.
type Interrupter interface{ Interrupt() }

// Canceler ends an exchange from outside, because its client is gone or the gateway stops. It belongs to a connection
// and is used for its exchanges one after another.
type Canceler struct {
	mu      sync.Mutex
	current Interrupter
	ctx     context.Context
	cancel  context.CancelFunc
	gone    atomic.Bool // written under mu
	expired atomic.Bool
	until   time.Time // zero: no deadline
	expiry  *expiry   // kept for the next exchange that has one
}

// expiry is the timer of a deadline.
type expiry struct {
	mu       sync.Mutex // held before the canceler's
	canceler *Canceler  // nil: its exchange has ended, and its memory may be another's
	timer    *time.Timer
}

// Guard names what is blocked now, or nobody with nil. It returns false when the exchange has been canceled already.
// After Guard(nil) has returned, the last one named is not interrupted any more.
func (c *Canceler) Guard(i Interrupter) bool {
	c.mu.Lock()
	c.current = i
	gone := c.gone.Load()
	c.mu.Unlock()
	return !gone
}

// Cancel ends the exchange: what is blocked is interrupted and its context is done.
func (c *Canceler) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
}

func (c *Canceler) end() {
	c.gone.Store(true)
	if c.current != nil {
		c.current.Interrupt()
	}
	if c.cancel != nil {
		c.cancel()
	}
}

// Expire ends the exchange at a time, as Cancel would, unless it has ended before; see Expired. Of several deadlines the
// earliest counts. One that has passed ends the exchange at once. now is what the clock says that at is a time of. An
// exchange without a deadline pays nothing for this. Expire and Rest are called by who carries the exchange.
func (c *Canceler) Expire(now, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone.Load() || (!c.until.IsZero() && !at.Before(c.until)) {
		return
	}
	c.until = at
	d := at.Sub(now)
	switch {
	case d <= 0:
		c.expired.Store(true)
		c.end()
	case c.expiry == nil:
		e := &expiry{canceler: c}
		e.timer = time.AfterFunc(d, e.fire)
		c.expiry = e
	default:
		c.expiry.timer.Reset(d)
	}
}

// fire ends the exchange that the timer was set for, and none that came after it.
func (e *expiry) fire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.canceler
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone.Load() {
		c.expired.Store(true)
		c.end()
	}
}

// Lift takes the deadline away, for what goes on after the answer: a connection that was switched to another protocol. It is
// called by who carries the exchange.
func (c *Canceler) Lift() {
	c.disarm()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Time{}
}

// disarm stops the timer. One that has fired is not used again, and does not touch the canceler any more.
func (c *Canceler) disarm() {
	e := c.expiry
	if e == nil || c.until.IsZero() || e.timer.Stop() {
		return
	}
	e.mu.Lock()
	e.canceler = nil
	e.mu.Unlock()
	c.expiry = nil
}

// Expired reports whether the exchange was ended because its time had passed: its client is still there to be told.
func (c *Canceler) Expired() bool { return c.expired.Load() }

// Until returns the exchange's deadline, if it has one.
func (c *Canceler) Until() (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.until, !c.until.IsZero()
}

// Canceled reports whether the exchange was ended from outside, be it by its client or by its deadline. It takes no lock, so
// that it can be asked by who holds one that Interrupt takes.
func (c *Canceler) Canceled() bool { return c.gone.Load() }

// Context returns a context that is done when the exchange is. It is made on the first call.
func (c *Canceler) Context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancel(context.Background())
		if c.gone.Load() {
			c.cancel()
		}
	}
	return c.ctx
}

// Rest releases what the last exchange used, so that the next one starts afresh.
func (c *Canceler) Rest() {
	c.disarm()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
	c.gone.Store(false)
	c.expired.Store(false)
	c.current, c.ctx, c.cancel, c.until = nil, nil, nil, time.Time{}
}
