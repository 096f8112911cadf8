package release

import (
	"errors"
	"io"
	"sync"

	"headgate/gateway/exchange"
)

// tape keeps a copy of a body that is read through it, up to a limit. One goroutine reads while another may ask for the
// copy: who mirrors must not wait for who answers.
type tape struct {
	in    io.Reader
	ready interface{ Ready() bool } // nil: it does not know
	done  interface{ Done() bool }  // nil: it does not know

	mu     sync.Mutex
	kept   []byte
	length int64 // of the body; -1: not known ahead
	limit  int
	whole  bool // kept is all of the body
	off    bool // it is too large, has broken off, or nobody wants it any more
}

// pieces is a tape of a body that comes in pieces.
type pieces struct {
	*tape
	next exchange.Piecewise
}

// record puts a tape into a body, which must have a reader.
func record(b *exchange.Body, limit int) *tape {
	t := &tape{in: b.Reader, length: b.Length, limit: limit}
	t.ready, _ = b.Reader.(interface{ Ready() bool })
	t.done, _ = b.Reader.(interface{ Done() bool })
	if p, ok := b.Reader.(exchange.Piecewise); ok {
		b.Reader = pieces{t, p}
	} else {
		b.Reader = t
	}
	return t
}

// Read implements io.Reader.
func (t *tape) Read(p []byte) (int, error) {
	n, err := t.in.Read(p)
	t.keep(p[:n], err)
	return n, err
}

// Next implements exchange.Piecewise.
func (p pieces) Next() ([]byte, error) {
	b, err := p.next.Next()
	p.keep(b, err)
	return b, err
}

// Ready reports whether the next read returns without waiting, as far as that is known.
func (t *tape) Ready() bool { return t.ready != nil && t.ready.Ready() }

// Done reports whether what was read last is known to have been the last.
func (t *tape) Done() bool { return t.done != nil && t.done.Done() }

func (t *tape) keep(p []byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.off || t.whole {
		return
	}
	if len(t.kept)+len(p) > t.limit {
		t.kept, t.off = nil, true
		return
	}
	t.kept = append(t.kept, p...)
	switch ended := errors.Is(err, io.EOF); {
	case ended, t.length >= 0 && int64(len(t.kept)) == t.length, t.Done():
		t.whole = true
	case err != nil:
		t.kept, t.off = nil, true
	}
}

// copied returns the whole body, and ends the recording either way.
func (t *tape) copied() (body []byte, whole bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	body, whole = t.kept, t.whole
	t.kept, t.off = nil, true
	return body, whole
}
