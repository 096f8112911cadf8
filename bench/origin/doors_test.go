package origin

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// run serves until the end of the test.
func run(t *testing.T, s interface {
	Serve() error
	io.Closer
}) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve() // it ends with the listener
	}()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
}

// bytesCodec passes messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = bytes.Clone(b); return nil }
func (bytesCodec) Name() string                    { return "raw" }

func TestARealClientIsAnsweredOverGRPC(t *testing.T) {
	g, err := ListenGRPC("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, g)
	client, err := grpc.NewClient(g.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 100 {
		question, answer := make([]byte, 10_000), []byte(nil)
		if err := client.Invoke(t.Context(), "/bench.Origin/Call", &question, &answer); err != nil || len(answer) != 100 {
			t.Fatalf("%d bytes, %v", len(answer), err)
		}
	}
	if g.Answered() != 100 {
		t.Errorf("%d were counted", g.Answered())
	}
}

func TestMessagesComeBackOverAWebSocket(t *testing.T) {
	e, err := ListenEcho("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, e)
	c, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for _, step := range []struct {
		fields string
		status int
	}{{"", 200}, {"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 101}} {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: echo\r\n"+step.fields+"\r\n"); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(in, nil)
		if err != nil || r.StatusCode != step.status {
			t.Fatalf("%v, %v", r, err)
		}
		if got := r.Header.Get("Sec-WebSocket-Accept"); step.status == 101 && got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455 section 1.3
			t.Errorf("accepted with %q", got)
		}
	}
	for _, text := range []string{"one", strings.Repeat("2", 125), ""} {
		if _, err := io.WriteString(c, "\x81"+string([]byte{0x80 | byte(len(text)), 0, 0, 0, 0})+text); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 2+len(text))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != "\x81"+string([]byte{byte(len(text))})+text {
			t.Fatalf("%q, %v", got, err)
		}
	}
}
