package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// everyDoor is a gateway with a door of each kind in front of an origin ${A}, a gRPC service ${G} and a TCP service ${T}.
// What stands in ${PUBLIC}, ${TLS}, ${SECURE_SETTINGS} and ${RAW} is added to the doors.
const everyDoor = `
listeners:
  public: {address: "${LISTEN}"${PUBLIC}}
  secure:
    address: "${SECURE}"
    protocols: [h1, h2, h3]
    tls: {certificates: [{cert: "${DIR}/tls.crt", key: "${DIR}/tls.key"}]${TLS}}
    ${SECURE_SETTINGS}
  raw: {address: "${EXTRA}", tcp: {upstream: raw${RAW}}}
upstreams:
  a: "${A}"
  grpc: "${G}"
  raw: "${T}"
apis:
  all: {upstream: a}
  grpc: {base_path: /chaos.Chaos, upstream: grpc}
`

// doorsWith is everyDoor with what is to be added to its doors, in pairs.
func doorsWith(additions ...string) string {
	text := strings.NewReplacer(additions...).Replace(everyDoor)
	return strings.NewReplacer("${PUBLIC}", "", "${TLS}", "", "${SECURE_SETTINGS}", "", "${RAW}", "").Replace(text)
}

// services are what everyDoor stands in front of.
type services struct {
	*origin
	places []string
}

func startServicesBehind(t *testing.T) *services {
	t.Helper()
	o, a := startOrigin(t, "A")
	return &services{o, []string{"${A}", a, "${G}", "h2c://" + startGRPC(t), "${T}", "tcp://" + startEcho(t)}}
}

// chat echoes what a WebSocket brings.
func chat(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, b, err := c.Read(context.Background())
		if err != nil || c.Write(context.Background(), kind, b) != nil {
			return
		}
	}
}

// startEcho serves TCP by sending back what comes.
func startEcho(t *testing.T) string {
	t.Helper()
	f, url := startFault(t, func(c *faulty) { _, _ = io.Copy(c.TCPConn, c.in) })
	_ = f
	return strings.TrimPrefix(url, "http://")
}

// echoes is a gRPC service with a stream whose messages are counted in the end, and one that goes both ways.
var echoes = grpc.ServiceDesc{
	ServiceName: "chaos.Chaos", HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{StreamName: "Collect", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		for n := 0; ; n++ {
			switch err := s.RecvMsg(&wrapperspb.StringValue{}); {
			case errors.Is(err, io.EOF):
				return s.SendMsg(wrapperspb.String(fmt.Sprint(n)))
			case err != nil:
				return err
			}
		}
	}}, {StreamName: "Echo", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		for {
			var m wrapperspb.StringValue
			switch err := s.RecvMsg(&m); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			}
			if err := s.SendMsg(&m); err != nil {
				return err
			}
		}
	}}},
}

func startGRPC(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	s.RegisterService(&echoes, nil)
	var group sync.WaitGroup
	group.Go(func() { _ = s.Serve(l) }) // it ends by being stopped
	t.Cleanup(func() { s.Stop(); group.Wait() })
	return l.Addr().String()
}

// lasting is something that stays open for long and answers each text with the same text.
type lasting struct {
	name string
	echo func(text string) error
	end  func() error // ends it in peace, with its connection
}

// must be echoed, now.
func (l *lasting) must(t *testing.T, text string) {
	t.Helper()
	if err := l.echo(text); err != nil {
		t.Errorf("%s: %v", l.name, err)
	}
}

// lastings opens one of each kind.
func (h *house) lastings(t *testing.T) []*lasting {
	t.Helper()
	return []*lasting{
		h.tcpLasting(t), h.grpcLasting(t), socketLasting("ws", h.webSocket(t, dial(t, h.listen))),
		socketLasting("wss", h.webSocket(t, h.dialTLS(t, "http/1.1"))), socketLasting("ws over h2", h.webSocketH2(t)),
		socketLasting("ws over h3", h.webSocketH3(t)),
	}
}

func (h *house) tcpLasting(t *testing.T) *lasting {
	c := dial(t, h.extra)
	return &lasting{"tcp", func(text string) error {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		got := make([]byte, len(text))
		_, err := io.WriteString(c, text)
		if err == nil {
			_, err = io.ReadFull(c, got)
		}
		if err == nil && string(got) != text {
			err = fmt.Errorf("%q", got)
		}
		return err
	}, c.Close}
}

func (h *house) grpcLasting(t *testing.T) *lasting {
	t.Helper()
	conn, s := h.grpcStream(t, 1)
	return &lasting{"grpc", func(text string) error {
		var got wrapperspb.StringValue
		err := s.SendMsg(wrapperspb.String(text))
		if err == nil || errors.Is(err, io.EOF) { // the stream has ended, and RecvMsg says why
			err = s.RecvMsg(&got)
		}
		if err == nil && got.Value != text {
			err = fmt.Errorf("%q", got.Value)
		}
		return err
	}, func() error {
		defer conn.Close()
		if err := s.CloseSend(); err != nil {
			return err
		}
		if err := s.RecvMsg(&wrapperspb.StringValue{}); !errors.Is(err, io.EOF) {
			return fmt.Errorf("the stream ends with %w", err)
		}
		return nil
	}}
}

