package h1

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// wire is a connection under test: the gateway's end, read by a sock.Reader, and the peer's.
type wire struct {
	in      sock.Reader
	peer    *net.TCPConn
	sweeper *sock.Sweeper
}

// wires opens pairs of connections over one listener.
type wires struct {
	listener net.Listener
	sweeper  *sock.Sweeper
}

func newWires(t testing.TB) *wires {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &wires{l, sock.NewSweeper()}
}

func (w *wires) open(t rapid.TB) *wire {
	peer, err := net.Dial("tcp", w.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := w.listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := sock.New(nc, w.sweeper, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &wire{in: sock.Reader{Conn: c}, peer: peer.(*net.TCPConn), sweeper: w.sweeper}
}

func (w *wire) close() {
	w.in.Release()
	_ = w.in.Conn.Close() // the test is over
	_ = w.peer.SetLinger(0)
	_ = w.peer.Close()
}

// send writes raw from the peer's end in pieces that end at the cuts, each only when the one before it has been read, so
// that the reader meets exactly these pieces, and ends the sending side.
func (w *wire) send(raw string, cuts []int) error {
	raws, err := w.in.Conn.TCP().SyscallConn()
	if err != nil {
		return err
	}
	from := 0
	for _, cut := range append(slices.Clone(cuts), len(raw)) {
		if cut <= from || cut > len(raw) {
			continue
		}
		for from > 0 && unread(raws) > 0 {
			time.Sleep(time.Microsecond) // one processor alone would not look at sockets while somebody can run
		}
		if _, err := w.peer.Write([]byte(raw[from:cut])); err != nil {
			return err
		}
		from = cut
	}
	return w.peer.CloseWrite()
}

// message is what a body turned out to be.
type message struct {
	data, trailer, rest string
	err                 error // nil: complete
}

// how says how a body is framed and judged.
type how struct {
	kind    bodyKind
	length  int64
	limits  *Limits
	request bool // metered
}

// receive reads a body that arrives in the pieces given by cuts, to its end, and what stands behind it.
func (ws *wires) receive(t rapid.TB, raw string, cuts []int, h how) message {
	w := ws.open(t)
	defer w.close()
	var sending sync.WaitGroup
	sending.Go(func() { _ = w.send(raw, cuts) }) // fails when the reader has given up and reset the connection
	defer sending.Wait()
	defer w.peer.Close()

	if h.limits == nil {
		h.limits = testLimits()
	}
	var trailer exchange.Header
	var b Body
	b.begin(&w.in, &Head{Length: h.length}, h.kind, &trailer, h.limits, h.limits.BodyTime)
	if h.request {
		b.meter(w.sweeper)
	}
	var m message
	for m.err == nil {
		var p []byte
		p, m.err = b.Next()
		m.data += string(p)
	}
	if !errors.Is(m.err, io.EOF) {
		_ = w.in.Conn.Close() // what is still being sent finds nobody
		return m
	}
	if !b.Done() {
		t.Errorf("%q: read to its end and not done", raw)
	}
	rest, err := io.ReadAll(&w.in)
	if err != nil {
		t.Fatal(err)
	}
	return message{m.data, listed(&trailer), string(rest), nil}
}
