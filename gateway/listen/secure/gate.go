package secure

import (
	"sync/atomic"
	"time"
)

// maxWaiting bounds the handshakes that wait for their turn on one listener. A flood of clients must not fill the memory
// with those that will have given up when it comes.
const maxWaiting = 8192

// gate bounds the handshakes that one listener works on at a time. One that waits for its client is not worked on: a few
// clients that begin a handshake and fall silent would otherwise keep everybody out until the timeout. How many of those
// there may be is a matter of the listener's limits of connections.
type gate struct {
	slots   chan struct{} // nil: no limit
	waiting atomic.Int64
}

func (g *gate) limit(n int) {
	if n > 0 {
		g.slots = make(chan struct{}, n)
	}
}

// enter waits for a turn, for no longer than it may. It reports whether it got one.
func (g *gate) enter(most time.Duration) bool {
	if g.slots == nil {
		return true
	}
	select {
	case g.slots <- struct{}{}:
		return true
	default:
	}
	if g.waiting.Add(1) > maxWaiting || most <= 0 {
		g.waiting.Add(-1)
		return false
	}
	defer g.waiting.Add(-1)
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	select {
	case g.slots <- struct{}{}:
		return true
	case <-timeout.C:
		return false
	}
}

func (g *gate) leave() {
	if g.slots != nil {
		<-g.slots
	}
}
