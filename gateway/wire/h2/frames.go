package h2

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h2/fields"
	"headgate/internal/sock"
)

// inbound is what the reading goroutine alone uses.
type inbound struct {
	sock.Reader
	prefaced bool     // the client's preface has been read
	settled  bool     // and its first SETTINGS
	framing  *framing // nil while nothing is read
	fields   *hpack.Decoder
	block    block
	trailer  exchange.Header
	fresh    []*stream // to be carried when all that was read has been looked at
	canceled []*stream // to be told so, without the lock; pinned
}

// framing is a Framer that reads frames from memory.
type framing struct {
	frame  []byte
	framer *http2.Framer
}

// Read implements io.Reader.
func (f *framing) Read(p []byte) (int, error) {
	if len(f.frame) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, f.frame)
	f.frame = f.frame[n:]
	return n, nil
}

var framings = sync.Pool{New: func() any {
	f := new(framing)
	f.framer = http2.NewFramer(nil, f)
	f.framer.SetReuseFrames()
	f.framer.SetMaxReadFrameSize(maxFrame)
	return f
}}

// drop gives the framer back unless it is in the middle of a head, whose CONTINUATION frames it watches. It is not called
// for one that has refused a frame.
func (in *inbound) drop() {
	if in.framing != nil && !in.block.open {
		in.framing.frame = nil
		framings.Put(in.framing)
		in.framing = nil
	}
}

var preface = []byte(http2.ClientPreface)

