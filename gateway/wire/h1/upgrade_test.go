package h1

import (
	"testing"

	"headgate/gateway/exchange"
)

func TestTheProtocolThatIsWanted(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"websocket", get("Connection: Upgrade", "Upgrade: websocket"), "websocket"},
		{"in capitals, among other options", get("Connection: keep-alive, upGRADE", "Upgrade: WebSocket"), "websocket"},
		{"another one", get("Connection: upgrade", "Upgrade: Chat/2"), "chat/2"},
		{"the first of several", get("Connection: upgrade", "Upgrade: chat, irc/6.9"), "chat"},
		{"websocket among several", get("Connection: upgrade", "Upgrade: chat, websocket"), "websocket"},
		{"over several lines", get("Connection: upgrade", "Upgrade: chat", "Upgrade: websocket"), "websocket"},
		{"h2c never", get("Connection: upgrade, http2-settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"), ""},
		{"h2c and websocket", get("Connection: upgrade", "Upgrade: h2c, websocket"), "websocket"},
		{"TLS never", get("Connection: upgrade", "Upgrade: TLS/1.0, HTTP/1.1"), ""},
		{"not named by Connection", get("Upgrade: websocket"), ""},
		{"no protocol", get("Connection: upgrade"), ""},
		{"an empty one", get("Connection: upgrade", "Upgrade: "), ""},
		{"no token", get("Connection: upgrade", "Upgrade: a b"), ""},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", ""},
		{"websocket by POST", "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", ""},
		{"another one by POST", "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n", "chat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _, _, err := parseRequest(c.raw, testLimits())
			if err != nil || r.Upgrade != c.want {
				t.Errorf("%q: got %q, %v; want %q", c.raw, r.Upgrade, err, c.want)
			}
			if r.Header.Has("Upgrade") || r.Header.Has("Connection") {
				t.Errorf("%q: what is about the connection goes on: %s", c.raw, listed(&r.Header))
			}
		})
	}
}

// TestSwitchesThatAreAnswers uses the key and the answer of RFC 6455 section 1.3.
func TestSwitchesThatAreAnswers(t *testing.T) {
	const key, accept = "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	for _, c := range []struct {
		name, asked string
		fields      []string
		want        error
	}{
		{"websocket", "websocket", []string{"Connection: Upgrade", "Upgrade: WebSocket", accept}, nil},
		{"another protocol", "chat", []string{"Connection: Upgrade", "Upgrade: chat"}, nil},
		{"not asked for", "", []string{"Connection: Upgrade", "Upgrade: websocket", accept}, errSwitch},
		{"not the one asked for", "websocket", []string{"Connection: Upgrade", "Upgrade: chat", accept}, errSwitch},
		{"more than the one asked for", "websocket", []string{"Connection: Upgrade", "Upgrade: websocket, chat", accept}, errSwitch},
		{"without saying to what", "websocket", []string{"Connection: Upgrade", accept}, errSwitch},
		{"not about the connection", "websocket", []string{"Upgrade: websocket", accept}, errSwitch},
		{"no answer to the key", "websocket", []string{"Connection: Upgrade", "Upgrade: websocket"}, errAccept},
		{"a wrong answer to the key", "websocket", []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Accept: x"}, errAccept},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := "HTTP/1.1 101 Switching Protocols\r\n" + lines(c.fields) + "\r\n"
			var x exchange.Exchange
			head, err := ParseResponse([]byte(raw), testLimits(), "GET", &x.Reply)
			if err != nil {
				t.Fatal(err)
			}
			x.Request.Upgrade = c.asked
			x.Request.Header.Add("Sec-WebSocket-Key", key)
			if err := new(Call).checkSwitch(&x, &head); err != c.want && error(c.want) != err {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestAClientOfAnotherVersionOfHTTPGetsAKey(t *testing.T) {
	var c Call
	r := &exchange.Request{Proto: "HTTP/2.0", Upgrade: "websocket"}
	c.handshake(r)
	key := r.Header.Get("Sec-WebSocket-Key")
	if len(key) != 24 || !c.ownKey {
		t.Fatalf("key %q", key)
	}
	raw := "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + acceptOf(key) + "\r\n\r\n"
	x := exchange.Exchange{Request: *r}
	head, err := ParseResponse([]byte(raw), testLimits(), "GET", &x.Reply)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.checkSwitch(&x, &head); err != nil || x.Reply.Header.Has("Sec-WebSocket-Accept") {
		t.Errorf("got %v and %s; the client has no use for the answer", err, listed(&x.Reply.Header))
	}
}
