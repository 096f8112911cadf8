package record

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// piecewise is a body in pieces, before each of which time passes.
type piecewise struct {
	pieces []string
	pause  func()
}

func (p *piecewise) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

func (p *piecewise) Next() ([]byte, error) {
	if len(p.pieces) == 0 {
		return nil, io.EOF
	}
	p.pause()
	next := p.pieces[0]
	p.pieces = p.pieces[1:]
	return []byte(next), nil
}

func TestEventsOfAStreamAreCounted(t *testing.T) {
	const two = "event: a\ndata: 1\n\n: comment\n\ndata: 2\r\ndata: 3\r\n\r\n\n\nid: 4"
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			x := &exchange.Exchange{}
			x.Reply.Header.Add("Content-Type", "text/Event-Stream; charset=utf-8")
			x.Reply.Body = exchange.Body{Reader: wrap(strings.NewReader(two)), Length: -1}
			r.Watch(x)
			got, err := io.ReadAll(x.Reply.Body.Reader)
			if err != nil || string(got) != two || x.Usage.Events != 2 {
				t.Errorf("%d events, %q, %v", x.Usage.Events, got, err)
			}
		})
	}
}

func TestFirstByteAndLargestGap(t *testing.T) {
	r := newRig(t)
	x := &exchange.Exchange{Start: r.clock.Now()}
	pauses := []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 3 * time.Second}
	p := &piecewise{pieces: []string{": hello\n\n", "data: 1\n\n", "data: 2\n\ndata: 3\n\n", "data: 4\n\n"}, pause: func() {
		r.clock.Advance(pauses[0])
		pauses = pauses[1:]
	}}
	x.Reply.Header.Add("Content-Type", "text/event-stream")
	x.Reply.Body = exchange.Body{Reader: p, Length: -1}
	r.Watch(x)
	pieces := x.Reply.Body.Reader.(exchange.Piecewise)
	for err := error(nil); err == nil; {
		_, err = pieces.Next()
	}
	if u := x.Usage; u.FirstByte != time.Second || u.Events != 4 || u.LargestGap != 5*time.Second {
		t.Errorf("got %+v", u)
	}
}

func TestOtherBodiesAreWatchedOnlyWhenTheLogAsks(t *testing.T) {
	r := newRig(t)
	body := strings.NewReader("hello")
	ask := func() *exchange.Exchange {
		x := &exchange.Exchange{Start: r.clock.Now()}
		x.Reply.Header.Add("Content-Type", "application/json")
		x.Reply.Body = exchange.Body{Reader: body, Length: -1}
		r.Watch(x)
		return x
	}
	if x := ask(); x.Reply.Body.Reader != io.Reader(body) {
		t.Error("a body that nobody asked about was wrapped")
	}
	plain := &exchange.Exchange{Reply: exchange.Reply{Body: exchange.Body{Reader: body, Length: -1}}}
	if n := testing.AllocsPerRun(100, func() { r.Watch(plain) }); n > 0 {
		t.Errorf("%v allocations for what is not watched", n)
	}
	s := Settings{Access: model.AccessLog{
		To: "stderr", Format: "json", Fields: []string{"first_byte_ms"}, Buffer: 1 << 16, Flush: time.Second,
	}}
	if err := r.Configure(s); err != nil {
		t.Fatal(err)
	}
	x := ask()
	r.clock.Advance(3 * time.Millisecond)
	if _, err := io.ReadAll(x.Reply.Body.Reader); err != nil || x.Usage.FirstByte != 3*time.Millisecond {
		t.Errorf("got %v, %v", x.Usage.FirstByte, err)
	}
}
