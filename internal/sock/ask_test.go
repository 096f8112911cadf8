package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
)

func ask(c *Conn, p []byte) (*Reader, <-chan error) {
	in := &Reader{Conn: c}
	done := make(chan error, 1)
	go func() { done <- in.Ask(p) }()
	return in, done
}

func TestAskWritesAndReadsTheFirstBytesOfTheAnswer(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	for range 3 { // one after another on one connection
		in, done := ask(c, []byte("question"))
		expect(t, far, "question")
		send(t, far, "answer")
		if err := result(t, done); err != nil || string(in.Buffered()) != "answer" {
			t.Fatalf("%q, %v", in.Buffered(), err)
		}
		in.Release()
	}
}

func TestAskOfMoreThanTheSocketHoldsWritesItAllAndLeavesTheAnswerToBeRead(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	if err := c.TCP().SetWriteBuffer(4 << 10); err != nil { // far reads as fast as it can, and must not keep up
		t.Fatal(err)
	}
	question := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)
	in, done := ask(c, question)
	got := make([]byte, len(question))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, question) {
		t.Fatalf("the question did not arrive whole: %v", err)
	}
	if err := result(t, done); err != nil {
		t.Fatal(err)
	}
	if len(in.Buffered()) != 0 {
		t.Errorf("%q before anything was answered", in.Buffered())
	}
	send(t, far, "answer")
	if err := in.Fill(LargeBuffer); err != nil || string(in.Buffered()) != "answer" {
		t.Errorf("%q, %v", in.Buffered(), err)
	}
}

func TestAskEnds(t *testing.T) {
	tests := map[string]struct {
		end  func(c *Conn, far *net.TCPConn)
		want error
	}{
		"without an answer":      {func(_ *Conn, far *net.TCPConn) { _ = far.CloseWrite() }, io.EOF},
		"when it is interrupted": {func(c *Conn, _ *net.TCPConn) { c.Interrupt() }, ErrInterrupted},
		"at its deadline":        {func(c *Conn, _ *net.TCPConn) { expireNow(c, PhaseWrite) }, os.ErrDeadlineExceeded},
		"when it is closed":      {func(c *Conn, _ *net.TCPConn) { _ = c.Close() }, net.ErrClosed},
	}
	for name, test := range tests {
		for _, size := range []int{8, 8 << 20} { // an answer is awaited; the question does not get through
			t.Run(name, func(t *testing.T) {
				if size > LargeBuffer && test.want == io.EOF {
					return // a peer may end its side and still listen
				}
				c, far := pair(t, NewSweeper(), nil)
				in, done := ask(c, make([]byte, size))
				if size < LargeBuffer {
					expect(t, far, string(make([]byte, size)))
				}
				test.end(c, far)
				if err := result(t, done); !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
				if len(in.Buffered()) != 0 {
					t.Errorf("%q was buffered", in.Buffered())
				}
			})
		}
	}
}

func TestAskOnAConnectionThatWasResetFails(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	if err := errors.Join(far.SetLinger(0), far.Close()); err != nil {
		t.Fatal(err)
	}
	until(t, "the reset has arrived", func() bool { return !c.Quiet() })
	_, done := ask(c, []byte("question"))
	if err := result(t, done); err == nil {
		t.Error("no error")
	}
}
