package client

import (
	"time"

	"golang.org/x/net/http2"
)

// keeper watches the deadlines of a connection's calls, and the connection itself, with one timer that is set for the
// earliest. A call that ends in time never touches it.
type keeper struct {
	conn   *Conn
	timer  *time.Timer
	due    int64  // when the timer fires, on the connection's clock; 0: it is not set
	heard  uint64 // Conn.heard at the last look
	quiet  int64  // since when nothing was heard, as far as was looked
	asked  int64  // when a sign of life was asked for; 0: it was not
	ended  bool
	signOf [8]byte
}

func (k *keeper) begin(c *Conn) {
	k.conn = c
	k.signOf = [8]byte{'h', 'e', 'a', 'd', 'g', 'a', 't', 'e'}
}

// expect makes sure that the timer fires by the time at. The connection's lock is held.
func (k *keeper) expect(now, at int64) {
	if k.ended || (k.due != 0 && k.due <= at) {
		return
	}
	k.due = at
	d := time.Duration(at - now)
	if k.timer == nil {
		k.timer = time.AfterFunc(d, k.tick)
		return
	}
	k.timer.Reset(d)
}

// opened is called when a call begins. The lock is held.
func (k *keeper) opened(now int64, only bool) {
	if only { // silence before did not mean anything
		k.quiet, k.asked, k.heard = now, 0, k.conn.heard.Load()
	}
	if ping := int64(k.conn.terms.Ping); ping > 0 {
		k.expect(now, now+ping)
	}
}

func (k *keeper) stop() {
	k.ended = true
	if k.timer != nil {
		k.timer.Stop()
	}
}

// tick looks at everything that has a deadline.
func (k *keeper) tick() {
	c := k.conn
	c.mu.Lock()
	if k.ended {
		c.mu.Unlock()
		return
	}
	now := c.now()
	k.due = 0
	next := int64(0)
	for _, call := range c.state.calls {
		if at := call.expire(now); at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	ping, silent := k.life(now, &next)
	if next != 0 {
		k.expect(now, max(next, now+int64(time.Millisecond)))
	}
	c.mu.Unlock()
	switch {
	case silent:
		c.fail(errSilent, http2.ErrCodeNo)
	case ping:
		c.out.ping(false, k.signOf)
	}
}

// life decides whether to ask for a sign of life, and whether one stayed out. The lock is held.
func (k *keeper) life(now int64, next *int64) (ask, silent bool) {
	patience := int64(k.conn.terms.Ping)
	if patience == 0 || len(k.conn.state.calls) == 0 {
		return false, false
	}
	if heard := k.conn.heard.Load(); heard != k.heard {
		k.heard, k.quiet, k.asked = heard, now, 0
	}
	at := k.quiet + patience
	switch {
	case k.asked != 0:
		at = k.asked + int64(k.conn.terms.PingTimeout)
		silent = now >= at
	case now >= at:
		ask, k.asked = true, now
		at = now + int64(k.conn.terms.PingTimeout)
	}
	if *next == 0 || at < *next {
		*next = at
	}
	return ask, silent
}
