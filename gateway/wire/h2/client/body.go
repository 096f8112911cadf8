package client

import (
	"io"
	"sync"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
	"headgate/internal/sock"
)

// enter puts a call into the connection's list. Out's lock is held, so that streams begin in the order of their numbers.
func (c *Conn) enter(call *Call, id uint32, bare bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.state
	if s.leaving || id > maxStreamID {
		return errRefused
	}
	header, trailer := call.in.header, call.in.trailer
	putBuffer(call.in.filled) // of a try that failed
	call.conn, call.id = c, id
	call.in = arrival{
		active: true, header: header, trailer: trailer, size: -1, left: -1, window: startWindow, share: startWindow,
	}
	call.in.header.Reset("")
	call.in.trailer.Reset("")
	call.out = departure{window: s.initial, ended: bare}
	s.calls[id], s.highest = call, id
	now := c.now()
	c.keep.opened(now, len(s.calls) == 1)
	if call.whole {
		call.in.due = now + int64(call.plan.Response)
		c.keep.expect(now, call.in.due)
	}
	return nil
}

// drop takes a call out of the connection's list. The lock is held; the caller gives its place free.
func (c *Conn) drop(call *Call) {
	delete(c.state.calls, call.id)
	call.in.active = false
	call.in.due, call.out.due = 0, 0
}

// fields takes a complete field section. The connection's lock is held.
func (c *Call) fields(b *block) error {
	in := &c.in
	in.begun = true
	switch {
	case in.ended:
		return errDataLate
	case in.status != 0:
		return c.trailers(b)
	case b.status == 0:
		return errNoStatus
	case b.status < 200:
		return c.inform(b)
	case b.status == 204 && b.length > 0:
		return errBodiless
	}
	in.status, in.size, in.left = b.status, b.length, b.length
	in.header, b.header = b.header, in.header
	if !h1.HasBody(c.method, in.status) {
		in.left = -1
	}
	if c.tunnel && in.status < 300 {
		in.tunnel, in.size, in.left = true, -1, -1
	}
	if b.end && in.left > 0 {
		return errLengthMismatch
	}
	in.ended = b.end
	c.inNews()
	return nil
}

// inform takes an informational reply.
func (c *Call) inform(b *block) error {
	in := &c.in
	if in.informs++; in.informs > maxInformational || b.status == 101 || b.end {
		return errInformational
	}
	if b.length > 0 {
		return errBodiless
	}
	i := informed{status: b.status}
	i.header.CopyFrom(&b.header)
	in.informed = append(in.informed, i)
	c.inNews()
	return nil
}

// trailers takes the trailer section. Fields that would change what has been decided already are dropped.
func (c *Call) trailers(b *block) error {
	in := &c.in
	switch {
	case !b.end:
		return errTrailerOpen
	case b.status != 0:
		return errPseudo
	case in.left > 0:
		return errLengthMismatch
	}
	b.header.DelFunc(func(name, _ string) bool { return h1.ForbiddenInTrailer(name) })
	in.trailer, b.header = b.header, in.trailer
	in.ended = true
	c.inNews()
	return nil
}

// take takes a piece p of the body out of a frame that counts as n against the windows. share is what of the stream's
// window is given back at once. The connection's lock is held.
func (c *Call) take(p []byte, n int64, end bool) (share int64, why error) {
	in := &c.in
	switch {
	case in.ended:
		return 0, errDataLate
	case in.status == 0:
		return 0, errDataEarly
	}
	if in.window -= n; in.window < 0 {
		return 0, errWindow
	}
	if in.err != nil { // given up: nobody reads
		return 0, nil
	}
	if len(p) > 0 {
		if in.left >= 0 {
			if in.left -= int64(len(p)); in.left < 0 {
				return 0, errLengthMismatch
			}
		} else if !in.tunnel && !h1.HasBody(c.method, in.status) {
			return 0, errBodiless
		}
		in.filled = appendBuffer(in.filled, p)
	}
	if end && in.left > 0 {
		return 0, errLengthMismatch
	}
	if in.ended = end; end {
		in.owed = 0
	} else if padding := n - int64(len(p)); padding > 0 {
		in.window += padding
		share = padding
	}
	c.inNews()
	return share, nil
}

// finished reports whether both sides have said everything, and then takes the call off the connection. The lock is held.
func (c *Call) finished() bool {
	if !c.in.ended || !c.out.ended {
		return false
	}
	c.in.active = false
	c.in.due, c.out.due = 0, 0
	return true
}

