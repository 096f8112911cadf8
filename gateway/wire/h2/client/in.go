package client

import (
	"errors"
	"io"
	"time"

	"golang.org/x/net/http2"

	"headgate/internal/sock"
)

// inbound is the reading goroutine's.
type inbound struct {
	conn   *Conn
	reader sock.Reader
	framer *http2.Framer
	block  block
	purse  int64         // frames that carry nothing which the target may still send
	paid   int64         // of out.spent, what has been put into the purse
	filled time.Duration // the second for which the purse was filled
	large  bool          // the last read filled a small buffer
	began  bool          // the first frame has come
}

func (in *inbound) begin(c *Conn) {
	in.conn = c
	in.reader.Conn = c.sock
	in.framer = http2.NewFramer(io.Discard, in)
	in.framer.SetReuseFrames()
	in.framer.SetMaxReadFrameSize(frameSize)
	in.block.begin(c.terms)
	in.purse = chatter
}

// Read implements io.Reader for the framer: what has arrived, or what comes next.
func (in *inbound) Read(p []byte) (int, error) {
	if len(in.reader.Buffered()) == 0 {
		if in.large {
			in.reader.Enlarge()
		} else {
			in.reader.ReleaseEmpty()
		}
		if err := in.reader.Fill(sock.LargeBuffer); err != nil {
			return 0, err
		}
		in.large = len(in.reader.Buffered()) >= sock.SmallBuffer
		in.conn.heard.Add(1)
	}
	n := copy(p, in.reader.Buffered())
	in.reader.Discard(n)
	return n, nil
}

// read is the reading goroutine.
func (c *Conn) read() {
	defer c.in.reader.Release()
	for {
		if err := c.in.next(); err != nil && !c.forgive(err) {
			return
		}
	}
}

// forgive ends what an error is about, and reports whether that is one stream alone.
func (c *Conn) forgive(err error) bool {
	var stream http2.StreamError
	if !errors.As(err, &stream) {
		c.unread(err)
		return false
	}
	if !c.abandon(stream.StreamID, bad("a frame is in error: "+stream.Error()), stream.Code) {
		c.fail(errControl, http2.ErrCodeEnhanceYourCalm)
		return false
	}
	return true
}

// next reads a frame and takes it.
func (in *inbound) next() error {
	h, err := in.framer.ReadFrameHeader()
	if err != nil {
		return err
	}
	f, err := in.framer.ReadFrameForHeader(h)
	if err == nil {
		return in.frame(f)
	}
	if _, ok := err.(http2.StreamError); ok && h.Type == http2.FrameHeaders {
		return http2.ConnectionError(http2.ErrCodeProtocol) // its fields are lost, and with them the HPACK table
	}
	return err
}

// unread is called when nothing more can be read. What the target did wrong is told to it.
func (c *Conn) unread(err error) {
	var connection http2.ConnectionError
	var malformed *invalid
	var coded *codedError
	switch {
	case errors.As(err, &coded):
		c.fail(coded.invalid, coded.code)
	case errors.As(err, &malformed):
		c.fail(err, http2.ErrCodeProtocol)
	case errors.As(err, &connection):
		reason := "a frame is in error: " + connection.Error()
		if detail := c.in.framer.ErrorDetail(); detail != nil {
			reason = detail.Error()
		}
		c.fail(bad(reason), http2.ErrCode(connection))
	case errors.Is(err, http2.ErrFrameTooLarge):
		c.fail(bad("a frame is larger than allowed, or no frame at all"), http2.ErrCodeFrameSize)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		c.fail(errEnded, http2.ErrCodeNo)
	default:
		c.fail(errors.Join(errEnded, err), http2.ErrCodeNo)
	}
}

// codedError ends the connection with another code than PROTOCOL_ERROR.
type codedError struct {
	*invalid
	code http2.ErrCode
}

func flood(e *invalid) error { return &codedError{e, http2.ErrCodeEnhanceYourCalm} }

