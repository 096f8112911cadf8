package sock

import (
	"errors"
	"sync/atomic"
	"time"
)

// ErrLost is returned by what waited on a connection whose peer's machine cannot be reached any more, see AckWithin.
var ErrLost = errors.New("sock: the other machine has acknowledged nothing of what it was sent")

// looks is what the sweeper keeps between two looks at a connection. Only it touches what is not atomic.
type looks struct {
	served uint64       // serving, see there, at the last look
	within atomic.Int64 // see AckWithin; 0: for ever
	wrote  atomic.Bool  // something, since the sweeper has looked
	lost   atomic.Bool
	acked  uint64 // bytes that the peer had acknowledged when that had last changed
	since  int64  // when it was seen that something waits to be acknowledged and nothing more is; 0: it is not so

	began int64  // of the write that was given more time
	taken uint64 // bytes that the peer had acknowledged then
}

// AckWithin gives the connection up when the peer's machine acknowledges nothing of what it is sent for d, and up to two seconds
// more: it, or the way to it, is gone, and the kernel would try for a quarter of an hour (RFC 1122 section 4.2.3.5). What waits on
// the connection then fails with ErrLost. A peer that is slow, or stopped, or has no room is none of that: its machine
// acknowledges, and one that is far away lets the kernel wait for longer before it sends anything again. A connection on which
// nothing was sent is not looked at.
func (c *Conn) AckWithin(d time.Duration) { c.looks.within.Store(int64(d)) }

// vainRetries is how often the kernel must have sent the same again. It does so after the time that acknowledgements have taken
// so far, and as long again (RFC 6298): whoever is not heard of by then is not merely far away.
const vainRetries = 2

// wrote notes, behind a write, that there may be something to be acknowledged.
func (c *Conn) wrote() {
	if !c.looks.wrote.Load() { // else the line of memory is not touched
		c.looks.wrote.Store(true)
	}
}

// unsettled reports whether something may wait to be acknowledged that matters. Only the sweeper asks.
func (l *looks) unsettled() bool { return l.within.Load() > 0 && (l.since != 0 || l.wrote.Load()) }

// checkAcks is called by the sweeper at each look.
func (c *Conn) checkAcks(now int64) {
	l := &c.looks
	l.wrote.Store(false)
	acks, ok := c.acks()
	switch {
	case !ok || acks.flying == 0:
		l.since = 0
	case l.since == 0 || acks.bytes != l.acked:
		l.acked, l.since = acks.bytes, now
	case now-l.since >= l.within.Load() && acks.retries >= vainRetries && !l.lost.Swap(true):
		_ = c.tcp.SetLinger(0) // the kernel need not try any longer, either
		c.shut()
	}
}

// leastTakeTime is the least time in which the want of an acknowledgement means something: they are delayed and counted in
// milliseconds.
const leastTakeTime = 100 * time.Millisecond

// takes reports whether a peer that has not made room for more in time is on a slow way rather than at fault: it acknowledges
// what it was sent, and has room. Socket buffers may hold minutes' worth of that, and the kernel wakes a writer only when a third
// is free. One that acknowledges less than leastWriteRate from one time to the next is at fault all the same.
func (c *Conn) takes(patience time.Duration) bool {
	if patience < leastTakeTime {
		return false
	}
	acks, ok := c.acks()
	if !ok || acks.queued == 0 || acks.window == 0 || acks.quiet >= patience || acks.retries > 1 {
		return false
	}
	l, began := &c.looks, c.timer.began.Load()
	least := uint64(patience.Seconds() * leastWriteRate)
	enough := l.began != began || acks.bytes-l.taken >= least
	l.began, l.taken = began, acks.bytes
	return enough
}

// acks is what the kernel knows about how a peer's machine takes what it is sent.
type acks struct {
	bytes   uint64        // acknowledged so far
	flying  uint32        // segments that were sent and are not acknowledged
	queued  int           // bytes that were written and are not acknowledged, sent or not
	window  uint32        // bytes that the peer has room for
	quiet   time.Duration // since the last acknowledgement
	retries uint8         // in a row of the same segment, in vain
}
