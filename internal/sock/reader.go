package sock

import (
	"errors"
	"io"
	"sync"
)

// Buffer sizes. A typical head fits in the small one, so that a slow client costs no more than that; bodies are carried
// in large ones.
const (
	SmallBuffer = 4 << 10
	LargeBuffer = 32 << 10
)

var small = sync.Pool{New: func() any { b := make([]byte, SmallBuffer); return &b }}
var large = sync.Pool{New: func() any { b := make([]byte, LargeBuffer); return &b }}

// Get returns a pooled buffer of LargeBuffer bytes.
func Get() *[]byte { return large.Get().(*[]byte) }

// Put gives a buffer from Get back. It may have been shortened, and is not when it comes out of Get again; one that has
// grown is left to the collector.
func Put(b *[]byte) {
	if cap(*b) == LargeBuffer {
		*b = (*b)[:LargeBuffer]
		large.Put(b)
	}
}

// ErrFull says that the buffer has reached its limit.
var ErrFull = errors.New("sock: buffer full")

// Reader reads ahead from a connection into memory that it holds only while there is something in it.
type Reader struct {
	Conn *Conn
	buf  *[]byte // nil while empty
	r, w int
}

// Buffered returns what was read and not yet discarded. It is valid until the next call but Discard.
func (b *Reader) Buffered() []byte {
	if b.buf == nil {
		return nil
	}
	return (*b.buf)[b.r:b.w]
}

// Discard drops the first n buffered bytes.
func (b *Reader) Discard(n int) { b.r += n }

// Fill reads more, at least one byte, behind what is buffered, and grows the buffer up to limit bytes of content;
// ErrFull beyond it.
func (b *Reader) Fill(limit int) error {
	if b.w-b.r >= limit {
		return ErrFull
	}
	b.makeRoom(limit)
	n, err := b.Conn.Read((*b.buf)[b.w:])
	b.w += n
	return err
}

// Release gives the memory back; what was buffered is lost.
func (b *Reader) Release() {
	b.r, b.w = 0, 0
	b.release()
}

// ReleaseEmpty gives the memory back if nothing is buffered.
func (b *Reader) ReleaseEmpty() {
	if b.r == b.w {
		b.Release()
	}
}

// Read implements io.Reader; it takes what is buffered first.
func (b *Reader) Read(p []byte) (int, error) {
	if b.r < b.w {
		n := copy(p, (*b.buf)[b.r:b.w])
		b.r += n
		return n, nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	return b.Conn.Read(p)
}

// room returns where an awaited first piece is read to.
func (b *Reader) room() []byte {
	if b.buf == nil {
		b.buf = small.Get().(*[]byte)
	}
	return *b.buf
}

func (b *Reader) release() {
	if b.buf == nil {
		return
	}
	switch cap(*b.buf) {
	case SmallBuffer:
		small.Put(b.buf)
	case LargeBuffer:
		large.Put(b.buf)
	}
	b.buf = nil
}

// makeRoom moves what is buffered to the front and, if that is not enough, to a larger buffer.
func (b *Reader) makeRoom(limit int) {
	if b.buf == nil {
		b.r, b.w = 0, 0
		b.room()
		return
	}
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
	if b.w < len(*b.buf) {
		return
	}
	if b.r > 0 {
		b.w = copy(*b.buf, (*b.buf)[b.r:b.w])
		b.r = 0
		return
	}
	b.grow(limit)
}

// Enlarge makes sure that the buffer is at least a large one.
func (b *Reader) Enlarge() {
	if b.buf == nil {
		b.r, b.w = 0, 0
		b.buf = Get()
	} else if len(*b.buf) < LargeBuffer {
		b.grow(LargeBuffer)
	}
}

func (b *Reader) grow(limit int) {
	old, content := b.buf, (*b.buf)[b.r:b.w]
	if len(*old) < LargeBuffer {
		b.buf = Get()
	} else {
		bigger := make([]byte, min(2*len(*old), max(limit, len(content)+1)))
		b.buf = &bigger
	}
	n := copy(*b.buf, content)
	grown := b.buf
	b.buf = old
	b.release()
	b.buf, b.r, b.w = grown, 0, n
}

var _ io.Reader = (*Reader)(nil)
