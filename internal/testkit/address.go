package testkit

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// deadAddress returns an address at which connections are refused, and how to give it back. The port is bound without
// listening, so that nobody else can take it meanwhile.
func deadAddress() (address string, release func() error, err error) {
	fd, address, err := bound()
	return address, func() error { return unix.Close(fd) }, err
}

// stuckAddress returns an address at which connecting takes for ever: its queue is full and nobody accepts.
func stuckAddress() (address string, release func() error, err error) {
	fd, address, err := bound()
	if err != nil {
		return "", nil, err
	}
	if err := unix.Listen(fd, 0); err != nil {
		unix.Close(fd)
		return "", nil, fmt.Errorf("listen: %w", err)
	}
	c, err := net.Dial("tcp", address) // a queue of length 0 holds one
	if err != nil {
		unix.Close(fd)
		return "", nil, err
	}
	return address, func() error { c.Close(); return unix.Close(fd) }, nil
}

func bound() (fd int, address string, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, "", fmt.Errorf("socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		unix.Close(fd)
		return 0, "", fmt.Errorf("bind: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return 0, "", fmt.Errorf("getsockname: %w", err)
	}
	in := name.(*unix.SockaddrInet4)
	return fd, netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)).String(), nil
}
