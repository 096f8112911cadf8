package origin

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"headgate/bench/payload"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server that lives as long as the test's process.
func serve(t *testing.T) string {
	t.Helper()
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return s.Addr().String()
}

func TestGetsAreAnsweredAndCounted(t *testing.T) {
	base := "http://" + serve(t)
	for range 3 {
		if got := body(t, get(t, base+"/orders"), 200); !bytes.Equal(got, payload.Small()) {
			t.Fatalf("%q", got)
		}
	}
	if got := body(t, get(t, base+"/big"), 200); !bytes.Equal(got, payload.Big()) {
		t.Fatalf("%d bytes", len(got))
	}
	if got := body(t, get(t, base+"/count"), 200); string(got) != "4" {
		t.Fatalf("counted %s", got)
	}
}

func TestABodyIsComparedByteForByte(t *testing.T) {
	base := "http://" + serve(t)
	changed := payload.Big()
	changed[700_000] ^= 1
	for name, c := range map[string]struct {
		body   []byte
		status int
	}{
		"as it should be": {payload.Big(), 200},
		"one bit changed": {changed, 500},
		"a byte short":    {payload.Big()[1:], 500},
		"cut at the end":  {payload.Big()[:payload.BigSize-1], 500},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := http.Post(base+"/orders", "text/plain", bytes.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			body(t, reply, c.status)
		})
	}
}

func TestTheGuardedPathDemandsARequestIDAndNoKey(t *testing.T) {
	addr := serve(t)
	const id = "X-Request-Id: 0192f7c4-2b1e-7a6b-9f00-112233445566\r\n"
	for name, c := range map[string]struct {
		header string
		status int
	}{
		"id and no key": {id, 200},
		"no id":         {"", 500},
		"id and key":    {id + "x-api-key: k\r\n", 500},
		"chunked":       {id + "Transfer-Encoding: chunked\r\n", 500},
	} {
		t.Run(name, func(t *testing.T) {
			body(t, raw(t, addr, "GET /guarded/x HTTP/1.1\r\nHost: a\r\n"+c.header+"\r\n"), c.status)
		})
	}
}

func TestAHeadMayComeByteByByteAndTwoAtOnce(t *testing.T) {
	conn, err := net.Dial("tcp", serve(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, b := range []byte("GET /a HTTP/1.1\r\nHost: a\r\n\r\n") {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(conn, strings.Repeat("GET /b HTTP/1.1\r\nHost: a\r\n\r\n", 2)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for range 3 {
		reply, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body(t, reply, 200)
	}
}

func get(t *testing.T, url string) *http.Response {
	t.Helper()
	reply, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func raw(t *testing.T, addr, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func body(t *testing.T, reply *http.Response, status int) []byte {
	t.Helper()
	defer func() { _ = reply.Body.Close() }()
	b, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	if reply.StatusCode != status || reply.Header.Get("X-Origin") != "bench" {
		t.Fatalf("status %d, want %d; %.100s", reply.StatusCode, status, b)
	}
	return b
}
