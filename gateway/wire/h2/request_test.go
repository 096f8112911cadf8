package h2

import (
	"io"
	"strings"
	"testing"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// What is a request, and what is not. Malformed ones are reset (RFC 9113 section 8.1.1); those that are well formed and
// not acceptable are answered, as over HTTP/1.1.
func TestRequests(t *testing.T) {
	long := strings.Repeat("a", 5<<10)
	tests := []struct {
		name   string
		fields []string
		want   string
	}{
		{"an ordinary one", get(), "200"},
		{"a query", get(":path", "/a?b=c"), "200"},
		{"asterisk form", get(":method", "OPTIONS", ":path", "*"), "200"},
		{"Host instead of :authority", get("-:authority", "", "host", "a.example"), "200"},
		{"Host that agrees", get("host", "A.example:80"), "200"},
		{"te: trailers", get("te", "trailers"), "200"},
		{"an unknown method", get(":method", "BREW"), "200"},
		{"https behind a load balancer", get(":scheme", "https"), "200"},
		{"IPv6", get(":authority", "[::1]:8080"), "200"},
		{"plain CONNECT", []string{":method", "CONNECT", ":authority", "a.example:443"}, "200"},
		{"extended CONNECT that nobody switches", get(":method", "CONNECT", ":protocol", "websocket"), "501"},

		{"without :method", get("-:method", ""), "RST_STREAM PROTOCOL_ERROR"},
		{"without :scheme", get("-:scheme", ""), "RST_STREAM PROTOCOL_ERROR"},
		{"without :path", get("-:path", ""), "RST_STREAM PROTOCOL_ERROR"},
		{"empty :path", get(":path", ""), "RST_STREAM PROTOCOL_ERROR"},
		{"a method that is no token", get(":method", "GE T"), "RST_STREAM PROTOCOL_ERROR"},
		{":status in a request", get(":status", "200"), "RST_STREAM PROTOCOL_ERROR"},
		{"an unknown pseudo-header field", get(":other", "x"), "RST_STREAM PROTOCOL_ERROR"},
		{"a pseudo-header field twice", append(get(), ":path", "/b"), "RST_STREAM PROTOCOL_ERROR"},
		{"a pseudo-header field behind others", append([]string{"a", "b"}, get()...), "RST_STREAM PROTOCOL_ERROR"},
		{"an upper-case name", get("Accept", "x"), "RST_STREAM PROTOCOL_ERROR"},
		{"an empty name", get("", "x"), "RST_STREAM PROTOCOL_ERROR"},
		{"a colon in a name", get("a:b", "x"), "RST_STREAM PROTOCOL_ERROR"},
		{"a line feed in a value", get("a", "b\nc: d"), "RST_STREAM PROTOCOL_ERROR"},
		{"a NUL in a value", get("a", "b\x00"), "RST_STREAM PROTOCOL_ERROR"},
		{"white space in front of a value", get("a", " b"), "RST_STREAM PROTOCOL_ERROR"},
		{"white space behind a value", get("a", "b\t"), "RST_STREAM PROTOCOL_ERROR"},
		{"connection", get("connection", "close"), "RST_STREAM PROTOCOL_ERROR"},
		{"transfer-encoding", get("transfer-encoding", "chunked"), "RST_STREAM PROTOCOL_ERROR"},
		{"keep-alive", get("keep-alive", "1"), "RST_STREAM PROTOCOL_ERROR"},
		{"proxy-connection", get("proxy-connection", "x"), "RST_STREAM PROTOCOL_ERROR"},
		{"upgrade", get("upgrade", "websocket"), "RST_STREAM PROTOCOL_ERROR"},
		{"te: gzip", get("te", "gzip"), "RST_STREAM PROTOCOL_ERROR"},
		{"two Hosts", get("host", "a.example", "host", "a.example"), "RST_STREAM PROTOCOL_ERROR"},
		{"Host that disagrees", get("host", "b.example"), "RST_STREAM PROTOCOL_ERROR"},
		{"Content-Length without a body", get("content-length", "1"), "RST_STREAM PROTOCOL_ERROR"},
		{"Content-Length that is no number", get("content-length", "+0"), "RST_STREAM PROTOCOL_ERROR"},
		{"two Content-Lengths", get("content-length", "0", "content-length", "0"), "RST_STREAM PROTOCOL_ERROR"},
		{"CONNECT with a path", get(":method", "CONNECT"), "RST_STREAM PROTOCOL_ERROR"},
		{"CONNECT without a host", []string{":method", "CONNECT"}, "RST_STREAM PROTOCOL_ERROR"},
		{":protocol without CONNECT", get(":protocol", "websocket"), "RST_STREAM PROTOCOL_ERROR"},
		{":protocol that is no token", get(":method", "CONNECT", ":protocol", "web socket"), "RST_STREAM PROTOCOL_ERROR"},

		{"no host at all", get("-:authority", ""), "400"},
		{"user information", get(":authority", "u@a.example"), "400"},
		{"CONNECT without a port", []string{":method", "CONNECT", ":authority", "a.example"}, "400"},
		{"another scheme", get(":scheme", "ftp"), "400"},
		{"a path without a slash", get(":path", "a"), "400"},
		{"an asterisk without OPTIONS", get(":path", "*"), "400"},
		{"a space in a path", get(":path", "/a b"), "400"},
		{"a fragment in a path", get(":path", "/a#b"), "400"},
		{"another expectation", get("expect", "the-unexpected"), "417"},
		{"a target that is too long", get(":path", "/"+long), "414"},
		{"a head that is too large", get("a", long, "b", long, "c", long, "d", long), "431"},
		{"too many fields", get(repeat(101, "a", "b")...), "431"},
		{"many small fields, counted with what they cost", get(repeat(90, "x-"+strings.Repeat("y", 100), strings.Repeat("z", 100))...), "431"},
		{"malformed behind what is too much", append(append(get(":path", "/ "), "a", "b"), "UPPER", "c"), "RST_STREAM PROTOCOL_ERROR"},
	}
	r := begin(t, echo, nil)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := dial(t, r)
			p.head(1, true, test.fields)
			if got := p.outcome(1); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
			p.head(3, true, get()) // the connection goes on
			if got := p.outcome(3); got != "200" {
				t.Errorf("the next request: %s", got)
			}
		})
	}
}

