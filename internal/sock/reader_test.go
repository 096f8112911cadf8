package sock

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"
)

func TestAReaderGrowsUpToItsLimitAndKeepsWhatItHas(t *testing.T) {
	for _, limit := range []int{1, 100, SmallBuffer, SmallBuffer + 1, LargeBuffer, LargeBuffer + 1, 5 * LargeBuffer} {
		c, far := pair(t, NewSweeper(), nil)
		want := make([]byte, limit)
		for i := range want {
			want[i] = byte(i * 7)
		}
		go func() { _, _ = far.Write(want) }()
		in := Reader{Conn: c}
		for len(in.Buffered()) < limit {
			if err := in.Fill(limit); err != nil {
				t.Fatalf("limit %d: %v after %d bytes", limit, err, len(in.Buffered()))
			}
		}
		if !bytes.Equal(in.Buffered(), want) {
			t.Errorf("limit %d: other bytes than were sent", limit)
		}
		if err := in.Fill(limit); !errors.Is(err, ErrFull) {
			t.Errorf("limit %d: %v, want ErrFull", limit, err)
		}
		if got := cap(*in.buf); got > 2*max(limit, LargeBuffer) {
			t.Errorf("limit %d: a buffer of %d", limit, got)
		}
		in.Release()
		if in.buf != nil || in.Buffered() != nil {
			t.Error("released and still there")
		}
	}
}

// Whatever the order of filling, discarding, enlarging and reading, the bytes come out as they were sent.
func TestAReaderIsAQueueOfBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c, far := pair(t, NewSweeper(), nil)
		defer c.Close()
		defer far.Close()
		in := Reader{Conn: c}
		var model []byte // sent and not yet taken
		next := byte(0)
		rt.Repeat(map[string]func(*rapid.T){
			"send and fill": func(rt *rapid.T) {
				b := make([]byte, rapid.IntRange(1, 9000).Draw(rt, "n"))
				for i := range b {
					b[i] = next
					next++
				}
				if _, err := far.Write(b); err != nil {
					rt.Fatal(err)
				}
				model = append(model, b...)
				for len(in.Buffered()) < len(model) {
					if err := in.Fill(len(model) + 1); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"discard": func(rt *rapid.T) {
				n := rapid.IntRange(0, len(model)).Draw(rt, "n")
				in.Discard(n)
				model = model[n:]
			},
			"read": func(rt *rapid.T) {
				n := rapid.IntRange(0, len(model)).Draw(rt, "n")
				b := make([]byte, n)
				if _, err := io.ReadFull(&in, b); err != nil || !bytes.Equal(b, model[:n]) {
					rt.Fatalf("read %v, %v", b, err)
				}
				model = model[n:]
			},
			"enlarge":       func(*rapid.T) { in.Enlarge() },
			"release empty": func(*rapid.T) { in.ReleaseEmpty() },
			"": func(rt *rapid.T) {
				if !bytes.Equal(in.Buffered(), model) {
					rt.Fatalf("%d bytes are buffered, %d should be", len(in.Buffered()), len(model))
				}
			},
		})
	})
}

func TestReadingNothingFromAnEmptyReaderDoesNotWait(t *testing.T) {
	c, _ := pair(t, NewSweeper(), nil)
	in := Reader{Conn: c}
	if n, err := in.Read(nil); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestAReaderReadsOnFromTheConnection(t *testing.T) {
	c, far := pair(t, NewSweeper(), nil)
	in := Reader{Conn: c}
	send(t, far, "ab")
	if err := in.Fill(10); err != nil {
		t.Fatal(err)
	}
	send(t, far, "cd")
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(&in)
	if err != nil || string(got) != "abcd" {
		t.Errorf("%q, %v", got, err)
	}
	if err := in.Fill(10); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// A buffer that was shortened by its user is a whole one again for the next, who counts on its room.
func TestBuffersComeBackWhole(t *testing.T) {
	for range 100 {
		b := Get()
		if len(*b) != LargeBuffer {
			t.Fatalf("a buffer of %d bytes", len(*b))
		}
		*b = append((*b)[:0], "head"...)
		Put(b)
		grown := make([]byte, 10, 2*LargeBuffer)
		Put(&grown)
	}
}
