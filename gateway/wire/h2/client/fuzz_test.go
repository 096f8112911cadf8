package client

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"headgate/internal/sock"
)

// FuzzTheTargetsFrames lets a target say anything after its settings: the call ends, the connection ends, and nobody is
// left behind, whatever it was.
func FuzzTheTargetsFrames(f *testing.F) {
	frames := func(write func(r *raw)) []byte {
		var b bytes.Buffer
		r := &raw{Framer: http2.NewFramer(&b, nil)}
		r.enc = hpack.NewEncoder(&r.block)
		r.AllowIllegalWrites = true
		write(r)
		return b.Bytes()
	}
	f.Add(frames(func(r *raw) {
		r.head(1, false, ":status", "103", "link", "</a>")
		r.head(1, false, ":status", "200", "content-length", "5")
		_ = r.WriteDataPadded(1, false, []byte("he"), make([]byte, 7))
		_ = r.WriteData(1, false, []byte("llo"))
		r.head(1, true, "grpc-status", "0")
	}))
	f.Add(frames(func(r *raw) {
		_ = r.WritePing(false, [8]byte{})
		_ = r.WriteWindowUpdate(1, 100)
		_ = r.WriteWindowUpdate(0, 0)
		none := http2.Setting{ID: http2.SettingInitialWindowSize}
		_ = r.WriteSettings(none, http2.Setting{ID: http2.SettingMaxConcurrentStreams})
	}))
	f.Add(frames(func(r *raw) { _ = r.WriteGoAway(1, http2.ErrCodeNo, []byte("bye")); r.head(1, true, ":status", "204") }))
	f.Add(frames(func(r *raw) { _ = r.WriteRSTStream(1, http2.ErrCodeRefusedStream) }))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			r := &raw{Framer: http2.NewFramer(c, c), Conn: c}
			if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil || r.WriteSettings() != nil {
				return
			}
			if r.await(http2.FrameHeaders) == nil {
				return
			}
			_, _ = c.Write(said)
			_ = c.(*net.TCPConn).CloseWrite()
			r.drain()
		}()
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Skip(err)
		}
		sc, err := sock.New(nc, sock.NewSweeper(), nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := Open(ctx, sc, terms(), newWatcher())
		if err != nil {
			t.Skip(err)
		}
		x := ask("GET", "/")
		call, err := do(t, c, x, plan)
		if err == nil {
			_, _ = body(x) // any outcome, as long as there is one
		} else {
			code(t, err)
		}
		call.Close()
		c.Wait() // the target has closed its side
		<-done
		if n := c.Open(); n != 0 {
			t.Errorf("%d places are still taken", n)
		}
	})
}
