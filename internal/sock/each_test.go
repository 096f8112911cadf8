package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// collector is a handler of Each that takes what has arrived and leaves when it has seen "leave".
type collector struct {
	in   Reader
	seen chan string
}

func collect(c *Conn) *collector {
	return &collector{Reader{Conn: c}, make(chan string, 64)}
}

func (k *collector) arrived() bool {
	b := string(k.in.Buffered())
	k.in.Discard(len(b))
	k.seen <- b
	return !strings.HasSuffix(b, "leave")
}

func (k *collector) run() <-chan error {
	done := make(chan error, 1)
	go func() { done <- k.in.Each(k.arrived) }()
	return done
}

// untilItTrusts sends more, far being the other end, until the Each that runs waits without having looked. A wake-up that was
// due before its bytes were read makes it look, and then it has no need of trust.
func (k *collector) untilItTrusts(t *testing.T, far io.Writer) {
	t.Helper()
	until(t, "waiting on trust", func() bool {
		send(t, far, "x")
		<-k.seen
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if k.in.Conn.trusted.Load() {
				return true
			}
		}
		return false
	})
}

func TestEachHandsOverWhatArrivesAgainAndAgainUntilTheHandlerLeaves(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	k := collect(c)
	done := k.run()
	for _, s := range []string{"one", "two", "three", "leave"} {
		send(t, far, s)
		if got := <-k.seen; got != s {
			t.Fatalf("got %q, want %q", got, s)
		}
	}
	if err := result(t, done); err != nil {
		t.Errorf("a handler that leaves ended Each with %v", err)
	}
	send(t, far, "later") // the connection is as good as before, read either way
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "later" {
		t.Errorf("read %q, %v", b, err)
	}
	done = k.run()
	send(t, far, "leave")
	if err := result(t, done); err != nil || <-k.seen != "leave" {
		t.Errorf("a second Each: %v", err)
	}
}

func TestEachLeavesInTheBufferWhatTheHandlerDidNotTake(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	send(t, far, "head and body")
	in := Reader{Conn: c}
	if err := in.Each(func() bool { in.Discard(len("head ")); return false }); err != nil {
		t.Fatal(err)
	}
	expect(t, &in, "and body")
}

func TestEachTakesMoreThanOneBufferOfPipelinedBytes(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	want := strings.Repeat("0123456789abcdef", 3*LargeBuffer/16) + "leave"
	go func() { _, _ = io.WriteString(far, want) }()
	k := collect(c)
	k.seen = make(chan string, len(want))
	if err := k.in.Each(k.arrived); err != nil {
		t.Fatal(err)
	}
	close(k.seen)
	var got strings.Builder
	for s := range k.seen {
		got.WriteString(s)
	}
	if got.String() != want {
		t.Error("what was sent did not arrive in order and whole")
	}
}

func TestAnEachThatWaitsHoldsNoBuffer(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	k := collect(c)
	done := k.run()
	send(t, far, "one") // the round that makes a short read trusted
	<-k.seen
	k.untilItTrusts(t, far)
	c.Interrupt()
	_ = result(t, done)
	if k.in.buf != nil {
		t.Error("a buffer was held while nothing happened")
	}
}

func TestEachEndsWithTheConnection(t *testing.T) {
	tests := map[string]struct {
		end  func(c *Conn, far *net.TCPConn)
		want error
	}{
		"the peer ends its side":  {func(_ *Conn, far *net.TCPConn) { _ = far.CloseWrite() }, io.EOF},
		"the read deadline":       {func(c *Conn, _ *net.TCPConn) { expireNow(c, PhaseRead) }, os.ErrDeadlineExceeded},
		"interrupted":             {func(c *Conn, _ *net.TCPConn) { c.Interrupt() }, ErrInterrupted},
		"closed from elsewhere":   {func(c *Conn, _ *net.TCPConn) { _ = c.Close() }, net.ErrClosed},
		"woken by its own server": {func(c *Conn, _ *net.TCPConn) { c.WakeReader() }, os.ErrDeadlineExceeded},
	}
	for name, test := range tests {
		for _, rounds := range []int{0, 1, 2} { // before and after short reads are trusted
			t.Run(name, func(t *testing.T) {
				c, far := pair(t, NewSweeper(), nil)
				k := collect(c)
				done := k.run()
				if rounds > 0 {
					send(t, far, "x")
					<-k.seen
				}
				if rounds > 1 {
					k.untilItTrusts(t, far)
				}
				test.end(c, far)
				if err := result(t, done); !errors.Is(err, test.want) {
					t.Errorf("after %d rounds Each ended with %v, want %v", rounds, err, test.want)
				}
			})
		}
	}
}

func TestEachEndsWhenThePeerResets(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	k := collect(c)
	done := k.run()
	if err := errors.Join(far.SetLinger(0), far.Close()); err != nil {
		t.Fatal(err)
	}
	if err := result(t, done); err == nil {
		t.Error("Each ended without an error")
	}
}

func TestAfterAReadDeadlineTheLastWordCanStillBeSaid(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	k := collect(c)
	done := k.run()
	expireNow(c, PhaseRead)
	_ = result(t, done)
	if !c.Expired() {
		t.Error("not expired")
	}
	send(t, c, "408")
	expect(t, far, "408")
}

func TestAWriteDeadlineEndsReadsToo(t *testing.T) {
	c, _ := pair(t, NewSweeper(), nil)
	expireNow(c, PhaseWrite)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
}

func TestAHandlerMayWriteMoreThanTheSocketHolds(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	want := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	in := Reader{Conn: c}
	done := make(chan error, 1)
	go func() {
		var first, second error
		err := in.Each(func() bool {
			_, first = c.Write(want)
			_, second = c.Write([]byte("end"))
			return false
		})
		done <- errors.Join(err, first, second)
	}()
	send(t, far, "go")
	got := make([]byte, len(want))
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	expect(t, far, "end")
	if !bytes.Equal(got, want) {
		t.Error("the bytes changed on their way")
	}
	if err := result(t, done); err != nil {
		t.Error(err)
	}
}

func TestAWriteFromTheHandlerThatCannotGoOnEndsWithItsDeadline(t *testing.T) {
	c, far := pair(t, sweeping(t), nil)
	in := Reader{Conn: c}
	var wrote error
	done := make(chan error, 1)
	go func() {
		done <- in.Each(func() bool {
			c.Arm(PhaseWrite, 20e6)
			for wrote == nil { // nobody reads
				_, wrote = c.Write(make([]byte, 1<<20))
			}
			return false
		})
	}()
	send(t, far, "go")
	_ = result(t, done)
	if !errors.Is(wrote, os.ErrDeadlineExceeded) {
		t.Errorf("the write ended with %v", wrote)
	}
}

func TestBytesThatComeWithTheSweepersWakeUpAreNotLost(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	k := collect(c)
	done := k.run()
	send(t, far, "one")
	<-k.seen
	k.untilItTrusts(t, far)
	c.looking.Lock() // as lookForEnd does, at the worst moment
	if !c.trusted.Swap(false) {
		t.Fatal("nothing to look for")
	}
	c.WakeReader()
	send(t, far, "last")
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.looking.Unlock()
	if got := <-k.seen; got != "last" {
		t.Errorf("got %q", got)
	}
	var err error
	until(t, "the sweeper looks and finds the end", func() bool {
		c.lookForEnd()
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	if !errors.Is(err, io.EOF) {
		t.Errorf("ended with %v", err)
	}
}
