package conformance

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// onTheWire are requests whose answer must not depend on how they are cut into segments, or on what only the connection tells.
var onTheWire = []struct {
	name   string
	pieces []string // written apart
	right  int
	clause string
}{
	{"an empty line before a request, its CR and LF in two segments",
		[]string{"\r", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"}, 200,
		"RFC 9112 section 2.2: an empty line before the request line is ignored, however it arrives"},
	{"an https target on a connection that is not encrypted",
		[]string{"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n"}, 400,
		"RFC 9110 section 7.4: an https resource is only served on a secured connection; see Head.Scheme"},
}

func TestWhatOnlyTheWireTells(t *testing.T) {
	address := startGateway(t)
	for _, c := range onTheWire {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, address)
			if err := conn.(*net.TCPConn).SetNoDelay(true); err != nil {
				t.Fatal(err)
			}
			for i, piece := range c.pieces {
				if i > 0 {
					apart(t, conn)
				}
				if _, err := io.WriteString(conn, piece); err != nil {
					t.Fatal(err)
				}
			}
			if status := answer(t, bufio.NewReader(conn)); status != c.right {
				t.Errorf("answers %d %s, and must answer %d (%s)", status, http.StatusText(status), c.right, c.clause)
			}
		})
	}
}

// apart gives the gateway time to read what was written, and fails if it answers.
func apart(t *testing.T, c net.Conn) {
	t.Helper()
	stays(t, c)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}
