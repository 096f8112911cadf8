package h1

import (
	"bytes"
	"errors"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// Prior takes a connection over; done is called at its end.
type Prior func(c *sock.Conn, client exchange.Client, done func())

// errPrior is no error: the head is HTTP/2's preface.
var errPrior = errors.New("h1: the client speaks HTTP/2")

// preface is what a client that speaks HTTP/2 begins with (RFC 9113 section 3.4), as far as it looks like a request.
var preface = []byte("PRI * HTTP/2.0\r\n\r\n")

// speaksH2 reports whether the connection begins with HTTP/2's preface and there is somebody to take it.
func (c *conn) speaksH2(b []byte) bool {
	return c.served == 0 && b[0] == 'P' && c.server.Prior.Load() != nil && bytes.HasPrefix(b, preface)
}

// toPrior hands the connection over.
func (c *conn) toPrior() {
	c.Disarm()
	if c.live != nil {
		c.sleep()
	}
	prior := c.server.Prior.Load()
	if prior == nil { // a reload has taken HTTP/2 away since the preface was seen
		c.next = endNow
		return
	}
	c.Conn.Unread(bytes.Clone(c.in.Buffered()))
	(*prior)(c.Conn, c.client, c.done)
}
