package pool

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel asks a silent target as the document says: first after tcp_keepalive, then three times, a third of it apart.
func TestTheKernelAsksASilentTargetForASignOfLife(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct {
		keepAlive                 time.Duration
		on, idle, interval, count int
	}{
		{15 * time.Second, 1, 15, 5, 3},
		{time.Minute, 1, 60, 20, 3},
		{2 * time.Second, 1, 2, 1, 3},
		{0, 0, 0, 0, 0},
	} {
		c, err := dialer(test.keepAlive)(t.Context(), netip.MustParseAddrPort(l.Addr().String()))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			for _, o := range []struct{ level, name, want int }{
				{unix.SOL_SOCKET, unix.SO_KEEPALIVE, test.on},
				{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, test.idle},
				{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, test.interval},
				{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, test.count},
			} {
				got, err := unix.GetsockoptInt(int(fd), o.level, o.name)
				if err != nil || got != o.want && (test.on == 1 || o.name == unix.SO_KEEPALIVE) {
					t.Errorf("%v: option %d is %d, want %d; %v", test.keepAlive, o.name, got, o.want, err)
				}
			}
		}); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
}