func repeat(n int, fields ...string) (all []string) {
	for range n {
		all = append(all, fields...)
	}
	return all
}

func TestFieldsReachTheExchangeAsTheyCame(t *testing.T) {
	p := dial(t, begin(t, echo, nil))
	p.head(1, true, get(":path", "/p?q", "x-a", "1", "cookie", "a=b", "host", "a.example", "x-a", "", "cookie", "c=d; e=f", "te", "trailers",
		"proxy-authorization", "secret"))
	want := "GET a.example /p?q\nx-a=1\nx-a=\ncookie=a=b; c=d; e=f\n" // RFC 9113 section 8.2.3
	if got := string(p.answer(1).body); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBodies(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB: beyond the stream's window
	tests := []struct {
		name string
		send func(p *client)
		want string // the outcome, then the body
	}{
		{"in one frame", func(p *client) {
			p.head(1, false, post("content-length", "4"))
			p.data(1, true, "body")
		}, "200 body"},
		{"of unknown length", func(p *client) {
			p.head(1, false, post())
			p.data(1, false, "bo")
			p.data(1, false, "")
			p.data(1, true, "dy")
		}, "200 body"},
		{"none, said late", func(p *client) {
			p.together(func() {
				p.head(1, false, post())
				p.data(1, true, "")
			})
		}, "200 POST a.example /\n"},
		{"in one piece with its head, of unknown length", func(p *client) {
			p.together(func() {
				p.head(1, false, post(":path", "/length"))
				p.data(1, false, "bo")
				p.data(1, true, "dy")
			})
		}, "200 4 at hand: body"},
		{"padded", func(p *client) {
			p.head(1, false, post("content-length", "4"))
			p.must(p.framer.WriteDataPadded(1, true, []byte("body"), make([]byte, 200)))
		}, "200 body"},
		{"with trailers", func(p *client) {
			p.head(1, false, post())
			p.data(1, false, "body;")
			p.trailers(1, "x-sum", "1")
		}, "200 body;x-sum=1\n"},
		{"larger than every window", func(p *client) { p.upload(1, large) }, "200 " + large},
		{"shorter than announced", func(p *client) {
			p.head(1, false, post("content-length", "5"))
			p.data(1, true, "body")
		}, "RST_STREAM PROTOCOL_ERROR"},
		{"longer than announced", func(p *client) {
			p.head(1, false, post("content-length", "3"))
			p.data(1, true, "body")
		}, "RST_STREAM PROTOCOL_ERROR"},
		{"shorter, with trailers", func(p *client) {
			p.head(1, false, post("content-length", "5"))
			p.data(1, false, "body")
			p.trailers(1, "x-sum", "1")
		}, "RST_STREAM PROTOCOL_ERROR"},
		{"trailers that do not end it", func(p *client) {
			p.head(1, false, post())
			p.head(1, false, []string{"x-sum", "1"})
		}, "RST_STREAM PROTOCOL_ERROR"},
		{"a pseudo-header field in the trailers", func(p *client) {
			p.head(1, false, post())
			p.trailers(1, ":path", "/")
		}, "RST_STREAM PROTOCOL_ERROR"},
		{"a framing field in the trailers", func(p *client) {
			p.head(1, false, post())
			p.trailers(1, "content-length", "0")
		}, "RST_STREAM PROTOCOL_ERROR"},
		{"trailers that are too large", func(p *client) {
			p.head(1, false, post())
			p.trailers(1, "x", strings.Repeat("y", 17<<10))
		}, "431"},
		{"larger than allowed, as announced", func(p *client) { p.head(1, false, post("content-length", "2000001")) }, "413"},
		{"larger than allowed, as it comes", func(p *client) { p.upload(1, large+large) }, "413"},
	}
	r := begin(t, echo, func(l *h1.Limits) { l.Body = 2e6 })
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := dial(t, r)
			p.must(p.framer.WriteWindowUpdate(0, 1<<30))
			p.must(p.framer.WriteSettings(http2Window(1 << 30)))
			test.send(p)
			got := p.outcome(1)
			if got == "200" {
				got += " " + string(p.of(1).body)
			}
			if got != test.want {
				t.Errorf("%.80q (%d bytes), want %.80q", got, len(got), test.want)
			}
		})
	}
}

