package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"headgate/internal/sock"
)

// Owner is told when a connection can take another call, and when it takes no more.
type Owner interface {
	// Free is called when a call has left the connection. It must not wait.
	Free(c *Conn)
	// Leaving is called once, when the connection takes no more calls. Those that it has may still end well.
	Leaving(c *Conn)
}

// Conn is a connection to a target, shared by calls.
type Conn struct {
	sock  *sock.Conn
	terms *Terms
	owner Owner
	base  time.Time // of its clock

	room  atomic.Int32 // calls that it may have at one time; 0: it takes no more
	open  atomic.Int32 // that it has, and places that are taken for some
	used  atomic.Bool  // a call has ended on it: it has proven to work
	idle  atomic.Int64 // since when there is none; the owner's own clock
	heard atomic.Uint64
	left  sync.Once
	ready chan struct{} // closed when the target's settings are here
	runs  sync.WaitGroup

	mu    sync.Mutex // for what follows; never held while out's is taken
	state state
	keep  keeper

	out outbound
	in  inbound
}

// state is what both sides have said so far.
type state struct {
	calls    map[uint32]*Call
	highest  uint32        // stream that was opened
	err      error         // why the connection has ended
	leaving  bool          // it takes no more calls
	code     http2.ErrCode // with which the target says goodbye
	settled  bool          // the target's settings are here
	extended bool          // it takes extended CONNECT
	window   int64         // for DATA to the target, of the connection
	initial  int64         // of a new stream
	thirsty  []*Call
	received int64 // that the target may still send
	owed     int64 // taken and not yet given back
	grown    int64 // by which windows of streams are larger than at their start
}

// Open begins HTTP/2 on an open connection and waits for the target's settings, which show that it speaks it. ErrLeft is a
// target that said goodbye before the connection could be used; it may take another one.
func Open(ctx context.Context, sc *sock.Conn, terms *Terms, owner Owner) (*Conn, error) {
	c := &Conn{sock: sc, terms: terms, owner: owner, base: terms.Clock.Now(), ready: make(chan struct{})}
	c.state = state{calls: map[uint32]*Call{}, window: startWindow, initial: startWindow, received: connWindow}
	c.keep.begin(c)
	c.in.begin(c)
	c.out.begin()
	c.out.preface(terms)
	c.runs.Go(c.write)
	c.runs.Go(c.read)
	select {
	case <-c.ready:
	case <-ctx.Done():
		c.fail(context.Cause(ctx), http2.ErrCodeNo)
	}
	c.mu.Lock()
	err, left, code := c.state.err, c.state.leaving, c.state.code
	c.mu.Unlock()
	switch {
	case !left:
		return c, nil
	case err == nil: // it is about to be noted
		err = errRetired
	}
	c.fail(err, http2.ErrCodeNo)
	sc.Interrupt()
	c.runs.Wait()
	var malformed *invalid
	switch {
	case errors.As(err, &malformed):
		err = errors.Join(errNoPreface, err)
	case errors.Is(err, errRetired) && code == http2.ErrCodeNo: // nobody else could retire it
		err = ErrLeft
	case errors.Is(err, errRetired):
		err = fmt.Errorf("h2: the target refused the connection: %v", code)
	}
	return nil, err
}

// Reserve takes a place for a call. It reports false when there is none.
func (c *Conn) Reserve() bool {
	for {
		n := c.open.Load()
		if n >= c.room.Load() {
			return false
		}
		if c.open.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Cancel gives a place back that was reserved and is not used.
func (c *Conn) Cancel() { c.vacate() }

// Open returns how many calls the connection has.
func (c *Conn) Open() int { return int(c.open.Load()) }

// Room returns how many calls more the connection may have now.
func (c *Conn) Room() int { return int(max(c.room.Load()-c.open.Load(), 0)) }

// Used reports whether a call has ended on the connection.
func (c *Conn) Used() bool { return c.used.Load() }

// Extended reports whether the target takes extended CONNECT (RFC 8441).
func (c *Conn) Extended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.extended
}

// Left reports whether the connection takes no more calls.
func (c *Conn) Left() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.leaving
}

// SetIdle notes when the connection became idle, on the owner's clock.
func (c *Conn) SetIdle(at time.Duration) { c.idle.Store(int64(at)) }

// Idle returns since when the connection has had no call, on the owner's clock.
func (c *Conn) Idle() time.Duration { return time.Duration(c.idle.Load()) }

// Retire takes no more calls and ends the connection after the last one, at once if there is none.
func (c *Conn) Retire() {
	c.mu.Lock()
	c.leave()
	c.mu.Unlock()
	c.parted()
}

// Wait returns when the connection's goroutines have ended.
func (c *Conn) Wait() { c.runs.Wait() }

// now is the time on the connection's clock, which only moves forward.
func (c *Conn) now() int64 { return int64(c.terms.Clock.Now().Sub(c.base)) }

// leave takes no more calls. The lock is held.
func (c *Conn) leave() {
	c.state.leaving = true
	c.room.Store(0)
}

// parted tells the owner that the connection takes no more calls, and ends it when it has none. No lock is held.
func (c *Conn) parted() {
	c.left.Do(func() { c.owner.Leaving(c) })
	if c.open.Load() == 0 {
		c.fail(errRetired, http2.ErrCodeNo)
	}
}

// vacate gives a place free.
func (c *Conn) vacate() {
	n := c.open.Add(-1)
	switch {
	case c.room.Load() > 0:
		c.owner.Free(c)
	case n == 0:
		c.mu.Lock()
		leaving := c.state.leaving
		c.mu.Unlock()
		if leaving {
			c.parted()
		}
	}
}

// fail ends the connection and with it every call that it has. The target is told why.
func (c *Conn) fail(err error, code http2.ErrCode) {
	c.mu.Lock()
	if c.state.err != nil {
		c.mu.Unlock()
		return
	}
	c.state.err = err
	c.leave()
	n := len(c.state.calls)
	for _, call := range c.state.calls {
		c.drop(call)
		call.end(err)
	}
	c.state.thirsty = nil
	if !c.state.settled {
		close(c.ready)
	}
	c.state.settled = true
	c.keep.stop()
	c.mu.Unlock()
	c.open.Add(int32(-n))
	c.sock.Arm(sock.PhaseWrite, farewell)
	c.out.finish(code)
	c.left.Do(func() { c.owner.Leaving(c) })
}
