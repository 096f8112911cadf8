//go:build !linux

package sock

import (
	"io"
	"os"
	"syscall"
)

// readFD reads what is there. again: nothing is.
func readFD(fd uintptr, p []byte) (n int, again bool, err error) {
	n, err = syscall.Read(int(fd), p)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return 0, true, nil
	case err != nil:
		return 0, false, os.NewSyscallError("read", err)
	case n == 0:
		return 0, false, io.EOF
	}
	return n, false, nil
}

func (c *Conn) writeCall(fd uintptr) bool {
	t := &c.out
	started := t.n
	for t.n < len(t.p) {
		n, err := syscall.Write(int(fd), t.p[t.n:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			if t.n > started {
				c.progress()
			}
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

// acks knows nothing here: deadlines are all that there is.
func (c *Conn) acks() (acks, bool) { return acks{}, false }

func (c *Conn) shut() {}
