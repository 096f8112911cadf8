// Package websocket proves that WebSockets and event streams pass through the real binary as they are, whichever version of
// HTTP the client speaks.
package websocket

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"

	"headgate/internal/testkit"
)

var built string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "headgate-websocket")
	if err == nil {
		defer os.RemoveAll(dir)
		built, err = testkit.Build(context.Background(), dir, false)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// patience is how long anything may take that is not what a test measures.
const patience = 30 * time.Second

// start starts a gateway in front of an upstream and returns it with the address of its door in clear.
func start(t *testing.T, upstream string) (*testkit.Gateway, string) {
	t.Helper()
	address, err := testkit.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return testkit.Start(t, built, fmt.Sprintf("listeners: {public: {address: %q}}\nupstreams: {echo: %q}\n"+
		"apis:\n  echo: {upstream: echo}\n  packed: {base_path: /packed, upstream: echo, policies: [compress: {}]}\n"+
		"  fixed: {base_path: /fixed, routes: {all: {respond: {body: fixed}, match: GET /**}}}\n", address, upstream)), address
}

// mirror is an upstream that switches to anything that is asked for and then sends back every byte as it came: the frames of
// a client, still masked.
func mirror(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go reflect(c.(*net.TCPConn))
		}
	}()
	return "http://" + l.Addr().String()
}

func reflect(c *net.TCPConn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 2<<10)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		r.Header.Get("Upgrade"), base64.StdEncoding.EncodeToString(sum[:]))
	_, _ = io.Copy(c, in) // what breaks is seen by the client
	_ = c.CloseWrite()
}

// endpoint is an upstream that is a real WebSocket endpoint: it sends messages back.
func endpoint(t *testing.T, o *websocket.AcceptOptions) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, o)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return "http://" + l.Addr().String()
}

// stream is what a client has when its handshake has succeeded.
type stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// door is a way to open a WebSocket.
type door func(t *testing.T, address, path string) stream

var doors = map[string]door{"h1": overH1, "h2": overH2}

// key is the one of RFC 6455 section 1.3.
const key, accept = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

type h1Stream struct {
	*net.TCPConn
	in *bufio.Reader
}

// Read implements io.Reader.
func (s *h1Stream) Read(p []byte) (int, error) { return s.in.Read(p) }

// overH1 opens a WebSocket over HTTP/1.1 (RFC 6455).
func overH1(t *testing.T, address, path string) stream {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(patience))
	_, err = fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %s\r\n"+
		"Sec-WebSocket-Version: 13\r\n\r\n", path, key)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReaderSize(nc, 1<<10)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != 101 || answer.Header.Get("Sec-WebSocket-Accept") != accept {
		t.Fatalf("the handshake is answered with %s %v", answer.Status, answer.Header)
	}
	return &h1Stream{nc.(*net.TCPConn), in}
}
