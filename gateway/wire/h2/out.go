package h2

import (
	"encoding/binary"
	"runtime"
	"time"

	"golang.org/x/net/http2"

	"headgate/gateway/wire/h2/fields"
	"headgate/internal/sock"
)

const (
	frameHead     = 9          // bytes in front of each frame's payload (RFC 9113 section 4.1)
	initialWindow = 64<<10 - 1 // before SETTINGS and WINDOW_UPDATE say otherwise (section 6.9.2)
	maxWindow     = 1<<31 - 1
	maxStreamID   = 1<<31 - 1
)

// outbound is what waits to be written, in order. Everybody appends under the connection's lock, and whoever finds that
// nobody writes has the duty to: it lets the others go first, so that what they have to say leaves in the same write.
type outbound struct {
	buf     *[]byte // pooled; nil: nothing
	control int     // bytes of it that are no replies
	writing bool    // somebody has the duty
	err     error   // of writing: the connection is broken
	waiters []*stream
	fields  *fields.Encoder
}

func (o *outbound) bytes() *[]byte {
	if o.buf == nil {
		o.buf = sock.Get()
		*o.buf = (*o.buf)[:0]
	}
	return o.buf
}

// room returns how many bytes may be appended before it must be written.
func (o *outbound) room() int {
	if o.buf == nil {
		return sock.LargeBuffer
	}
	return sock.LargeBuffer - len(*o.buf)
}

// take returns what is to be written.
func (o *outbound) take() (buf *[]byte) {
	buf, o.buf, o.control = o.buf, nil, 0
	return buf
}

func (o *outbound) drop() {
	if buf := o.take(); buf != nil {
		sock.Put(buf)
	}
}

// appendFrame appends a frame's first bytes.
func appendFrame(b []byte, length int, kind http2.FrameType, flags http2.Flags, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

// put appends a frame that is no part of a reply.
func (o *outbound) put(kind http2.FrameType, flags http2.Flags, stream uint32, payload ...byte) {
	b := o.bytes()
	*b = append(appendFrame(*b, len(payload), kind, flags, stream), payload...)
	o.control += frameHead + len(payload)
}

func (o *outbound) settings(settings ...http2.Setting) {
	var p []byte
	for _, s := range settings {
		p = binary.BigEndian.AppendUint16(p, uint16(s.ID))
		p = binary.BigEndian.AppendUint32(p, s.Val)
	}
	o.put(http2.FrameSettings, 0, 0, p...)
}

func (o *outbound) windowUpdate(stream uint32, n int64) {
	o.put(http2.FrameWindowUpdate, 0, stream, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func (o *outbound) reset(stream uint32, code http2.ErrCode) {
	o.put(http2.FrameRSTStream, 0, stream, byte(code>>24), byte(code>>16), byte(code>>8), byte(code))
}

func (o *outbound) ping(ack bool, data [8]byte) {
	var flags http2.Flags
	if ack {
		flags = http2.FlagPingAck
	}
	o.put(http2.FramePing, flags, 0, data[:]...)
}

func (o *outbound) goAway(last uint32, code http2.ErrCode, reason string) {
	p := binary.BigEndian.AppendUint32(nil, last)
	p = binary.BigEndian.AppendUint32(p, uint32(code))
	o.put(http2.FrameGoAway, 0, 0, append(p, reason...)...)
}

// encoder returns the connection's, which is made when it is needed first.
func (c *conn) encoder() *fields.Encoder {
	if c.out.fields == nil {
		c.out.fields = fields.NewEncoder()
	}
	return c.out.fields
}

// duty reports whether the caller has to write what has been appended, once it has let go of the lock: see push.
func (c *conn) duty() bool {
	if c.out.writing || c.out.buf == nil {
		return false
	}
	c.out.writing = true
	return true
}

// hand has another goroutine write what has been appended: those who call it must not wait for the client.
func (c *conn) hand() {
	if c.duty() {
		c.server.workers.run(c.shard, job{c: c})
	}
}

// push writes, having given the connection's other streams the chance to say something in the same write. If there is
// still more afterwards somebody else goes on, since the caller has an exchange to end.
func (c *conn) push(others bool) {
	if others {
		runtime.Gosched()
	}
	if c.write() {
		c.server.workers.run(c.shard, job{c: c})
	}
}

// writeAll writes until nothing is left.
func (c *conn) writeAll() {
	for c.write() {
	}
}

// write writes what there is. It reports whether there is more and the duty is still the caller's.
func (c *conn) write() bool {
	c.mu.Lock()
	buf := c.out.take()
	if buf == nil {
		c.unduty()
		c.mu.Unlock()
		return false
	}
	c.deadline.writes(c)
	c.mu.Unlock()
	_, err := c.sock.Write(*buf)
	sock.Put(buf)
	c.mu.Lock()
	c.deadline.wrote(c)
	c.wakeWaiters()
	if err != nil {
		c.out.err, c.dead = err, true
		c.out.drop()
		for _, s := range c.seen.streams {
			s.wake()
		}
	}
	more := c.out.buf != nil
	if !more {
		c.unduty()
	}
	c.mu.Unlock()
	if err != nil {
		c.sock.Interrupt() // which the reader notices, and ends the connection
	}
	return more
}

func (c *conn) unduty() {
	c.out.writing = false
	c.released.Broadcast()
}

// wakeWaiters wakes the streams that wait for room, or for the connection's window.
func (c *conn) wakeWaiters() {
	for i, s := range c.out.waiters {
		s.waits = false
		s.wakeWriter()
		c.out.waiters[i] = nil
	}
	c.out.waiters = c.out.waiters[:0]
}

// deadline is the connection's, of which the socket has one for both directions: while something is written, that is what
// it is for.
type deadline struct {
	kind   deadlineKind
	since  time.Duration // on the coarse clock
	busy   bool          // something is being written
	hasten bool          // the connection ends
}

type deadlineKind uint8

const (
	forNothing deadlineKind = iota
	forRequest              // the connection is idle
	forHead                 // a frame, or the rest of a head
	forData                 // the rest of a DATA frame
)

// set says what the client is waited for. What it has been waited for already takes no more time, but for DATA, of which
// every byte is progress.
func (d *deadline) set(c *conn, kind deadlineKind) {
	if kind == d.kind && kind != forData {
		return
	}
	d.kind, d.since = kind, c.server.Sweeper.Coarse()
	if !d.busy {
		d.arm(c)
	}
}

func (d *deadline) arm(c *conn) {
	var patience time.Duration
	l := c.server.Limits.Load()
	switch d.kind {
	case forNothing:
		c.sock.Disarm()
		return
	case forRequest:
		patience = l.IdleTime
	case forHead:
		patience = l.HeadTime
	case forData:
		patience = l.BodyTime
	}
	if patience == 0 {
		c.sock.Disarm()
		return
	}
	waited := c.server.Sweeper.Coarse() - d.since
	c.sock.Arm(sock.PhaseRead, max(patience-waited, time.Millisecond))
}

func (d *deadline) writes(c *conn) {
	d.busy = true
	patience := c.server.Limits.Load().BodyTime
	if d.hasten {
		patience = lingerTime
	}
	c.sock.Arm(sock.PhaseWrite, patience)
}

func (d *deadline) wrote(c *conn) {
	d.busy = false
	d.arm(c)
}

// hurry leaves no more than lingerTime to what is being written.
func (d *deadline) hurry(c *conn) {
	d.hasten, d.kind = true, forNothing
	if d.busy {
		d.writes(c)
	} else {
		c.sock.Disarm()
	}
}
