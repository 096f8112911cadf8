package sock

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that happens at once on a healthy machine.
const patience = 30 * time.Second

// pair returns a connection driven by the sweeper, which does not run, and the plain socket at its other end.
func pair(t *testing.T, s *Sweeper, onGone func()) (*Conn, *net.TCPConn) {
	t.Helper()
	near, far := tcp(t)
	c, err := New(near, s, onGone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, far
}

func tcp(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	far = dialed.(*net.TCPConn)
	t.Cleanup(func() { _ = far.Close() })
	if err := far.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return accepted.(*net.TCPConn), far
}

// sweeping returns a sweeper that runs until the end of the test.
func sweeping(t *testing.T) *Sweeper {
	t.Helper()
	s := NewSweeper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func send(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

// expect reads exactly want.
func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b[:n], err, want)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// result awaits what a goroutine reports.
func result(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("still blocked")
		return nil
	}
}

// expireNow lets a deadline pass without waiting for the sweeper.
func expireNow(c *Conn, phase uint32) {
	c.Arm(phase, 1)
	c.sweeper.sweep(c.sweeper.clock(), false)
}