// awaitMore prepares for reading more.
func (c *conn) awaitMore() {
	kind := forNothing
	b := c.in.Buffered()
	switch {
	case c.in.block.open, !c.in.settled, len(b) > 0:
		kind = forHead
		if len(b) >= frameHead && http2.FrameType(b[3]) == http2.FrameData {
			kind = forData
		}
	}
	if len(b) > 0 {
		c.in.Enlarge()
	} else {
		c.in.Release()
		c.in.drop()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if kind == forNothing && len(c.seen.streams) == 0 {
		kind = forRequest
	}
	c.deadline.set(c, kind)
}

// frames takes the frames that have arrived whole. It returns false when the connection has to end.
func (c *conn) frames() bool {
	if !c.in.prefaced {
		b := c.in.Buffered()
		n := min(len(b), len(preface))
		if !bytes.Equal(b[:n], preface[:n]) {
			return c.failed(http2.ErrCodeProtocol, "the connection does not begin with the preface of HTTP/2")
		}
		if n < len(preface) {
			return true
		}
		c.in.prefaced = true
		c.in.Discard(n)
	}
	for {
		b := c.in.Buffered()
		if len(b) < frameHead {
			return true
		}
		length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if length > maxFrame {
			return c.failed(http2.ErrCodeFrameSize, "a frame is too large")
		}
		if len(b) < frameHead+length {
			return true
		}
		c.in.Discard(frameHead + length)
		if !c.frame(b[:frameHead+length]) {
			return false
		}
	}
}

func (c *conn) failed(code http2.ErrCode, reason string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fail(code, reason)
}

// frame takes one frame.
func (c *conn) frame(b []byte) bool {
	f := c.in.framing
	if f == nil {
		f = framings.Get().(*framing)
		c.in.framing = f
	}
	f.frame = b
	kind, id := http2.FrameType(b[3]), be32(b[5:])&maxStreamID
	frame, err := f.framer.ReadFrame()
	if err != nil {
		return c.badFrame(kind, id, err)
	}
	if !c.in.settled {
		s, ok := frame.(*http2.SettingsFrame)
		if !ok || s.IsAck() {
			return c.failed(http2.ErrCodeProtocol, "the first frame is not SETTINGS")
		}
		c.in.settled = true
	}
	switch frame := frame.(type) {
	case *http2.HeadersFrame:
		return c.headers(frame)
	case *http2.ContinuationFrame:
		return c.continuation(frame)
	case *http2.DataFrame:
		return c.data(frame)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	switch frame := frame.(type) {
	case *http2.WindowUpdateFrame:
		return c.spend(windowFlood) && c.windowUpdate(id, int64(frame.Increment))
	case *http2.RSTStreamFrame:
		return c.resetByClient(id)
	case *http2.SettingsFrame:
		return c.settings(frame)
	case *http2.PingFrame:
		return c.ping(frame)
	case *http2.PriorityFrame:
		if frame.StreamDep == id {
			return c.spend(priorityFlood) && c.resetStream(id, http2.ErrCodeProtocol)
		}
		return c.spend(priorityFlood)
	case *http2.GoAwayFrame:
		c.peer.left = true
		c.settle()
		return c.spend(unknownFlood)
	case *http2.PushPromiseFrame:
		return c.fail(http2.ErrCodeProtocol, "clients do not push")
	}
	return c.spend(unknownFlood) // of a type that we do not know (RFC 9113 section 5.5)
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// badFrame answers a frame that the framer refuses.
func (c *conn) badFrame(kind http2.FrameType, id uint32, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ofStream http2.StreamError
	if errors.As(err, &ofStream) && kind != http2.FrameHeaders && kind != http2.FrameContinuation && c.in.settled {
		if ofStream.StreamID > c.seen.last {
			return c.fail(http2.ErrCodeProtocol, "a frame is for a stream that was never opened")
		}
		return c.resetStream(ofStream.StreamID, ofStream.Code)
	}
	code, reason := http2.ErrCodeProtocol, "a frame is malformed"
	var ofConn http2.ConnectionError
	if errors.As(err, &ofConn) {
		code = http2.ErrCode(ofConn)
	}
	if detail := c.in.framing.framer.ErrorDetail(); detail != nil {
		reason = detail.Error()
	}
	return c.fail(code, reason)
}

// settings takes the client's settings (RFC 9113 section 6.5.2).
func (c *conn) settings(f *http2.SettingsFrame) bool {
	if f.IsAck() {
		if c.peer.confirmed {
			return c.spend(settingsFlood)
		}
		c.peer.confirmed = true
		return true
	}
	if !c.spend(settingsFlood) {
		return false
	}
	for i := range f.NumSettings() {
		if !c.setting(f.Setting(i)) {
			return false
		}
	}
	c.out.put(http2.FrameSettings, http2.FlagSettingsAck, 0)
	return true
}

func (c *conn) setting(s http2.Setting) bool {
	if err := s.Valid(); err != nil {
		code := http2.ErrCodeProtocol
		var ofConn http2.ConnectionError
		if errors.As(err, &ofConn) {
			code = http2.ErrCode(ofConn)
		}
		return c.fail(code, "a setting is out of range")
	}
	switch s.ID {
	case http2.SettingHeaderTableSize:
		c.encoder().Resize(int(min(s.Val, fields.MaxTable)))
	case http2.SettingMaxFrameSize:
		c.peer.frame = int(s.Val)
	case http2.SettingInitialWindowSize:
		more := int64(s.Val) - c.peer.initial
		c.peer.initial = int64(s.Val)
		for _, s := range c.seen.streams {
			if s.window += more; s.window > maxWindow {
				return c.fail(http2.ErrCodeFlowControl, "the initial window makes a stream's too large")
			}
			s.wakeWriter()
		}
	}
	return true
}

func (c *conn) ping(f *http2.PingFrame) bool {
	if !f.IsAck() {
		if !c.spend(pingFlood) {
			return false
		}
		c.out.ping(true, f.Data)
		return true
	}
	if f.Data == goodbyePing && c.parting == announced {
		c.sayFinal(http2.ErrCodeNo, "")
		c.settle()
		return true
	}
	return c.spend(pingFlood)
}

func (c *conn) windowUpdate(id uint32, n int64) bool {
	if id == 0 {
		if c.peer.window += n; c.peer.window > maxWindow {
			return c.fail(http2.ErrCodeFlowControl, "the connection's window is too large")
		}
		c.wakeWaiters()
		return true
	}
	s := c.seen.streams[id]
	if s == nil {
		if id > c.seen.last {
			return c.fail(http2.ErrCodeProtocol, "WINDOW_UPDATE for a stream that was never opened")
		}
		return true // it may have been on its way when the stream ended
	}
	if s.window += n; s.window > maxWindow {
		return c.resetStream(id, http2.ErrCodeFlowControl)
	}
	s.wakeWriter()
	return true
}