// grpcStream opens one of the streams of echoes, on a connection of its own.
func (h *house) grpcStream(t *testing.T, which int) (*grpc.ClientConn, grpc.ClientStream) {
	t.Helper()
	conn, err := grpc.NewClient(h.secure, grpc.WithTransportCredentials(credentials.NewTLS(h.trust())), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	stream := &echoes.Streams[which]
	s, err := conn.NewStream(ctx, stream, "/chaos.Chaos/"+stream.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	return conn, s
}

// webSocket is the client's side of one, by RFC 6455 and with nothing more.
type webSocket struct {
	io.ReadWriter
	in    *bufio.Reader
	close func() error // the connection below
}

func newWebSocket(c io.ReadWriter, close func() error) *webSocket {
	return &webSocket{c, bufio.NewReader(c), close}
}

// frame makes a masked frame, whose mask is zero.
func frame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// First bytes of frames.
const (
	wholeText  = 0x81
	firstText  = 0x01
	moreText   = 0x00
	closeFrame = 0x88
)

// read returns the next frame.
func (w *webSocket) read() (first byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(head[1] & 0x7f)
	if n == 126 {
		var long [2]byte
		if _, err := io.ReadFull(w.in, long[:]); err != nil {
			return 0, nil, err
		}
		n = int(binary.BigEndian.Uint16(long[:]))
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(w.in, payload)
	return head[0], payload, err
}

// farewell reads the close frame that must come next, and returns its status.
func (w *webSocket) farewell() (status int, err error) {
	first, p, err := w.read()
	if err != nil {
		return 0, err
	}
	if first != closeFrame || len(p) < 2 {
		return 0, fmt.Errorf("a frame %x %q", first, p)
	}
	return int(binary.BigEndian.Uint16(p)), nil
}

func socketLasting(name string, w *webSocket) *lasting {
	return &lasting{name, func(text string) error {
		if d, ok := w.ReadWriter.(interface{ SetDeadline(time.Time) error }); ok {
			if err := d.SetDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
		}
		if _, err := w.Write(frame(wholeText, text)); err != nil {
			return err
		}
		first, got, err := w.read()
		if err == nil && (first != wholeText || string(got) != text) {
			err = fmt.Errorf("a frame %x %q", first, got)
		}
		return err
	}, func() error {
		if _, err := w.Write(frame(closeFrame, "\x03\xe8")); err != nil {
			return err
		}
		if status, err := w.farewell(); err != nil || status != 1000 {
			return fmt.Errorf("closed with %d, %w", status, err)
		}
		return w.close()
	}}
}

// upgrade is the handshake of a WebSocket over HTTP/1.1.
var upgrade = request("GET /chat", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")

// webSocket opens one over HTTP/1.1 on a connection.
func (h *house) webSocket(t *testing.T, c net.Conn) *webSocket {
	t.Helper()
	w := newWebSocket(c, c.Close)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, upgrade); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(w.in, nil)
	if err != nil || r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the handshake is answered with %+v, %v", r, err)
	}
	return w
}

// webSocketH2 opens one by an extended CONNECT (RFC 8441) on a connection of its own.
func (h *house) webSocketH2(t *testing.T) *webSocket {
	t.Helper()
	p := newPeer(t, h.dialTLS(t, "h2"))
	p.send(t, func(f *http2.Framer) error {
		return p.head(f, 1, false, ":method", "CONNECT", ":protocol", "websocket", ":path", "/chat", "sec-websocket-version", "13")
	})
	s := p.stream(1)
	s.await(t, "the handshake", func() bool { return s.status != "" })
	if s.status != "200" {
		t.Fatalf("the handshake is answered with %s", s.status)
	}
	return newWebSocket(s, p.Close)
}

// webSocketH3 opens one over HTTP/3 (RFC 9220) on a connection of its own.
func (h *house) webSocketH3(t *testing.T) *webSocket {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	conn, err := quic.DialAddr(ctx, h.secure, h.trust(http3.NextProtoH3), nil)
	if err != nil {
		t.Fatal(err)
	}
	end := func() error { return conn.CloseWithError(0x100, "") }
	t.Cleanup(func() { _ = end() })
	client := (&http3.Transport{}).NewClientConn(conn)
	<-client.ReceivedSettings()
	s, err := client.OpenRequestStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodConnect, "https://localhost/chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Proto, r.Header = "websocket", http.Header{"Sec-Websocket-Version": {"13"}}
	if err := s.SendRequestHeader(r); err != nil {
		t.Fatal(err)
	}
	answer, err := s.ReadResponse()
	if err != nil || answer.StatusCode != 200 {
		t.Fatalf("the handshake is answered with %+v, %v", answer, err)
	}
	return newWebSocket(s, end)
}

// grown is a text of a size.
func grown(n int) string { return string(bytes.Repeat([]byte("x"), n)) }
