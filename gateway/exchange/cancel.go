package exchange

import (
	"context"
	"sync"
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
	gone    bool
}

// Guard names what is blocked now, or nobody with nil. It returns false when the exchange has been canceled already.
// After Guard(nil) has returned, the last one named is not interrupted any more.
func (c *Canceler) Guard(i Interrupter) bool {
	c.mu.Lock()
	c.current = i
	gone := c.gone
	c.mu.Unlock()
	return !gone
}

// Cancel ends the exchange: what is blocked is interrupted and its context is done.
func (c *Canceler) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.current != nil {
		c.current.Interrupt()
	}
	if c.cancel != nil {
		c.cancel()
	}
}

// Canceled reports whether the exchange was ended from outside.
func (c *Canceler) Canceled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// Context returns a context that is done when the exchange is. It is made on the first call.
func (c *Canceler) Context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancel(context.Background())
		if c.gone {
			c.cancel()
		}
	}
	return c.ctx
}

// Rest releases what the last exchange used, so that the next one starts afresh.
func (c *Canceler) Rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
	c.current, c.ctx, c.cancel, c.gone = nil, nil, nil, false
}
