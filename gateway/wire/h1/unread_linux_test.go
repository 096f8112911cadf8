package h1

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unread returns how many bytes have arrived on a connection and were not read yet.
func unread(c syscall.RawConn) (n int) {
	_ = c.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }) // 0 on a closed connection
	return n
}
