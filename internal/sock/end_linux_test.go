package sock

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// sendLast sends s and the end of the stream in one segment, which the runtime announces once.
func sendLast(t *testing.T, far *net.TCPConn, s string) {
	t.Helper()
	raw, err := far.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
	if err != nil {
		t.Fatal(err)
	}
	send(t, far, s)
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func TestTheEndThatComesWithTheFirstBytesIsNoticedAtOnce(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil) // which does not run
	sendLast(t, far, "one")
	k := collect(c)
	if err := result(t, k.run()); !errors.Is(err, io.EOF) || <-k.seen != "one" {
		t.Errorf("ended with %v", err)
	}
}

func TestTheEndThatComesWithLaterBytesIsNoticedByTheSweeper(t *testing.T) {
	for name, onGone := range map[string]func(){"a client's": func() {}, "an upstream's": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, far := pair(t, sweeping(t), onGone)
			k := collect(c)
			done := k.run()
			send(t, far, "one")
			<-k.seen
			sendLast(t, far, "two")
			if got := <-k.seen; got != "two" {
				t.Fatalf("got %q", got)
			}
			if err := result(t, done); !errors.Is(err, io.EOF) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestAPeerIsKnownToHaveClosedWhileItsBytesAreUnread(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	if c.peerClosed() {
		t.Error("closed before it was")
	}
	sendLast(t, far, "unread")
	until(t, "the end has arrived", c.peerClosed)
}
