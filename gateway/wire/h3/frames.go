package h3

import (
	"errors"
	"io"
	"sync"

	"github.com/quic-go/quic-go/quicvarint"

	"headgate/internal/sock"
)

// The types of frames (RFC 9114 section 7.2) and of unidirectional streams (section 6.2, RFC 9204 section 4.2).
const (
	frameData        = 0x0
	frameHeaders     = 0x1
	frameCancelPush  = 0x3
	frameSettings    = 0x4
	framePushPromise = 0x5
	frameGoAway      = 0x7
	frameMaxPushID   = 0xd

	streamControl = 0x0
	streamPush    = 0x1
	streamEncoder = 0x2
	streamDecoder = 0x3
)

// known reports whether a frame of this type has its own place, which is not a request's stream, or must not be sent at
// all because it means something in HTTP/2 (RFC 9114 section 7.2.8). Others are extensions.
func known(frame uint64) bool { return frame <= 0x9 || frame == frameMaxPushID }

// heads are the buffers that requests begin in.
var heads = sync.Pool{New: func() any { b := make([]byte, headBuffer); return &b }}

// reader reads frames from a stream through a buffer.
type reader struct {
	from io.Reader
	buf  []byte
	pool *[]byte // where buf came from; nil: nowhere
	r, w int     // what has come and was not taken is buf[r:w]
	err  error   // of the stream, behind what is buffered

	thrown int // bytes, by next
}

func (r *reader) buffered() []byte { return r.buf[r.r:r.w] }

// fill reads more behind what is buffered. It returns nil when something has come. After a deadline, which is the only
// error that is forgotten, reading can go on.
func (r *reader) fill() error {
	if r.err != nil {
		return r.err
	}
	switch {
	case r.r == r.w:
		r.r, r.w = 0, 0
	case r.w == len(r.buf):
		r.w, r.r = copy(r.buf, r.buf[r.r:r.w]), 0
	}
	n, err := r.from.Read(r.buf[r.w:])
	r.w += n
	if err != nil && !isDeadline(err) {
		r.err = err
	}
	if n > 0 {
		return nil
	}
	return err
}

// more is fill inside of a frame, where the stream must not end.
func (r *reader) more() error {
	err := r.fill()
	if errors.Is(err, io.EOF) {
		return errFrameTruncated
	}
	return err
}

// begin takes a small buffer.
func (r *reader) begin(from io.Reader) {
	p := heads.Get().(*[]byte)
	*r = reader{from: from, buf: *p, pool: p}
}

// enlarge takes a large one.
func (r *reader) enlarge() {
	if len(r.buf) >= sock.LargeBuffer {
		return
	}
	p := sock.Get()
	n := copy(*p, r.buffered())
	r.giveBack()
	r.buf, r.pool, r.r, r.w = *p, p, 0, n
}

// release gives the buffer back when there is nothing more to read.
func (r *reader) release() {
	r.giveBack()
	r.buf, r.pool, r.r, r.w = nil, nil, 0, 0
}

func (r *reader) giveBack() {
	switch {
	case r.pool == nil:
	case cap(r.buf) == headBuffer:
		heads.Put(r.pool)
	default:
		sock.Put(r.pool)
	}
}

// varint takes a variable-length integer (RFC 9000 section 16). io.EOF: the stream ends before it.
func (r *reader) varint() (uint64, error) {
	for {
		b := r.buffered()
		if len(b) > 0 && len(b) >= 1<<(b[0]>>6) {
			v, n, err := quicvarint.Parse(b)
			r.r += n
			return v, err
		}
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && len(b) > 0 {
				return 0, errFrameTruncated
			}
			return 0, err
		}
	}
}

// frame takes a frame's type and length. io.EOF: the stream ends before it.
func (r *reader) frame() (kind, length uint64, err error) {
	if kind, err = r.varint(); err != nil {
		return 0, 0, err
	}
	if length, err = r.varint(); errors.Is(err, io.EOF) {
		err = errFrameTruncated
	}
	return kind, length, err
}

// payload takes n bytes, valid until the next read. The caller has checked that it wants as many.
func (r *reader) payload(n int) ([]byte, error) {
	if b := r.buffered(); len(b) >= n {
		r.r += n
		return b[:n], nil
	}
	whole := make([]byte, 0, n)
	for len(whole) < n {
		b := r.buffered()
		if len(b) == 0 {
			if err := r.more(); err != nil {
				return nil, err
			}
			continue
		}
		b = b[:min(len(b), n-len(whole))]
		whole = append(whole, b...)
		r.r += len(b)
	}
	return whole, nil
}

// skip throws away the payload of a frame that means nothing here.
func (r *reader) skip(n uint64) error {
	if n > maxUnknownFrame {
		return errFrameSize
	}
	for left := int(n); left > 0; {
		b := r.buffered()
		if len(b) == 0 {
			if err := r.more(); err != nil {
				return err
			}
			continue
		}
		b = b[:min(len(b), left)]
		r.r += len(b)
		left -= len(b)
	}
	return nil
}

// appendFrame appends a frame's type and length.
func appendFrame(b []byte, kind, length uint64) []byte {
	return quicvarint.Append(quicvarint.Append(b, kind), length)
}