// upload sends a body as fast as the server's windows allow.
func (p *client) upload(id uint32, body string) {
	p.t.Helper()
	p.head(id, false, post())
	window := map[uint32]int{0: initialWindow, id: initialWindow}
	for known := false; len(body) > 0 && p.of(id).status == ""; {
		n := min(len(body), window[0], window[id], maxFrame)
		if n > 0 {
			p.data(id, n == len(body), body[:n])
			body = body[n:]
			window[0] -= n
			window[id] -= n
			continue
		}
		switch f := p.next(); {
		case f == "closed":
			return
		case f == "SETTINGS" && !known:
			known = true
			window[id] += streamWindow - initialWindow
		default:
			var of uint32
			var more int
			if scan(f, "WINDOW_UPDATE %d %d", &of, &more) {
				window[of] += more
			}
		}
	}
}

// A reply may come before its request has ended; the client is told that nobody wants the rest (RFC 9113 section 8.1).
func TestAnEarlyReplyIsWholeAndEndsTheRequest(t *testing.T) {
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		x.Answer(403, "text/plain", "no")
		_ = x.Wire.Reply(x)
	}, nil))
	p.head(1, false, post())
	p.data(1, false, "part")
	if a := p.answer(1); a.status != "403" || string(a.body) != "no" {
		t.Fatalf("%+v", a)
	}
	if got := p.until("RST_STREAM"); got != "RST_STREAM 1 NO_ERROR" {
		t.Error(got)
	}
	for range 300 { // what was on its way is ignored, however much it is, and does not use the window up
		p.data(1, false, strings.Repeat("x", 4<<10))
	}
	p.head(3, true, get())
	if got := p.outcome(3); got != "403" {
		t.Error(got)
	}
}

func TestExpectContinue(t *testing.T) {
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		if !x.Request.Expect {
			t.Error("the exchange does not know")
		}
		var none exchange.Header
		if err := x.Wire.Inform(x, 100, &none); err != nil {
			t.Error(err)
		}
		echo(x)
	}, nil))
	p.head(1, false, post("expect", "100-continue", "content-length", "4"))
	p.until("HEADERS 1")
	p.data(1, true, "body")
	if a := p.answer(1); len(a.informs) != 1 || a.informs[0] != "100" || string(a.body) != "body" {
		t.Errorf("%+v", a)
	}
}

// Only what has been taken is asked for again: an upstream that does not read holds no more than a window.
func TestTheWindowOpensOnlyAsTheBodyIsTaken(t *testing.T) {
	goOn := make(chan struct{})
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		<-goOn
		n, err := io.Copy(io.Discard, x.Request.Body.Reader)
		if n != streamWindow+4 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		x.Answer(200, "", "")
		_ = x.Wire.Reply(x)
	}, nil))
	p.until("WINDOW_UPDATE 0") // of the connection, as it begins
	p.head(1, false, post())
	for range streamWindow / maxFrame {
		p.data(1, false, strings.Repeat("x", maxFrame))
	}
	p.must(p.framer.WritePing(false, [8]byte{}))
	if got := p.until("WINDOW_UPDATE", "PING ACK"); got != "PING ACK" {
		t.Errorf("%s before anybody has read", got)
	}
	close(goOn)
	p.until("WINDOW_UPDATE 1")
	p.data(1, true, "last")
	if got := p.outcome(1); got != "200" {
		t.Error(got)
	}
}
