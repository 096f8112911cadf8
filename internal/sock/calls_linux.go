package sock

import (
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The sockets are non-blocking, so these calls never wait, and telling the scheduler about them, as package syscall
// does, would cost more than it could win.

// readFD reads what is there. again: nothing is.
func readFD(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		r, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return 0, true, nil
		case errno != 0:
			return 0, false, os.NewSyscallError("read", errno)
		case r == 0:
			return 0, false, io.EOF
		default:
			return int(r), false, nil
		}
	}
}

func (c *Conn) writeCall(fd uintptr) bool {
	t := &c.out
	started := t.n
	for t.n < len(t.p) {
		rest := t.p[t.n:]
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)))
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			if t.n > started {
				c.progress()
			}
			return false
		case errno != 0:
			t.err = os.NewSyscallError("write", errno)
			return true
		default:
			t.n += int(n)
			c.wrote()
		}
	}
	return true
}

func (c *Conn) peekCall(fd uintptr) {
	var b [1]byte
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1,
		syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	c.quiet = errno == syscall.EAGAIN
}

// peerClosed reports whether the peer has closed its sending side or reset the connection, also when bytes that it sent
// before are still unread.
func (c *Conn) peerClosed() bool {
	closed := false
	err := c.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(fds, 0); err == nil && n > 0 {
			closed = fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
		}
	})
	return err == nil && closed
}

// acks asks the kernel. ok: it has answered.
func (c *Conn) acks() (a acks, ok bool) {
	err := c.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		a = acks{bytes: info.Bytes_acked, flying: info.Unacked, window: info.Snd_wnd, retries: info.Retransmits}
		a.quiet = time.Duration(info.Last_ack_recv) * time.Millisecond
		a.queued, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		ok = err == nil
	})
	return a, ok && err == nil
}

// shut ends both directions, so that whoever waits on the connection learns it.
func (c *Conn) shut() {
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }) // it may have ended by itself
}
