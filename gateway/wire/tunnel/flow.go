package tunnel

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

const (
	// smallBuffer is what a stream that is no socket holds while nothing comes, so that idle ones cost no more.
	smallBuffer = 2 << 10
	// spliceFrom is the least that must be known to follow for the kernel to carry it: below it setting that up costs more.
	spliceFrom = 64 << 10
	// splicePiece is the most that is carried between two looks.
	splicePiece = 1 << 20
	// bulkReads is after how many full buffers in a row bytes without frames are taken for a transfer.
	bulkReads = 4
)

// flow is one direction of a tunnel.
type flow struct {
	tunnel   *tunnel
	from, to exchange.Stream
	closed   Reason     // why the tunnel ended when this direction ended first
	src, dst *sock.Conn // the streams, where they are sockets
	in       sock.Reader
	bytes    atomic.Int64
	full     int // buffers in a row that were read full
	err      error
	side     exchange.Stream // whose error it is

	mu     sync.Mutex // held while something is written, which a close frame must not get into
	frames frames
	muted  bool // a close frame was the last word: what still comes is thrown away
}

func (f *flow) begin(t *tunnel, from, to exchange.Stream, closed Reason) {
	f.tunnel, f.from, f.to, f.closed = t, from, to, closed
	f.src, _ = from.(*sock.Conn)
	f.dst, _ = to.(*sock.Conn)
	if f.src != nil {
		f.src.Duplex()
		if !t.options.WebSocket {
			f.src.Wary()
		}
	}
}

// carry carries the direction until it ends.
func (f *flow) carry() {
	o := &f.tunnel.options
	switch {
	case o.Bytes > 0 || o.Bandwidth > 0:
		f.limited()
	case f.src != nil:
		f.sockets()
	default:
		f.streams()
	}
	f.end()
}

// end passes the end of the direction on.
func (f *flow) end() {
	broken := f.err != nil && !errors.Is(f.err, io.EOF)
	if broken {
		f.tunnel.failed(f.side, f.err)
	} else {
		f.tunnel.over(f)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.muted = true // nobody says goodbye any more, either
	if !broken {
		_ = f.to.CloseWrite() // if that side is gone, its own direction says so
	}
}

// sockets reads from a socket, holding no memory while nothing comes.
func (f *flow) sockets() {
	f.in.Conn = f.src
	defer f.in.Release()
	for f.err == nil {
		if err := f.in.Each(f.arrived); err != nil {
			f.fail(f.from, err)
			return
		}
		f.splice()
	}
}

// arrived passes on what has arrived and reports whether more is to be read this way.
func (f *flow) arrived() bool {
	p := f.in.Buffered()
	f.in.Discard(len(p))
	if !f.pass(p) {
		return false
	}
	if len(p) < sock.SmallBuffer {
		f.full = 0
		return true
	}
	f.full++
	if f.spliceable() > 0 {
		return false
	}
	f.in.Enlarge()
	return true
}

// streams reads from something that is no socket.
func (f *flow) streams() {
	if p, ok := f.from.(exchange.Piecewise); ok {
		f.pieces(p.Next, func() {})
		return
	}
	small := make([]byte, smallBuffer)
	var large *[]byte // while there is enough to read
	defer func() {
		if large != nil {
			sock.Put(large)
		}
	}()
	f.pieces(func() ([]byte, error) {
		room := small
		if large != nil {
			room = *large
		}
		n, err := f.from.Read(room)
		f.full++
		if n < smallBuffer {
			f.full = 0
		}
		return room[:n], err
	}, func() {
		switch {
		case large == nil && f.full > 0:
			large = sock.Get()
		case large != nil && f.full == 0:
			sock.Put(large)
			large = nil
		}
	})
}

// pieces passes pieces on and calls done when it is through with each.
func (f *flow) pieces(next func() ([]byte, error), done func()) {
	for {
		p, err := next()
		if len(p) > 0 && !f.pass(p) {
			return
		}
		done()
		if err != nil {
			f.fail(f.from, err)
			return
		}
	}
}

func (f *flow) fail(side exchange.Stream, err error) {
	f.side, f.err = side, err
}

// pass writes a piece on. It reports whether the direction goes on.
func (f *flow) pass(p []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tunnel.options.WebSocket {
		f.frames.pass(p)
		if f.frames.closed && f.src != nil {
			f.src.Wary() // who has said goodbye ends next
		}
	}
	if f.muted {
		if f.frames.closed {
			f.err = io.EOF
		}
		return !f.frames.closed
	}
	n, err := f.to.Write(p)
	f.bytes.Add(int64(n))
	if err != nil {
		f.fail(f.to, err)
	}
	return err == nil
}

// spliceable returns up to how many bytes the kernel may carry next, without anybody looking at them; 0: none.
func (f *flow) spliceable() int64 {
	switch {
	case f.dst == nil || f.src == nil || f.src.Encrypted() || f.dst.Encrypted() || f.muted:
		return 0
	case f.tunnel.options.WebSocket && !f.frames.lost:
		if f.frames.left >= spliceFrom {
			return int64(min(f.frames.left, splicePiece))
		}
		return 0
	case f.full >= bulkReads:
		return splicePiece
	}
	return 0
}

// splice lets the kernel carry a large transfer as long as it is one.
func (f *flow) splice() {
	f.in.ReleaseEmpty()
	for f.err == nil {
		limit := f.spliceable()
		if limit == 0 {
			return
		}
		n, wrote, err := f.spliceOnce(limit)
		f.bytes.Add(n)
		switch {
		case err != nil && wrote:
			f.fail(f.to, err)
		case err != nil:
			f.fail(f.from, err)
		case n < sock.SmallBuffer:
			f.full = 0
		}
	}
}

// spliceOnce holds the lock only where a close frame might be written: never inside a frame.
func (f *flow) spliceOnce(limit int64) (n int64, wrote bool, err error) {
	n, wrote, err = sock.Splice(f.dst, f.src, limit, 0, 0)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frames.left -= min(f.frames.left, uint64(n))
	return n, wrote, err
}
