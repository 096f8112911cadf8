package listen

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"
)

// maxLast bounds the connections that a door still lets in when it is closed: no kernel lets more stand before it by default.
const maxLast = 4096

// Close closes the door; connections that came through it go on. While it runs it is closed when Run returns, which is at once.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped.Store(true)
	l.wake()
	if l.running {
		return l.socket.SetDeadline(time.Unix(1, 0)) // which wakes Accept
	}
	return l.socket.Close()
}

// begin reports whether the door may run.
func (l *Listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = !l.stopped.Load()
	return l.running
}

// end closes the socket, if the door is to be closed. Who stands before it already is let in: the kernel has promised them a
// connection, and would reset it, with the request that they have sent.
func (l *Listener) end(ctx context.Context) {
	if l.stopped.Load() {
		for range maxLast {
			c := l.next()
			if c == nil {
				break
			}
			if !l.enter(ctx) {
				_ = c.Close() // nothing was promised
				break
			}
			l.take(c)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running = false; !l.stopped.Load() {
		return
	}
	if err := l.socket.Close(); err != nil {
		l.log.Warn("a listener did not close cleanly", "listener", l.Name(), "error", err)
	}
}

// next accepts a connection without waiting, which Accept cannot: after the deadline it fails, whoever stands there. nil: there
// is none, or no room for one.
func (l *Listener) next() net.Conn {
	raw, err := l.socket.SyscallConn()
	if err != nil || !l.hasRoom() {
		return nil
	}
	fd, failed := -1, error(syscall.ECONNABORTED)
	err = raw.Control(func(door uintptr) {
		for failed != nil && temporary(failed) { // the client has gone while it was waiting
			fd, _, failed = syscall.Accept(int(door))
		}
	})
	if err != nil || failed != nil {
		return nil
	}
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	c, err := net.FileConn(f) // on a descriptor of its own, which does not block
	if err != nil {
		return nil
	}
	return c
}
