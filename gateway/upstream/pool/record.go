package pool

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"headgate/gateway/wire/h1"
)

// record is what is known about the connections to a target. It outlives the pools of one identity after another.
type record struct {
	ready func() bool // whether the target takes requests
	idle  idleTime
	where whereabouts
	warm  warmth

	open   atomic.Int64  // connections, and those that are being opened
	ahead  atomic.Uint64 // connections that were opened ahead
	reused atomic.Uint64 // calls on connections that were there already, as far as nobody counts them any more
	opened [outcomes]atomic.Uint64
	closed [causes]atomic.Uint64
	died   atomic.Int64 // when the last connection died on reuse, on the coarse clock, and a bit
}

// cause is why a connection was closed.
type cause uint8

const (
	causeNone        cause = iota
	causeIdle              // it was idle for too long
	causeAge               // it was too old
	causeRequests          // it has carried as many requests as it may
	causeSurplus           // more are not kept
	causeDead              // it was found closed when it was to be used again
	causeDoubt             // others were found closed one after another, so nothing that is idle is believed
	causeReplaced          // under another identity, or the upstream is gone
	causeReply             // after its reply: the target said so, or the reply was cut short
	causeFailed            // before a reply
	causeLate              // the target took too long
	causeInterrupted       // the client went away
	causeLeft              // the target left it (GOAWAY), or it broke
	causeLent              // it was opened for a tunnel or a probe, and that has ended
	causes
)

// causeNames are the causes as operators see them.
var causeNames = [causes]string{
	causeIdle: "idle", causeAge: "age", causeRequests: "requests", causeSurplus: "surplus", causeDead: "dead", causeDoubt: "doubt",
	causeReplaced: "replaced",
	causeReply:    "reply", causeFailed: "failed", causeLate: "timeout", causeInterrupted: "interrupted", causeLeft: "left", causeLent: "lent",
}

// outcome is what became of opening a connection.
type outcome uint8

const (
	outcomeOK outcome = iota
	outcomeRefused
	outcomeTimeout
	outcomeUnresolved
	outcomeHandshake
	outcomeBusy // there are as many as there may be
	outcomeFailed
	outcomes
)

// outcomeNames are the outcomes as operators see them.
var outcomeNames = [outcomes]string{"ok", "refused", "timeout", "unresolved", "handshake", "busy", "failed"}

// outcomeOf names what became of opening a connection.
func outcomeOf(err error) outcome {
	var h *handshakeError
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, ErrBusy):
		return outcomeBusy
	case errors.As(err, &h):
		return outcomeHandshake
	case errors.Is(err, errUnresolved):
		return outcomeUnresolved
	case errors.Is(err, syscall.ECONNREFUSED):
		return outcomeRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return outcomeTimeout
	}
	return outcomeFailed
}

// enter takes a place among the open connections; false: there are limit already. limit 0: there is none.
func (r *record) enter(limit int) bool {
	for {
		n := r.open.Load()
		if limit > 0 && n >= int64(limit) {
			return false
		}
		if r.open.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leave gives a place back.
func (r *record) leave() { r.open.Add(-1) }

// ended notes why a connection that was not kept has been closed. It reports whether it had died before it was used again.
func (r *record) ended(c *h1.Conn) (died bool) {
	why := causeFailed
	switch {
	case c.Interrupted():
		why = causeInterrupted
	case c.Expired():
		why = causeLate
	case c.Calls == c.Reused:
		why = causeDead
	case c.Calls > 0:
		why = causeReply
	}
	r.closed[why].Add(1)
	return why == causeDead
}

// burst reports whether another connection has died on reuse just before this one: the target has been restarted, or the way
// to it is cut, and what is idle is of no use.
func (r *record) burst(now time.Duration) bool {
	last := r.died.Swap(int64(now) + 1)
	return last != 0 && int64(now)+1-last <= int64(burstTime)
}

// burstTime is how near two connections must die for the rest to be dropped. The coarse clock is a second behind at most.
const burstTime = 2 * time.Second
