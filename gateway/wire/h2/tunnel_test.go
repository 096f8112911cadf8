package h2

import (
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/tunnel"
	"headgate/internal/sock"
)

// plan carries a tunnel as a route does.
type plan struct{ results chan tunnel.Result }

// Carry implements exchange.Tunnel.
func (p plan) Carry(x *exchange.Exchange, client exchange.Stream) error {
	r := tunnel.Relay(client, x.Reply.Switched, tunnel.Options{})
	p.results <- r
	return r.Err
}

// switching answers an extended CONNECT with one end of a connection, whose other end it hands out.
func switching(t *testing.T, far chan net.Conn, results chan tunnel.Result) carrier {
	return func(x *exchange.Exchange) {
		if x.Request.Upgrade != "websocket" || x.Request.Method != "GET" || !x.Request.Body.None() || x.Request.Path != "/chat" {
			t.Errorf("%s %s, to %q", x.Request.Method, x.Request.Path, x.Request.Upgrade)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		other, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		nc, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		up, err := sock.New(nc, sock.NewSweeper(), nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		far <- other
		x.Reply.Status, x.Reply.Switched, x.Reply.Tunnel = 101, up, plan{results}
		x.Reply.Header.Add("Sec-WebSocket-Protocol", "chat")
		_ = x.Wire.Reply(x)
	}
}

func openTunnel(t *testing.T) (p *client, far net.Conn, results chan tunnel.Result) {
	fars := make(chan net.Conn, 1)
	results = make(chan tunnel.Result, 1)
	p = dial(t, begin(t, switching(t, fars, results), nil))
	p.until("SETTINGS")
	p.head(1, false, get(":method", "CONNECT", ":protocol", "WebSocket", ":path", "/chat", "sec-websocket-protocol", "chat"))
	far = <-fars
	t.Cleanup(func() { _ = far.Close() })
	p.until("HEADERS 1")
	if a := p.of(1); a.status != "200" || a.header["sec-websocket-protocol"] != "chat" || a.ended {
		t.Fatalf("%+v", a)
	}
	return p, far, results
}

func TestAnExtendedCONNECTBecomesATunnel(t *testing.T) {
	p, far, results := openTunnel(t)
	p.data(1, false, "ping")
	b := make([]byte, 4)
	if _, err := io.ReadFull(far, b); err != nil || string(b) != "ping" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := io.WriteString(far, "pong"); err != nil {
		t.Fatal(err)
	}
	for string(p.of(1).body) != "pong" {
		p.next()
	}
	p.data(1, true, "last words")
	if b, err := io.ReadAll(far); err != nil || string(b) != "last words" {
		t.Errorf("%q, %v", b, err)
	}
	_ = far.Close()
	if a := p.answer(1); !a.ended || a.reset != "" {
		t.Errorf("%+v", a)
	}
	if r := <-results; r.Ended != tunnel.ClientClosed || r.Sent != 14 || r.Received != 4 {
		t.Errorf("%+v", r)
	}
}

func TestGivingATunnelUpEndsIt(t *testing.T) {
	p, far, results := openTunnel(t)
	p.must(p.framer.WriteRSTStream(1, http2.ErrCodeCancel))
	if r := <-results; r.Ended != tunnel.ClientFailed {
		t.Errorf("%+v", r)
	}
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("the upstream's side is open")
	}
}
