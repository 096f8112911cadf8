package h2

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// The server's first frame is SETTINGS (RFC 9113 section 3.4), also when a drain ends a connection between its coming and its
// first frame.
func TestAGoodbyeStandsBehindThePreface(t *testing.T) {
	r := begin(t, echo, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	far, err := sock.New(nc, r.Sweeper, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := newConn(r.Server, far, exchange.Client{})
	c.lastCall()
	c.greet()
	f := http2.NewFramer(nil, near)
	var got []string
	for len(got) == 0 || got[len(got)-1] != "GOAWAY" {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, frame.Header().Type.String())
	}
	if all := strings.Join(got, " "); all != "SETTINGS WINDOW_UPDATE GOAWAY" {
		t.Error(all)
	}
	r.conns.Go(c, c.serve)
	_ = near.Close()
}

// Who comes while the gateway says goodbye, or has come and asked nothing, is told with the answer to the first request: a
// client that is told before it would take the connection for one that cannot be had.
func TestAGoodbyeWaitsForTheFirstRequest(t *testing.T) {
	r := begin(t, echo, nil)
	before := dial(t, r)
	before.until("SETTINGS ACK")
	r.Announce()
	for _, p := range []*client{before, dial(t, r)} {
		p.must(p.framer.WritePing(false, [8]byte{}))
		if got := p.until("GOAWAY", "PING ACK"); got != "PING ACK" {
			t.Fatalf("before its first request it is told %s", got)
		}
		p.head(1, true, get())
		if got := p.until("GOAWAY"); got != "GOAWAY NO_ERROR" {
			t.Fatal(got)
		}
		if got := p.outcome(1); got != "200" {
			t.Fatal(got)
		}
	}
}
