package upstream

import (
	"io"
	"net"
	"testing"

	"headgate/gateway/exchange"
)

// plainTarget answers every request on a connection as fast as bytes can be moved.
func plainTarget(_ *origin, c net.Conn) {
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil || n < 4 || string(b[n-4:n]) != "\r\n\r\n" {
			return
		}
		if _, err := io.WriteString(c, ok); err != nil {
			return
		}
	}
}

// roundTrip asks and reads the whole reply.
func roundTrip(u *Upstream, x *exchange.Exchange) error {
	call, err := u.Send(x)
	if err != nil {
		return err
	}
	defer call.Close()
	_, err = io.Copy(io.Discard, x.Reply.Body.Reader)
	return err
}

// BenchmarkSend is a request and its reply over a connection that is used again, without the gateway around it.
func BenchmarkSend(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); plainTarget(nil, c) }()
		}
	}()
	u, err := New("shop", config(nil, l.Addr().String()), env(io.Discard))
	if err != nil {
		b.Fatal(err)
	}
	defer u.Close()
	x := ask("GET")
	b.ReportAllocs()
	for b.Loop() {
		*x = exchange.Exchange{Start: x.Start, Wire: x.Wire, Cancel: x.Cancel, Request: x.Request}
		if err := roundTrip(u, x); err != nil {
			b.Fatal(err)
		}
	}
}