// Next implements exchange.Piecewise. The last piece may come together with io.EOF; the trailers are in place then.
func (c *Call) Next() ([]byte, error) {
	r := &c.read
	if p := r.rest; len(p) > 0 {
		r.rest = nil
		return p, nil
	}
	if r.done != nil {
		return nil, r.done
	}
	return c.pull()
}

// Read implements io.Reader.
func (c *Call) Read(p []byte) (int, error) {
	r := &c.read
	if len(r.rest) == 0 {
		if r.done != nil {
			return 0, r.done
		}
		if len(p) == 0 {
			return 0, nil
		}
		var err error
		if r.rest, err = c.pull(); len(r.rest) == 0 {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// pull waits for something to be there and takes all of it.
func (c *Call) pull() ([]byte, error) {
	in, r, conn := &c.in, &c.read, c.conn
	conn.mu.Lock()
	share := c.consumed(int64(len(r.held)))
	for len(in.filled) == 0 && !in.ended && in.err == nil {
		if !in.tunnel {
			now := conn.now()
			in.due, in.steps = now+int64(c.plan.Idle), c.out.steps
			conn.keep.expect(now, in.due)
		}
		conn.mu.Unlock()
		if share > 0 {
			conn.open1(c, share)
			share = 0
		}
		<-c.news
		conn.mu.Lock()
	}
	in.due = 0
	r.held, in.filled = in.filled, r.held[:0]
	broken := in.err
	if broken == nil && in.ended {
		r.done = io.EOF
		*r.trailer, in.trailer = in.trailer, *r.trailer
	}
	conn.mu.Unlock()
	if broken != nil && len(r.held) == 0 { // not under the lock, which whoever cancels asks for
		r.done = failure(c.cancel, broken, true)
	}
	if share > 0 {
		conn.open1(c, share)
	}
	return r.held, r.done
}

// open1 opens the window of one stream.
func (c *Conn) open1(call *Call, share int64) {
	if !c.out.give(0, call.id, share) {
		c.fail(errControl, http2.ErrCodeEnhanceYourCalm)
	}
}

// consumed returns by how much the target may send more, n bytes having been read. A reader who has emptied everything
// keeps up, and gets a larger window. The lock is held.
func (c *Call) consumed(n int64) (share int64) {
	in, s := &c.in, &c.conn.state
	if in.owed += n; in.owed < in.share/2 || in.ended || !in.active {
		return 0
	}
	share, in.owed = in.owed, 0
	if extra := in.share; len(in.filled) == 0 && 2*extra <= maxWindow && s.grown+extra <= maxGrown {
		in.share += extra
		s.grown += extra
		share += extra
	}
	in.window += share
	return share
}

// smallBuffer holds most replies.
const smallBuffer = 4 << 10

var smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}

// appendBuffer appends to a buffer of the pools, which it replaces by a larger one when it is full.
func appendBuffer(b, p []byte) []byte {
	need := len(b) + len(p)
	if need <= cap(b) {
		return append(b, p...)
	}
	larger := takeBuffer(max(need, min(2*cap(b), maxWindow)))[:0]
	larger = append(append(larger, b...), p...)
	putBuffer(b)
	return larger
}

// takeBuffer returns n bytes, from the pools if they have such.
func takeBuffer(n int) []byte {
	switch {
	case n <= smallBuffer:
		return smallBuffers.Get().(*[smallBuffer]byte)[:n]
	case n <= sock.LargeBuffer:
		return (*sock.Get())[:n]
	}
	return make([]byte, n)
}

func putBuffer(b []byte) {
	switch cap(b) {
	case smallBuffer:
		smallBuffers.Put((*[smallBuffer]byte)(b[:smallBuffer]))
	case sock.LargeBuffer:
		whole := b[:sock.LargeBuffer] // a variable of its own, since it escapes
		sock.Put(&whole)
	}
}

// switched is a call that has become a stream of bytes both ways.
type switched struct{ *Call }

// Write implements io.Writer.
func (s switched) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.push(p, false); err != nil {
		return 0, failure(s.cancel, err, true)
	}
	return len(p), nil
}

// CloseWrite ends our side.
func (s switched) CloseWrite() error {
	if err := s.push(nil, true); err != nil {
		return failure(s.cancel, err, true)
	}
	return nil
}

var _ exchange.Stream = switched{}
