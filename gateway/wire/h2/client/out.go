package client

import (
	"runtime"
	"sync"

	"golang.org/x/net/http2"

	"headgate/gateway/wire/h2/fields"
	"headgate/internal/sock"
)

// outbound is what is going to be written. Whoever has a frame appends it; the writing goroutine takes all of them at
// once.
type outbound struct {
	mu      sync.Mutex
	buf     []byte
	framer  *http2.Framer // appends to buf
	fields  *fields.Encoder
	block   []byte // a field section
	next    uint32 // stream identifier
	control int    // bytes in buf that the target made us say
	spent   int64  // content frames written, for the reader's purse
	asleep  bool   // the writer waits
	ended   bool   // nothing more is taken
	wake    chan struct{}
	crowd   []*Call // who wait for room
}

func (o *outbound) begin() {
	o.framer = http2.NewFramer(o, nil)
	o.fields = fields.NewEncoder()
	o.next, o.wake = 1, make(chan struct{}, 1)
}

// Write implements io.Writer for the framer. The lock is held.
func (o *outbound) Write(p []byte) (int, error) {
	o.buf = append(o.buf, p...)
	return len(p), nil
}

// preface is what we say first (RFC 9113 section 3.4).
func (o *outbound) preface(terms *Terms) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, http2.ClientPreface...)
	_ = o.framer.WriteSettings( // writing to memory does not fail, here and below
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(terms.Head)},
	)
	_ = o.framer.WriteWindowUpdate(0, connWindow-startWindow)
}

// signal wakes the writer. The lock is held.
func (o *outbound) signal() {
	if o.asleep {
		o.asleep = false
		o.wake <- struct{}{}
	}
}

// say appends frames that the target made us say, and reports whether it still reads them.
func (o *outbound) say(frames func(f *http2.Framer)) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return true
	}
	before := len(o.buf)
	frames(o.framer)
	o.control += len(o.buf) - before
	o.signal()
	return o.control <= maxControl
}

func (o *outbound) ping(ack bool, data [8]byte) bool {
	return o.say(func(f *http2.Framer) { _ = f.WritePing(ack, data) })
}

func (o *outbound) reset(id uint32, code http2.ErrCode) bool {
	return o.say(func(f *http2.Framer) { _ = f.WriteRSTStream(id, code) })
}

// give opens windows: the connection's by all, and a stream's by its share.
func (o *outbound) give(all int64, id uint32, share int64) bool {
	if all == 0 && share == 0 {
		return true
	}
	return o.say(func(f *http2.Framer) {
		if all > 0 {
			_ = f.WriteWindowUpdate(0, uint32(all))
		}
		if share > 0 {
			_ = f.WriteWindowUpdate(id, uint32(share))
		}
	})
}

// finish says goodbye behind everything that is there, and takes nothing more.
func (o *outbound) finish(code http2.ErrCode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	_ = o.framer.WriteGoAway(0, code, nil) // we have taken no stream of the target's
	o.ended = true
	o.release()
	o.signal()
}

// release lets those go on who wait for room. The lock is held.
func (o *outbound) release() {
	for i, call := range o.crowd {
		call.outNews()
		o.crowd[i] = nil
	}
	o.crowd = o.crowd[:0]
}

// data appends a piece of a body, and waits when there is no room. It returns false when the caller has to look first
// whether its call has ended.
func (o *outbound) data(call *Call, p []byte, end bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.ended:
		return true
	case len(o.buf) > maxPending:
		o.crowd = append(o.crowd, call)
		return false
	}
	_ = o.framer.WriteData(call.id, end, p)
	o.spent++
	o.signal()
	return true
}

// take hands everything over to the writer, which waits for something to be there. It returns false at the end.
func (o *outbound) take(spare []byte, shared func() bool) ([]byte, bool) {
	o.mu.Lock()
	for len(o.buf) == 0 {
		if o.ended {
			o.mu.Unlock()
			return nil, false
		}
		if cap(o.buf) > keptBuffer {
			o.buf = nil
		}
		o.asleep = true
		o.mu.Unlock()
		<-o.wake
		o.mu.Lock()
	}
	if len(o.buf) < frameSize && shared() {
		o.mu.Unlock()
		runtime.Gosched() // those who can run are about to add theirs: one write instead of many
		o.mu.Lock()
	}
	batch := o.buf
	o.buf, o.control = spare[:0], 0
	o.release()
	o.mu.Unlock()
	return batch, true
}

// write is the writing goroutine. It closes the socket at the end.
func (c *Conn) write() {
	defer c.sock.Close()
	shared := func() bool { return c.open.Load() > 1 }
	var spare []byte
	for {
		batch, more := c.out.take(spare, shared)
		if !more {
			return
		}
		patience := c.terms.Idle
		if c.out.over() {
			patience = min(patience, farewell)
		}
		c.sock.Arm(sock.PhaseWrite, patience)
		_, err := c.sock.Write(batch)
		c.sock.Disarm()
		if err != nil {
			if c.sock.Expired() {
				err = errStuck
			}
			c.fail(err, http2.ErrCodeNo)
			return
		}
		if spare = batch; cap(spare) > keptBuffer {
			spare = nil
		}
	}
}

func (o *outbound) over() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ended
}

// resize gives the HPACK table the size that the target wants.
func (o *outbound) resize(table int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fields.Resize(table)
}
