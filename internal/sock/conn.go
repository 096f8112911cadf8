// Package sock is a TCP connection as the data plane wants it: reads and writes without the runtime's per-call
// bookkeeping, deadlines by one sweep instead of a timer each, and no buffer held while nothing happens.
package sock

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is one TCP connection. One goroutine may read while another writes.
type Conn struct {
	tcp     *net.TCPConn
	raw     syscall.RawConn
	in, out transfer
	peek    func(fd uintptr) // sets quiet
	quiet   bool
	each    eachState
	ask     askState
	layer   layer

	sweeper     *Sweeper
	prev, next  *Conn // the sweeper's list
	timer       timer
	interrupted atomic.Bool
	end         end

	trusted atomic.Bool   // waiting for news of the peer's end without having looked, see Each
	looking sync.Mutex    // held while the sweeper looks instead
	serving atomic.Uint64 // odd while a request is being answered
	looks   looks
	onGone  func() // called by the sweeper when the peer has gone while serving
}

// end is the closing of a connection, of which there is one.
type end struct {
	closed atomic.Bool
	told   func() // see OnClose; nil: nobody
}

// timer is the one deadline that a connection has at a time.
type timer struct {
	at       atomic.Int64  // on the sweeper's clock; 0: none
	patience atomic.Int64  // how far ahead it was set
	began    atomic.Int64  // when it was set
	phase    atomic.Uint32 // which direction it is for
	expired  atomic.Bool
}

// transfer is one direction: the argument and the result of a system call made inside the runtime's wait loop. The
// closure is made once for each connection, so that a call allocates nothing.
type transfer struct {
	p    []byte
	n    int
	err  error
	call func(fd uintptr) bool
}

// The phases a deadline may be for.
const (
	PhaseRead  uint32 = iota // a read times out; writing still works, for the answer that says so
	PhaseWrite               // a write, and any read beside it
)

// ErrNotTCP says that a connection cannot be driven by raw system calls.
var ErrNotTCP = errors.New("sock: not a TCP connection")

// Watch names what the sweeper calls when the peer has gone, see Serving, before which it must be called.
func (c *Conn) Watch(onGone func()) { c.onGone = onGone }

// OnClose names what is called once when the connection is closed, by the goroutine that does it. It must not wait, and
// is named before anybody else has the connection.
func (c *Conn) OnClose(f func()) { c.end.told = f }

// New takes over an open connection and gives it to the sweeper. onGone may be nil; see Serving.
func New(nc net.Conn, s *Sweeper, onGone func()) (*Conn, error) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil, ErrNotTCP
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{tcp: tcp, raw: raw, sweeper: s, onGone: onGone}
	c.in.call, c.out.call, c.peek, c.each.call, c.ask.call = c.readCall, c.writeCall, c.peekCall, c.eachCall, c.askCall
	s.add(c)
	return c, nil
}

// TCP returns the connection below, for what the kernel relays by itself.
func (c *Conn) TCP() *net.TCPConn { return c.tcp }

// Read reads what is there, waiting for it if nothing is. At the end of the stream it returns 0 and io.EOF.
func (c *Conn) Read(p []byte) (int, error) {
	if c.layer.over != nil {
		n, err := c.layer.over.Read(p)
		return n, c.name(err)
	}
	return c.read(p)
}

// read is Read from the socket.
func (c *Conn) read(p []byte) (int, error) {
	if len(c.layer.ahead) > 0 {
		return c.layer.takeAhead(p), nil
	}
	c.in.p, c.in.n, c.in.err = p, 0, nil
	err := c.raw.Read(c.in.call)
	return c.result(&c.in, err)
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (int, error) {
	if c.layer.over != nil {
		return c.writeOver(p)
	}
	return c.write(p)
}

// write is Write to the socket.
func (c *Conn) write(p []byte) (int, error) {
	c.out.p, c.out.n, c.out.err = p, 0, nil
	if c.each.held && !c.interrupted.Load() && c.writeCall(c.each.fd) {
		return c.result(&c.out, nil)
	}
	call := c.out.call
	if c.layer.closing.Load() {
		call = func(fd uintptr) bool { c.writeCall(fd); return true }
	}
	err := c.raw.Write(call)
	return c.result(&c.out, err)
}

func (c *Conn) readCall(fd uintptr) bool {
	t := &c.in
	if len(t.p) == 0 {
		return true
	}
	var again bool
	t.n, again, t.err = readFD(fd, t.p)
	return !again
}

func (c *Conn) result(t *transfer, err error) (int, error) {
	t.p = nil
	if err == nil {
		err = t.err
	}
	return t.n, c.name(err)
}

// name tells an interruption from a deadline, and a machine that is gone from an end.
func (c *Conn) name(err error) error {
	if err != nil && c.looks.lost.Load() {
		return ErrLost
	}
	if err != nil && c.interrupted.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrInterrupted
	}
	return err
}

// Quiet reports whether an idle connection is open and has nothing to read: one that shows bytes or its end must not be
// used again, since what it says was not asked for, and neither must one that expired or was interrupted at the last
// moment of its last use.
func (c *Conn) Quiet() bool {
	c.quiet = false
	if c.timer.expired.Load() || c.interrupted.Load() || len(c.layer.ahead) > 0 {
		return false
	}
	look := c.peek
	if c.layer.over != nil {
		look = c.quietOver
	}
	return c.raw.Control(look) == nil && c.quiet
}

// ErrInterrupted is returned by what was blocked when the connection was interrupted.
var ErrInterrupted = errors.New("sock: interrupted")

