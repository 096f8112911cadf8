package h2

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// The server's first frame is SETTINGS (RFC 9113 section 3.4), also when a drain says goodbye between a connection's coming
// and its first frame; and it is said once.
func TestAGoodbyeStandsBehindThePreface(t *testing.T) {
	for _, how := range []string{"before it is served", "before it has come"} {
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
		if how == "before it has come" {
			r.Announce()
		}
		c := newConn(r.Server, far, exchange.Client{})
		r.conns.Join(c)
		r.Announce()
		c.greet()
		f := http2.NewFramer(nil, near)
		var got []string
		for len(got) == 0 || got[len(got)-1] != "PING" {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, frame.Header().Type.String())
		}
		if all := strings.Join(got, " "); all != "SETTINGS WINDOW_UPDATE GOAWAY PING" {
			t.Errorf("%s: %s", how, all)
		}
		go func() {
			defer r.conns.Leave(c)
			c.serve()
		}()
		_ = near.Close()
	}
}
