// Package tunnel carries the bytes of connections that have become something else than HTTP: WebSockets, other upgrades,
// and TCP as it is. It looks at no byte but, of a WebSocket, at the frames' headers, in order to know where one ends.
package tunnel

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// Options say how a tunnel is carried. The zero value sets no limit.
type Options struct {
	Registry   *Registry     // which finds it when the gateway drains; nil: none
	Idle       time.Duration // ends it when no byte has passed either way for as long, or up to an eighth longer; 0: never
	Lifetime   time.Duration // ends it, whatever passes; 0: never
	HalfClosed time.Duration // the longest that one direction goes on after the other has ended; 0: as long as it likes
	Bytes      int64         // both ways together; it is ended at them; 0: any
	Bandwidth  int64         // bytes per second, each way; 0: any
	WebSocket  bool          // RFC 6455: may be said goodbye to between two frames
}

// Result is what became of a tunnel.
type Result struct {
	Sent     int64 // bytes from the client to the upstream
	Received int64 // bytes from the upstream to the client
	Ended    Reason
	Status   uint16 // of the first close frame of a WebSocket (RFC 6455 section 7.4); 0: none seen, or without one
	Err      error  // with ClientFailed and UpstreamFailed, and where the other direction broke after one had ended by itself
}

// Reason is why a tunnel ended.
type Reason uint8

// The reasons.
const (
	Open           Reason = iota // it has not
	ClientClosed                 // the client ended its direction first
	UpstreamClosed               // the upstream did
	ClientFailed                 // the client's connection broke
	UpstreamFailed               // the upstream's did
	Idle                         // no byte passed for too long
	Lifetime                     // it had lived for as long as it may
	Limit                        // it had carried as many bytes as it may
	Drained                      // the gateway stops
	Cut                          // from outside: the exchange was canceled, or a drain cut it off without a word
	reasons
)

// String returns the reason's name in logs and metrics.
func (r Reason) String() string {
	return [...]string{
		"open", "client_closed", "upstream_closed", "client_failed", "upstream_failed", "idle", "lifetime", "limit", "drained", "cut",
	}[r]
}

// tunnel is one that is open.
type tunnel struct {
	options  Options
	up, down flow          // from the client, from the upstream
	halted   chan struct{} // closed when it is stopped; made for a bandwidth alone

	flying atomic.Int32 // directions that have not ended

	mu       sync.Mutex
	ended    Reason
	err      error
	stopped  bool // nothing is carried any more
	finished bool // nobody may touch the streams any more
	bell     *time.Timer
	life     *time.Timer
	quiet    int   // how many times in a row the bell found that nothing had passed
	passed   int64 // when it last rang
	granted  int64 // of the bytes that it may carry

	shard      *registryShard // of the registry, with its list
	prev, next *tunnel
}

// Relay carries bytes between the two until both directions have ended, one of them breaks or a limit is reached. The end of
// one direction is passed on to the other side. Neither stream is closed, but both have been interrupted unless both had
// ended by themselves. Relay returns when nobody uses them any more.
func Relay(client, upstream exchange.Stream, o Options) Result {
	t := &tunnel{options: o}
	t.begin(client, upstream)
	ended := make(chan Result, 1)
	t.fly(func(r Result) { ended <- r })
	return <-ended
}

// fly carries both directions, each by a goroutine of its own, whose stacks are small, and calls done when both have ended.
func (t *tunnel) fly(done func(Result)) {
	t.flying.Store(2)
	for _, f := range [...]*flow{&t.up, &t.down} {
		go func() {
			defer func() {
				if r := recover(); r != nil {
					t.stop(Cut, fmt.Errorf("a tunnel panicked: %v\n%s", r, debug.Stack()))
				}
				if t.flying.Add(-1) == 0 {
					done(t.finish())
				}
			}()
			f.carry()
		}()
	}
}

func (t *tunnel) begin(client, upstream exchange.Stream) {
	o := &t.options
	t.up.begin(t, client, upstream, ClientClosed)
	t.down.begin(t, upstream, client, UpstreamClosed)
	if o.Bandwidth > 0 {
		t.halted = make(chan struct{})
	}
	t.mu.Lock()
	if o.Idle > 0 {
		t.bell = time.AfterFunc(t.tick(), t.ring)
	}
	if o.Lifetime > 0 {
		t.life = time.AfterFunc(o.Lifetime, func() { t.stop(Lifetime, nil) })
	}
	t.mu.Unlock()
	o.Registry.add(t)
}

func (t *tunnel) finish() Result {
	t.options.Registry.remove(t)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finished = true
	for _, timer := range [...]*time.Timer{t.bell, t.life} {
		if timer != nil {
			timer.Stop()
		}
	}
	r := Result{Sent: t.up.bytes.Load(), Received: t.down.bytes.Load(), Ended: t.ended, Err: t.err, Status: t.up.frames.status}
	if r.Status == 0 || t.ended == UpstreamClosed && t.down.frames.status != 0 {
		r.Status = t.down.frames.status
	}
	return r
}

// stop ends the tunnel at once. The first reason is the one that counts.
func (t *tunnel) stop(why Reason, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.halt(why, err)
}

func (t *tunnel) halt(why Reason, err error) {
	if t.finished {
		return
	}
	if t.ended == Open {
		t.ended = why
	} else if err == nil && (why == Lifetime || why == Limit) {
		err = errors.New("tunnel: stopped after one direction had ended: " + why.String())
	}
	if t.stopped {
		return
	}
	t.stopped, t.err = true, err
	if t.halted != nil {
		close(t.halted)
	}
	t.up.from.Interrupt()
	t.down.from.Interrupt()
}

// Interrupt cuts the tunnel off from outside.
func (t *tunnel) Interrupt() { t.stop(Cut, nil) }

// over is called when a direction has ended with the stream that it reads.
func (t *tunnel) over(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended == Open {
		t.ended = f.closed
	}
	d := t.options.HalfClosed
	switch {
	case d == 0:
	case t.life == nil:
		t.life = time.AfterFunc(d, t.Interrupt) // the reason is known already
	default:
		t.life.Reset(d)
	}
}

// failed is called when a direction has ended because one side broke.
func (t *tunnel) failed(side exchange.Stream, err error) {
	switch {
	case errors.Is(err, sock.ErrInterrupted):
		t.stop(Cut, nil)
	case side == t.up.from:
		t.stop(ClientFailed, err)
	default:
		t.stop(UpstreamFailed, err)
	}
}

// ticks is how many looks in a row must find that nothing has passed: an idle tunnel ends at most one of them late.
// leastTick keeps many tunnels with a short time from keeping the machine busy.
const (
	ticks     = 8
	leastTick = 250 * time.Millisecond
)

func (t *tunnel) tick() time.Duration { return max(t.options.Idle/ticks, leastTick) }

// ring looks whether anything has passed since it rang last. All that is written when bytes pass is how many.
func (t *tunnel) ring() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finished || t.stopped {
		return
	}
	passed := t.up.bytes.Load() + t.down.bytes.Load()
	if passed != t.passed {
		t.passed, t.quiet = passed, 0
	} else if t.quiet++; time.Duration(t.quiet)*t.tick() >= t.options.Idle {
		t.halt(Idle, nil)
		return
	}
	t.bell.Reset(t.tick())
}