// frame takes a frame into what it is for. An error ends the connection, but for an http2.StreamError.
func (in *inbound) frame(f http2.Frame) error {
	if !in.began {
		in.began = true
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			return errNoPreface
		}
	}
	c := in.conn
	switch f := f.(type) {
	case *http2.DataFrame:
		return in.data(f)
	case *http2.HeadersFrame:
		return in.fragment(f.StreamID, f.HeaderBlockFragment(), f.StreamEnded(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		return in.continuation(f)
	case *http2.WindowUpdateFrame:
		if err := in.idleChatter(); err != nil {
			return err
		}
		return c.opened(f.StreamID, int64(f.Increment))
	case *http2.RSTStreamFrame:
		if err := in.idleChatter(); err != nil {
			return err
		}
		return c.wasReset(f.StreamID, f.ErrCode)
	case *http2.SettingsFrame:
		return in.settings(f)
	case *http2.PingFrame:
		if err := in.idleChatter(); err != nil || f.IsAck() {
			return err
		}
		return answered(c.out.ping(true, f.Data))
	case *http2.GoAwayFrame:
		c.goAway(f.LastStreamID, f.ErrCode)
		return in.idleChatter()
	case *http2.PushPromiseFrame:
		return errPush
	}
	return in.idleChatter() // PRIORITY, and what we do not know (RFC 9113 section 4.1)
}

func answered(ok bool) error {
	if !ok {
		return flood(errControl)
	}
	return nil
}

// idleChatter counts a frame that carries nothing of a call.
func (in *inbound) idleChatter() error {
	if in.purse--; in.purse > 0 {
		return nil
	}
	second := time.Duration(in.conn.now()).Truncate(time.Second)
	in.purse += int64((second-in.filled)/time.Second) * chatterPerSecond
	in.filled = second
	in.conn.out.mu.Lock()
	spent := in.conn.out.spent
	in.conn.out.mu.Unlock()
	in.purse += (spent - in.paid) * chatterEarned
	in.paid = spent
	if in.purse = min(in.purse, chatter); in.purse <= 0 {
		return flood(errFlood)
	}
	return nil
}

// content counts a frame that does.
func (in *inbound) content() { in.purse = min(in.purse+chatterEarned, chatter) }

// opened takes a WINDOW_UPDATE. A stream that is not there any more has no use for it.
func (c *Conn) opened(id uint32, n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.state
	if id == 0 {
		if s.window += n; s.window > 1<<31-1 {
			return &codedError{errWindowUpdate, http2.ErrCodeFlowControl}
		}
		for i, call := range s.thirsty {
			call.outNews()
			s.thirsty[i] = nil
		}
		s.thirsty = s.thirsty[:0]
		return nil
	}
	call := s.calls[id]
	if call == nil {
		return c.known(id)
	}
	if call.out.window += n; call.out.window > 1<<31-1 {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeFlowControl}
	}
	call.outNews()
	return nil
}

// known refuses frames for streams that were never opened. The lock is held.
func (c *Conn) known(id uint32) error {
	if id%2 == 0 || id > c.state.highest {
		return errStreamID
	}
	return nil
}

// wasReset takes the end of a stream by the target (RFC 9113 section 5.4.2).
func (c *Conn) wasReset(id uint32, code http2.ErrCode) error {
	c.mu.Lock()
	call := c.state.calls[id]
	if call == nil {
		err := c.known(id)
		c.mu.Unlock()
		return err
	}
	var err error = &resetError{code}
	if code == http2.ErrCodeRefusedStream {
		err = errRefused
	}
	c.drop(call)
	call.end(err)
	c.mu.Unlock()
	c.vacate()
	return nil
}

// resetError is a stream that the target has reset after it may have done something.
type resetError struct{ code http2.ErrCode }

// Error names the code.
func (e *resetError) Error() string { return "h2: the target reset the stream: " + e.code.String() }

// goAway takes no more calls and lets those go that the target has not processed.
func (c *Conn) goAway(last uint32, code http2.ErrCode) {
	c.mu.Lock()
	c.leave()
	c.state.code = code
	n := 0
	for id, call := range c.state.calls {
		if id > last {
			c.drop(call)
			call.end(errRefused)
			n++
		}
	}
	c.mu.Unlock()
	c.open.Add(int32(-n))
	c.parted()
}

// abandon ends one call because of what the target did, and resets its stream. It reports false when the target does not
// read what it is told.
func (c *Conn) abandon(id uint32, why error, code http2.ErrCode) bool {
	c.mu.Lock()
	call := c.state.calls[id]
	if call != nil {
		c.drop(call)
		call.end(why)
	}
	c.mu.Unlock()
	ok := c.out.reset(id, code)
	if call != nil {
		c.vacate()
	}
	return ok
}

// data takes a piece of a reply's body.
func (in *inbound) data(f *http2.DataFrame) error {
	c, n, p := in.conn, int64(f.Length), f.Data()
	if len(p) == 0 && !f.StreamEnded() {
		if err := in.idleChatter(); err != nil {
			return err
		}
	} else {
		in.content()
	}
	c.mu.Lock()
	s := &c.state
	if s.received -= n; s.received < 0 {
		c.mu.Unlock()
		return &codedError{errWindow, http2.ErrCodeFlowControl}
	}
	var all int64
	if s.owed += n; s.owed >= connWindow/2 {
		all, s.owed = s.owed, 0
		s.received += all
	}
	id := f.StreamID
	call := s.calls[id]
	if call == nil {
		err := c.known(id)
		c.mu.Unlock()
		if err == nil {
			err = in.idleChatter() // of a stream that we have given up
		}
		return errors.Join(err, answered(c.out.give(all, 0, 0)))
	}
	share, why := call.take(p, n, f.StreamEnded())
	done := why == nil && call.finished()
	if done {
		delete(s.calls, id)
	}
	c.mu.Unlock()
	ok := c.out.give(all, id, share)
	switch {
	case why == errWindow:
		return &codedError{errWindow, http2.ErrCodeFlowControl}
	case why != nil:
		ok = c.abandon(id, why, http2.ErrCodeProtocol) && ok
	case done:
		c.used.Store(true)
		c.vacate()
	}
	return answered(ok)
}
