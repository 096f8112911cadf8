package h1

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"strings"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// webSocket is the protocol's name in Upgrade (RFC 6455 section 4.1). It is asked for by GET.
const webSocket = "websocket"

// wanted returns the protocol that the request's client wants to switch to (RFC 9110 section 7.8), in lower case; "": none
// that the gateway would ask for. A wish for HTTP/2 or TLS is about the client's own connection and ends here.
func (head *Head) wanted(method string) string {
	if head.Old || !head.asks {
		return ""
	}
	first := ""
	for offer := range strings.SplitSeq(head.Protocols, ",") {
		name := strings.ToLower(strings.Trim(offer, " \t"))
		switch base, _, _ := strings.Cut(name, "/"); base {
		case webSocket:
			if name == webSocket && method == "GET" {
				return name
			}
		case "h2c", "h2", "http", "tls":
		default:
			if first == "" && validProtocol(name) {
				first = name
			}
		}
	}
	return first
}

// validProtocol accepts a name with an optional version.
func validProtocol(s string) bool {
	name, version, versioned := strings.Cut(s, "/")
	return exchange.ValidName(name) && (!versioned || exchange.ValidName(version))
}

// switches reports whether a reply of status 101 switches to that protocol, and to no other.
func (head *Head) switches(protocol string) bool {
	return protocol != "" && head.asks && exchange.EqualFold(head.Protocols, protocol)
}

// replySwitch sends a reply by which the connection becomes something else. That is carried when the handler has returned.
func (c *conn) replySwitch(x *exchange.Exchange) error {
	c.closes, c.broken = true, true
	if err := c.writeSwitch(x); err != nil {
		return err
	}
	if ahead := c.in.Buffered(); len(ahead) > 0 { // what stands behind the head is the first of the other protocol
		c.Conn.Unread(bytes.Clone(ahead))
	}
	c.in.Release()
	return exchange.ErrSwitched
}

// becomeTunnel lets what the connection has become be carried to its end. No goroutine waits for that meanwhile: most tunnels
// are idle most of the time, and there are many.
func (c *conn) becomeTunnel() {
	c.next = endNow
	x := &c.x
	ended := func(err error) {
		defer c.end()
		c.reset = err != nil
		x.Finish(err)
		c.cancel.Rest()
	}
	if s, ok := x.Reply.Tunnel.(exchange.Starter); ok {
		s.Start(x, c.Conn, ended)
		return
	}
	go func() { ended(x.Reply.Tunnel.Carry(x, c.Conn)) }()
}

func (c *conn) writeSwitch(x *exchange.Exchange) error {
	const accept = "Sec-WebSocket-Accept"
	if h := &x.Reply.Header; x.Request.Upgrade == webSocket && !h.Has(accept) { // an upstream over HTTP/2 gives none
		h.Add(accept, acceptOf(x.Request.Header.Get("Sec-WebSocket-Key")))
	}
	out := sock.Get()
	defer sock.Put(out)
	b := append((*out)[:0], statusLines[101]...)
	b = x.Reply.Header.AppendTo(b)
	b = append(appendUpgrade(b, x.Request.Upgrade), "\r\n"...)
	_, err := c.write(b)
	return err
}

func appendUpgrade(b []byte, protocol string) []byte {
	b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
	b = append(b, protocol...)
	return append(b, "\r\n"...)
}

// handshake prepares a request that asks the upstream to switch. A WebSocket's client of another version of HTTP has no
// key (RFC 8441 section 5), so it gets one, whose answer it is not told.
func (c *Call) handshake(r *exchange.Request) {
	c.ownKey = r.Upgrade == webSocket && (!strings.HasPrefix(r.Proto, "HTTP/1") || !r.Header.Has("Sec-WebSocket-Key"))
	if c.ownKey {
		var key [16]byte
		_, _ = rand.Read(key[:]) // never fails
		r.Header.Set("Sec-WebSocket-Key", base64.StdEncoding.EncodeToString(key[:]))
	}
}

// The ways in which a switch is not what was asked for.
var (
	errSwitch = bad("The upstream switched to a protocol that was not asked for.")
	errAccept = bad("The upstream's Sec-WebSocket-Accept is not the one for the key.")
)

// checkSwitch says what is wrong with a reply of status 101, or nil.
func (c *Call) checkSwitch(x *exchange.Exchange, head *Head) error {
	h := &x.Reply.Header
	switch {
	case !head.switches(x.Request.Upgrade) || c.pump != nil:
		return errSwitch
	case x.Request.Upgrade != webSocket:
		return nil
	case h.Joined("Sec-WebSocket-Accept") != acceptOf(x.Request.Header.Get("Sec-WebSocket-Key")):
		return errAccept
	}
	if c.ownKey {
		h.Del("Sec-WebSocket-Accept")
	}
	return nil
}

// acceptOf is the answer to a key (RFC 6455 section 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// switched makes the connection the reply's stream. It has no other use any more, and needs no memory of ours.
func (c *Call) switched(x *exchange.Exchange) {
	if ahead := c.in.Buffered(); len(ahead) > 0 {
		c.conn.Unread(bytes.Clone(ahead))
	}
	c.in.Release()
	sock.Put(c.out)
	c.out, c.keep = nil, false
	x.Reply.Body = exchange.Body{}
	x.Reply.Switched = c.conn.Conn
}