// Close closes the connection. Closing twice is harmless.
func (c *Conn) Close() error {
	if c.end.closed.Swap(true) {
		return nil
	}
	c.endOver()
	c.sweeper.remove(c)
	if c.end.told != nil {
		c.end.told()
	}
	return c.tcp.Close()
}

// CloseWrite ends the sending side, so that the peer reads everything that was sent before it sees the end.
func (c *Conn) CloseWrite() error {
	c.endOver()
	return c.tcp.CloseWrite()
}

// Reset closes the connection so that the peer learns that it did not end well.
func (c *Conn) Reset() {
	_ = c.tcp.SetLinger(0) // best effort: without it the peer sees an ordinary end of a message cut short
	c.layer.closing.Store(true)
	_ = c.Close()
}

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.tcp.RemoteAddr() }

// past is a time at which everything has expired.
var past = time.Unix(1, 0)

// Interrupt unblocks whatever waits on the connection, which is of no use afterwards.
func (c *Conn) Interrupt() {
	c.interrupted.Store(true)
	_ = c.tcp.SetDeadline(past) // fails only on a closed connection, where nothing waits
}

// Interrupted reports whether Interrupt was called.
func (c *Conn) Interrupted() bool { return c.interrupted.Load() }

// WakeReader unblocks a waiting read; see Rearm for making reads possible again.
func (c *Conn) WakeReader() { _ = c.tcp.SetReadDeadline(past) }

// Rearm makes reads possible again after WakeReader.
func (c *Conn) Rearm() { _ = c.tcp.SetReadDeadline(time.Time{}) }

// Arm lets what the phase says time out when d has passed. A d of 0 disarms.
func (c *Conn) Arm(phase uint32, d time.Duration) {
	if d == 0 {
		c.timer.at.Store(0)
		return
	}
	at := c.sweeper.deadline(d)
	c.timer.phase.Store(phase)
	c.timer.patience.Store(int64(d))
	c.timer.began.Store(at - int64(d))
	c.timer.at.Store(at)
	c.sweeper.expect(at)
}

// leastWriteRate, in bytes per second, stops a peer that reads a byte now and then in order to hold the connection.
const leastWriteRate = 240

// progress starts an armed write's time anew, since the peer takes bytes, but for no longer in all than the bytes that it
// has taken are worth.
func (c *Conn) progress() {
	d := time.Duration(c.timer.patience.Load())
	if d == 0 || c.timer.phase.Load() != PhaseWrite || c.timer.at.Load() == 0 {
		return
	}
	worth := d + time.Duration(c.out.n)*time.Second/leastWriteRate
	c.timer.at.Store(min(c.sweeper.deadline(d), c.timer.began.Load()+int64(worth)))
}

// Disarm takes the deadline away.
func (c *Conn) Disarm() { c.timer.at.Store(0) }

// Now returns the time on the sweeper's clock.
func (c *Conn) Now() time.Duration { return c.sweeper.Now() }

// DisarmRead takes the deadline of a read away, and leaves that of a write which somebody has armed meanwhile.
func (c *Conn) DisarmRead() {
	if at := c.timer.at.Load(); c.timer.phase.Load() == PhaseRead {
		c.timer.at.CompareAndSwap(at, 0)
	}
}

// Expired reports whether an armed deadline has passed. The connection is of no use afterwards, but for a last write
// after a read timed out.
func (c *Conn) Expired() bool { return c.timer.expired.Load() }

// expire is called by the sweeper for a connection whose deadline had passed; it may have been armed anew since.
func (c *Conn) expire(now int64) {
	at := c.timer.at.Load()
	if at == 0 || at > now {
		return
	}
	if d := time.Duration(c.timer.patience.Load()); c.timer.phase.Load() == PhaseWrite && c.takes(d) {
		if again := now + int64(d); c.timer.at.CompareAndSwap(at, again) {
			c.sweeper.expect(again)
		}
		return
	}
	if !c.timer.at.CompareAndSwap(at, 0) {
		return
	}
	c.timer.expired.Store(true)
	if c.timer.phase.Load() == PhaseRead {
		_ = c.tcp.SetReadDeadline(past)
		return
	}
	_ = c.tcp.SetDeadline(past)
}

// Serving says that from now until Served a peer that closes its side is gone: the sweeper looks every second and calls
// onGone. One that gets its answer within that second was never noticed, so a client may close its sending side early.
func (c *Conn) Serving() { c.serving.Add(1) }

// Served ends Serving.
func (c *Conn) Served() { c.serving.Add(1) }

// unassured reports whether the connection waits on trust, and nobody has looked since it does.
func (c *Conn) unassured() bool { return c.trusted.Load() && c.each.waits.Load() != c.each.assured }

// lookForEnd ends the wait of an Each that would not hear of the end of the stream.
func (c *Conn) lookForEnd() {
	c.looking.Lock()
	defer c.looking.Unlock()
	which := c.each.waits.Load()
	if !c.trusted.Load() {
		return
	}
	if !c.peerClosed() {
		c.each.assured = which
		return
	}
	if c.trusted.Swap(false) {
		c.WakeReader()
	}
}

// checkGone is called by the sweeper.
func (c *Conn) checkGone(at int64) {
	if c.looks.unsettled() {
		c.checkAcks(at)
	}
	c.lookForEnd()
	now := c.serving.Load()
	inFlight := now&1 == 1 && now == c.looks.served
	c.looks.served = now
	if inFlight && c.onGone != nil && c.peerClosed() && c.serving.Load() == now {
		c.onGone()
	}
}
