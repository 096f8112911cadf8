//go:build !linux

package sock

import (
	"io"
	"os"
	"syscall"
)

func (c *Conn) readCall(fd uintptr) bool {
	t := &c.in
	if c.lease != nil {
		t.p = c.lease.room()
	}
	if len(t.p) == 0 {
		return true
	}
	n, err := syscall.Read(int(fd), t.p)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		if c.lease != nil {
			c.lease.release()
		}
		return false
	case err != nil:
		t.err = os.NewSyscallError("read", err)
	case n == 0:
		t.err = io.EOF
	default:
		t.n = n
	}
	return true
}

func (c *Conn) writeCall(fd uintptr) bool {
	t := &c.out
	for t.n < len(t.p) {
		n, err := syscall.Write(int(fd), t.p[t.n:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			t.err = os.NewSyscallError("write", err)
			return true
		default:
			t.n += n
		}
	}
	return true
}

func (c *Conn) peekCall(fd uintptr) {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	c.quiet = err == syscall.EAGAIN
}

// peerClosed reports whether the peer has closed its sending side or reset the connection.
func (c *Conn) peerClosed() bool {
	closed := false
	err := c.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		closed = (n == 0 && err == nil) || (err != nil && err != syscall.EAGAIN)
	})
	return err == nil && closed
}
