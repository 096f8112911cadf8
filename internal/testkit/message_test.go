package testkit

import (
	"net"
	"strings"
	"testing"
	"time"
)

// read sends bytes through a real connection and reads them as a reply.
func read(t *testing.T, bytes string) (*message, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte(bytes)); err != nil {
		t.Fatal(err)
	}
	far.Close()
	w, deadline := &wire{Conn: near}, time.Now().Add(patience)
	m, err := w.head(deadline)
	if err == nil {
		err = w.readBody(m, false, true, deadline)
	}
	return m, err
}

func TestMessagesAreReadStrictly(t *testing.T) {
	for _, c := range []struct{ name, bytes, body, fault string }{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", ""},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nA: b\r\n\r\n", "ok", ""},
		{"to the end", "HTTP/1.1 200 OK\r\n\r\nok", "ok", ""},
		{"short", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", "", errEnded.Error()},
		{"short chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", "", errEnded.Error()},
		{"no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "", errEnded.Error()},
		{"both", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "",
			"Content-Length and Transfer-Encoding"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nok", "", "more than one Content-Length"},
		{"coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "", "Transfer-Encoding"},
		{"bare line feed", "HTTP/1.1 200 OK\nA: b\r\n\r\n", "", "control character"},
		{"bare line feed in a field", "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", "", "is no header field"},
		{"space before the colon", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "", "is no header field"},
		{"chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\no\r\n0\r\n\r\n", "", "is no chunk size"},
		{"chunk end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n", "", "is followed by"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := read(t, c.bytes)
			if c.fault == "" && (err != nil || string(m.body) != c.body) {
				t.Errorf("body %q, %v", m.body, err)
			}
			if c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("got %v, want %q", err, c.fault)
			}
		})
	}
}

func TestDeadRefusesAndStuckWaits(t *testing.T) {
	dead, release, err := deadAddress()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if c, err := net.Dial("tcp", dead); err == nil {
		c.Close()
		t.Error("the dead address lets one connect")
	}
	stuck, release2, err := stuckAddress()
	if err != nil {
		t.Fatal(err)
	}
	defer release2()
	c, err := net.DialTimeout("tcp", stuck, 100*time.Millisecond)
	if err == nil {
		c.Close()
		t.Error("the stuck address lets one connect")
	} else if fault, ok := err.(net.Error); !ok || !fault.Timeout() {
		t.Errorf("the stuck address answers %v", err)
	}
}
