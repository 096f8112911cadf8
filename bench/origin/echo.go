package origin

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
)

// Echo answers a WebSocket handshake and then sends every message back, unmasked (RFC 6455). Messages are of at most 125
// bytes and masked with zeros, so that what shares its core is the load generator. Any other request gets 200.
type Echo struct{ listener net.Listener }

// ListenEcho opens the socket.
func ListenEcho(address string) (*Echo, error) {
	l, err := net.Listen("tcp4", address)
	return &Echo{l}, err
}

// Addr returns where the server listens.
func (e *Echo) Addr() net.Addr { return e.listener.Addr() }

// Close makes Serve return.
func (e *Echo) Close() error { return e.listener.Close() }

// Serve answers until the listener breaks.
func (e *Echo) Serve() error {
	for {
		c, err := e.listener.Accept()
		if err != nil {
			return err
		}
		go echo(c)
	}
}

// Accept is the answer to a key (RFC 6455 section 4.2.2).
func Accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func echo(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 4<<10)
	for switched := false; !switched; {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
		if switched = r.Header.Get("Upgrade") == "websocket"; switched {
			answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " +
				Accept(r.Header.Get("Sec-WebSocket-Key")) + "\r\n\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
	const clientHead, serverHead = 6, 2
	for {
		head, err := in.Peek(clientHead)
		if err != nil {
			return
		}
		n := int(head[1] & 0x7f)
		whole, err := in.Peek(clientHead + n)
		if err != nil {
			return
		}
		whole[clientHead-serverHead], whole[clientHead-1] = whole[0], byte(n)
		if _, err := c.Write(whole[clientHead-serverHead:]); err != nil {
			return
		}
		if _, err := in.Discard(clientHead + n); err != nil {
			return
		}
	}
}
