package sock

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Layer is what stands between a socket and those who read and write clear text: a *tls.Conn over Below.
type Layer interface {
	io.ReadWriter
	// CloseWrite tells the peer that nothing more comes.
	CloseWrite() error
}

// layer is a Conn's Layer, and what it needs to read without waiting.
type layer struct {
	over    Layer // nil: none
	ahead   []byte
	writing sync.Mutex  // held while the layer writes
	closing atomic.Bool // from now on a write that would wait is given up

	direct  bool // reading inside one wait of the runtime's: by fd, and nothing may wait
	fd      uintptr
	short   bool // the last read emptied the socket
	trust   bool // which is believed
	guessed bool // that nothing is there was concluded from it
}

// errAgain says that nothing is there. It is a net.Error, so that a layer can go on after it.
var errAgain error = again{}

type again struct{}

func (again) Error() string   { return "sock: nothing to read yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// Over puts a layer over the socket: from now on Read, Write and what is built on them go through it. It must not be
// called while another goroutine uses the connection.
func (c *Conn) Over(l Layer) { c.layer.over = l }

// Encrypted reports whether there is a layer over the socket.
func (c *Conn) Encrypted() bool { return c.layer.over != nil }

// Unread puts bytes that were read from the socket back in front of it. They are not copied. It must not be called while
// another goroutine reads.
func (c *Conn) Unread(p []byte) { c.layer.ahead = append(p[:len(p):len(p)], c.layer.ahead...) }

// Below returns the socket itself for a layer to stand on. Its deadlines are the Conn's: setting them does nothing, and
// neither does closing it.
func (c *Conn) Below() net.Conn { return below{c} }

type below struct{ c *Conn }

func (b below) Read(p []byte) (int, error) {
	l := &b.c.layer
	switch {
	case len(l.ahead) > 0 || !l.direct:
		return b.c.read(p)
	case l.short && l.trust:
		l.guessed = true
		return 0, errAgain
	}
	n, nothing, err := readFD(l.fd, p)
	if nothing {
		l.guessed = false
		return 0, errAgain
	}
	l.short = n < len(p)
	return n, err
}

func (b below) Write(p []byte) (int, error)      { return b.c.write(p) }
func (b below) Close() error                     { return nil }
func (b below) LocalAddr() net.Addr              { return b.c.tcp.LocalAddr() }
func (b below) RemoteAddr() net.Addr             { return b.c.tcp.RemoteAddr() }
func (b below) SetDeadline(time.Time) error      { return nil }
func (b below) SetReadDeadline(time.Time) error  { return nil }
func (b below) SetWriteDeadline(time.Time) error { return nil }

// take reads what is there without waiting, inside one wait of the runtime's. again: nothing is.
func (c *Conn) take(fd uintptr, p []byte) (n int, again bool, err error) {
	l := &c.layer
	if l.over == nil {
		if len(l.ahead) > 0 {
			return l.takeAhead(p), false, nil
		}
		return readFD(fd, p)
	}
	l.direct, l.fd = true, fd
	n, err = l.over.Read(p)
	l.direct = false
	if n > 0 {
		return n, false, nil
	}
	return 0, errors.Is(err, errAgain), err
}

func (l *layer) takeAhead(p []byte) int {
	n := copy(p, l.ahead)
	if l.ahead = l.ahead[n:]; len(l.ahead) == 0 {
		l.ahead = nil
	}
	return n
}

// writeOver writes through the layer.
func (c *Conn) writeOver(p []byte) (int, error) {
	c.layer.writing.Lock()
	defer c.layer.writing.Unlock()
	n, err := c.layer.over.Write(p)
	return n, c.name(err)
}

// endOver tells the peer that nothing more comes, unless that would have to wait.
func (c *Conn) endOver() {
	l := &c.layer
	if l.over == nil || c.interrupted.Load() || c.timer.expired.Load() || !l.writing.TryLock() {
		return
	}
	defer l.writing.Unlock()
	if !l.closing.Swap(true) {
		_ = l.over.CloseWrite() // a courtesy; the socket's end says the same
	}
}

// quietOver is Quiet through the layer, which may have something to say that is no data, such as a new session ticket.
func (c *Conn) quietOver(fd uintptr) {
	var b [1]byte
	c.layer.trust = false
	_, c.quiet, _ = c.take(fd, b[:]) // an error, or a byte, is not quiet
}
