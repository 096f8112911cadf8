package sock

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestOnlyTCPConnectionsCanBeDriven(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := New(a, NewSweeper(), nil); !errors.Is(err, ErrNotTCP) {
		t.Errorf("%v", err)
	}
}

func TestAConnectionIsQuietOnlyWhileItIsOpenAndSaysNothing(t *testing.T) {
	tests := map[string]func(*Conn, *net.TCPConn){
		"bytes":       func(_ *Conn, far *net.TCPConn) { _, _ = far.Write([]byte("x")) },
		"its end":     func(_ *Conn, far *net.TCPConn) { _ = far.CloseWrite() },
		"a reset":     func(_ *Conn, far *net.TCPConn) { _ = far.SetLinger(0); _ = far.Close() },
		"expired":     func(c *Conn, _ *net.TCPConn) { expireNow(c, PhaseWrite) },
		"interrupted": func(c *Conn, _ *net.TCPConn) { c.Interrupt() },
		"closed":      func(c *Conn, _ *net.TCPConn) { _ = c.Close() },
	}
	for name, disturb := range tests {
		t.Run(name, func(t *testing.T) {
			c, far := pair(t, NewSweeper(), nil)
			for range 2 { // looking changes nothing
				if !c.Quiet() {
					t.Fatal("an idle connection is not quiet")
				}
			}
			disturb(c, far)
			until(t, name, func() bool { return !c.Quiet() })
		})
	}
}

func TestLookingWhetherAConnectionIsQuietTakesNothingFromIt(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	send(t, far, "x")
	until(t, "it arrives", func() bool { return !c.Quiet() })
	expect(t, c, "x")
	if !c.Quiet() {
		t.Error("not quiet after all was read")
	}
}

func TestClosingTwiceIsHarmless(t *testing.T) {
	s := NewSweeper()
	c, far := pair(t, s, nil)
	other, _ := pair(t, s, nil)
	if err := errors.Join(c.Close(), c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if s.Len() != 1 {
		t.Errorf("%d connections are watched", s.Len())
	}
	c.Reset()
	c.Interrupt()
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the peer sees %v", err)
	}
	if err := other.Close(); err != nil || s.Len() != 0 {
		t.Errorf("%v, %d watched", err, s.Len())
	}
}

func TestAResetTellsThePeerThatItDidNotEndWell(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	send(t, c, "half of it")
	c.Reset()
	_, err := io.ReadAll(far)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer sees %v", err)
	}
}

func TestEndingTheSendingSideLeavesTheOtherOpen(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	send(t, c, "all of it")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(far); err != nil || string(b) != "all of it" {
		t.Errorf("the peer read %q, %v", b, err)
	}
	send(t, far, "thanks")
	expect(t, c, "thanks")
}

func TestAWokenReaderCanReadAgainWhenItIsRearmed(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	c.WakeReader()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("woken: %v", err)
	}
	send(t, c, "written all the same")
	expect(t, far, "written all the same")
	c.Rearm()
	send(t, far, "x")
	expect(t, c, "x")
}

func TestWhatIsBlockedLearnsThatItWasInterrupted(t *testing.T) {
	for name, block := range map[string]func(*Conn) error{
		"a read":  func(c *Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"a write": func(c *Conn) error { _, err := c.Write(make([]byte, 64<<20)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := pair(t, NewSweeper(), nil)
			done := make(chan error, 1)
			go func() { done <- block(c) }()
			c.Interrupt() // before it blocks or after: both end it
			if err := result(t, done); !errors.Is(err, ErrInterrupted) || !c.Interrupted() {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestReadingAndWritingDoNotAllocate(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	p, q := make([]byte, 64), make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = c.Write(p)
		_, _ = far.Read(q)
		_, _ = far.Write(q)
		_, _ = c.Read(p)
		c.Arm(PhaseRead, coarseFrom)
		c.Disarm()
		_ = c.Quiet()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
