package h2

import (
	"io"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// source is where a reply's body comes from, and what it says about itself.
type source struct {
	reader io.Reader
	pieces exchange.Piecewise
	ready  interface{ Ready() bool } // knows whether the next piece is there
	done   interface{ Done() bool }  // knows when a piece was the last
	memory interface{ Len() int }    // is never waited for
	buf    *[]byte                   // of a reader that has no pieces
}

func (f *source) begin(r io.Reader) {
	f.reader = r
	f.pieces, _ = r.(exchange.Piecewise)
	f.ready, _ = r.(interface{ Ready() bool })
	f.done, _ = r.(interface{ Done() bool })
	if f.ready == nil && f.done == nil {
		f.memory, _ = r.(interface{ Len() int })
	}
	if f.pieces == nil {
		f.buf = sock.Get()
	}
}

func (f *source) end() {
	if f.buf != nil {
		sock.Put(f.buf)
	}
}

// next returns the next piece, valid until the following call.
func (f *source) next() ([]byte, error) {
	if f.pieces != nil {
		return f.pieces.Next()
	}
	n, err := f.reader.Read(*f.buf)
	return (*f.buf)[:n], err
}

// waits reports whether next may have to wait.
func (f *source) waits() bool {
	if f.ready != nil {
		return !f.ready.Ready()
	}
	return f.memory == nil
}

// over reports whether the piece that was read last is known to have been the last one.
func (f *source) over() bool {
	if f.done != nil {
		return f.done.Done()
	}
	return f.memory != nil && f.memory.Len() == 0
}
