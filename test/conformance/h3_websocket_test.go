package conformance

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// A WebSocket over HTTP/3 (RFC 9220) reaches a service that knows it over HTTP/1.1 only.
func TestAWebSocketOverHTTP3(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			return // the client has been answered
		}
		defer c.CloseNow()
		kind, p, err := c.Read(r.Context())
		if err == nil {
			err = c.Write(r.Context(), kind, append([]byte("you said "), p...))
		}
		if err == nil {
			_ = c.Close(websocket.StatusNormalClosure, "")
		}
	}))
	t.Cleanup(origin.Close)
	s := newQUIC(t, h3)
	s.apis = "upstreams: {o: " + origin.URL + "}\napis: {all: {upstream: o}}\n"
	s.mustLoad(h3)

	conf := s.client("a.example")
	conf.NextProtos = []string{http3.NextProtoH3}
	conn := must(quicgo.DialAddr(t.Context(), s.address, conf, nil))(t)
	defer func() { _ = conn.CloseWithError(0x100, "") }()
	client := (&http3.Transport{}).NewClientConn(conn)
	<-client.ReceivedSettings()
	if !client.Settings().EnableExtendedConnect {
		t.Fatal("the server does not offer it")
	}
	str := must(client.OpenRequestStream(t.Context()))(t)
	req := must(http.NewRequest(http.MethodConnect, "https://a.example/chat", nil))(t)
	req.Proto = "websocket"
	req.Header = http.Header{"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {"chat"}}
	if err := str.SendRequestHeader(req); err != nil {
		t.Fatal(err)
	}
	_ = str.SetReadDeadline(time.Now().Add(patience))
	rsp := must(str.ReadResponse())(t)
	if rsp.StatusCode != 200 || rsp.Header.Get("Sec-Websocket-Protocol") != "chat" || rsp.Header.Get("Sec-Websocket-Accept") != "" {
		t.Fatalf("%d, %v", rsp.StatusCode, rsp.Header)
	}
	must(str.Write(text("hello")))(t)
	want := "you said hello"
	got := make([]byte, 2+len(want))
	if _, err := io.ReadFull(str, got); err != nil || got[0] != 0x81 || string(got[2:]) != want {
		t.Fatalf("%q, %v", got, err)
	}
	bye := make([]byte, 4) // 1000: normal closure
	if _, err := io.ReadFull(str, bye); err != nil || bye[0] != 0x88 || bye[2] != 1000>>8 || bye[3] != 1000&0xff {
		t.Errorf("% x, %v", bye, err)
	}
	must(str.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}))(t) // the answer to it
	if n, err := str.Read(got); n != 0 || err != io.EOF {
		t.Errorf("it ends with %d bytes and %v", n, err)
	}
}

// text is a masked frame of a short text (RFC 6455 section 5.2); the mask is zero.
func text(s string) []byte {
	return append([]byte{0x81, 0x80 | byte(len(s)), 0, 0, 0, 0}, s...)
}
