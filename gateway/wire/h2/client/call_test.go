package client

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"headgate/gateway/exchange"
)

func TestARequestArrivesAsItIsAndSoDoesItsReply(t *testing.T) {
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		for _, want := range []struct{ what, got, want string }{
			{"method", r.Method, "PUT"}, {"path", r.URL.String(), "/a%2Fb?c=d&e"}, {"host", r.Host, "shop.example"},
			{"field", r.Header.Get("X-Mixed-Case"), "kept As It Is"}, {"body", string(b), "hello"}, {"length", r.Header.Get("Content-Length"), "5"},
			{"te", r.Header.Get("Te"), ""}, {"connection", r.Header.Get("Connection"), ""}, {"protocol", r.Proto, "HTTP/2.0"},
			{"trailer", r.Trailer.Get("X-Sum"), ""},
		} {
			if want.got != want.want {
				t.Errorf("%s: %q, want %q", want.what, want.got, want.want)
			}
		}
		w.Header().Set("X-Answer", "yes")
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, "made")
		w.Header().Set("X-Sum", "42")
	})
	c, w := connect(t, address, terms())
	x := ask("PUT", "/a%2Fb")
	x.Request.HasQuery, x.Request.Query = true, "c=d&e"
	x.Request.Header.Add("X-Mixed-Case", "kept As It Is")
	x.Request.Header.Add("TE", "gzip")
	x.Request.Header.Add("Connection", "close")
	x.Request.Body = exchange.Text("hello")
	got, err := fetch(t, c, x)
	r := &x.Reply
	if err != nil || got != "made" || r.Status != 201 || r.Header.Get("x-answer") != "yes" || r.Source != exchange.FromUpstream {
		t.Errorf("%q, %v, %+v", got, err, x.Reply)
	}
	if x.Reply.Trailer.Get("x-sum") != "42" {
		t.Errorf("trailer %+v", x.Reply.Trailer)
	}
	until(t, "the place is free", func() bool { return c.Open() == 0 && w.free.Load() > 0 })
	if !c.Used() || x.Usage.RequestBytes != 5 {
		t.Errorf("used %v, %d bytes", c.Used(), x.Usage.RequestBytes)
	}
}

// What a reply without content looks like, and one whose length is known.
func TestLengthsOfReplies(t *testing.T) {
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(204)
		case "/same":
			w.WriteHeader(304)
		case "/five":
			_, _ = io.WriteString(w, "12345")
		case "/empty":
			w.Header().Set("Content-Length", "0")
		case "/flushed":
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "1")
		}
	})
	c, _ := connect(t, address, terms())
	for _, test := range []struct {
		method, path string
		none         bool
		length       int64
		body         string
	}{
		{"GET", "/none", true, -1, ""},
		{"GET", "/same", true, -1, ""},
		{"GET", "/five", false, 5, "12345"},
		{"HEAD", "/five", true, 5, ""},
		{"GET", "/empty", true, 0, ""},
	} {
		x := ask(test.method, test.path)
		call, err := do(t, c, x, plan)
		if err != nil {
			t.Fatal(err)
		}
		if x.Reply.Body.None() != test.none || x.Reply.Body.Length != test.length {
			t.Errorf("%s %s: %+v, want none %v, length %d", test.method, test.path, x.Reply.Body, test.none, test.length)
		}
		if got, err := body(x); got != test.body || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		call.Close()
	}
	x := ask("GET", "/flushed")
	if got, err := fetch(t, c, x); got != "1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestABodyThatIsStillComingIsCarriedWithItsTrailers(t *testing.T) {
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s|%v|%s|%d", b, err, r.Trailer.Get("X-Sum"), r.ContentLength)
	})
	c, _ := connect(t, address, terms())
	x := ask("POST", "/")
	x.Request.Body = slowly("one ", "two ", "three")
	x.Request.Header.Add("Trailer", "X-Sum")
	x.Request.Trailer.Add("X-Sum", "7")
	if got, err := fetch(t, c, x); got != "one two three|<nil>|7|-1" || err != nil || x.Usage.RequestBytes != 13 {
		t.Errorf("%q, %v", got, err)
	}
	y := ask("POST", "/")
	y.Request.Body = exchange.Body{Reader: io.MultiReader(strings.NewReader("abc"), strings.NewReader("de")), Length: 5}
	if got, err := fetch(t, c, y); got != "abcde|<nil>||5" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestABodyOfAnotherLengthThanAnnouncedIsNotSentAsAWholeOne(t *testing.T) {
	address := serveH2C(t, echo)
	c, _ := connect(t, address, terms())
	for _, length := range []int64{2, 9} {
		x := ask("POST", "/")
		x.Request.Body = exchange.Body{Reader: io.MultiReader(strings.NewReader("abc"), strings.NewReader("de")), Length: length}
		call, err := do(t, c, x, plan)
		if err == nil {
			_, err = body(x)
		}
		if err == nil {
			t.Errorf("length %d: taken", length)
		}
		call.Close()
	}
	until(t, "the places are free", func() bool { return c.Open() == 0 })
}

// pattern is n bytes that are nowhere the same for long.
type pattern struct{ at, n int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.n {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.n-p.at)]
	for i := range b {
		b[i] = byte((p.at + int64(i)) * 2654435761 >> 13)
	}
	p.at += int64(len(b))
	return len(b), nil
}

func TestLargeBodiesCrossBothWaysAtOnce(t *testing.T) {
	const size = 8 << 20
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	c, _ := connect(t, address, terms())
	want := sha256.New()
	_, _ = io.Copy(want, &pattern{n: size})
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			x := ask("POST", "/")
			x.Request.Body = exchange.Body{Reader: &pattern{n: size}, Length: -1}
			call, err := do(t, c, x, plan)
			if err != nil {
				t.Error(err)
				call.Close()
				return
			}
			defer call.Close()
			got := sha256.New()
			if n, err := io.Copy(got, x.Reply.Body.Reader); n != size || err != nil || string(got.Sum(nil)) != string(want.Sum(nil)) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	calls.Wait()
}

// A body with a length and trailers has both: the trailers are known when it has been read to its end.
func TestABodyOfKnownLengthMayHaveTrailers(t *testing.T) {
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s|%v|%s|%d", b, err, r.Trailer.Get("X-Sum"), r.ContentLength)
	})
	c, _ := connect(t, address, terms())
	x := ask("POST", "/")
	x.Request.Body = exchange.Body{Reader: io.MultiReader(strings.NewReader("abc"), strings.NewReader("de")), Length: 5}
	x.Request.Header.Add("Trailer", "X-Sum")
	x.Request.Trailer.Add("X-Sum", "7")
	if got, err := fetch(t, c, x); got != "abcde|<nil>|7|5" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A target that opens its windows late, and answers meanwhile, is heard although the body at hand has not been sent.
func TestABodyAtHandDoesNotKeepTheReplyWaiting(t *testing.T) {
	address := target(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 3}}, func(r *raw) {
		r.await(http2.FrameHeaders)
		r.head(1, false, ":status", "200")
		for r.await(http2.FrameData) != nil { // three bytes of ten
			_ = r.WriteData(1, false, []byte("go on "))
			_ = r.WriteWindowUpdate(1, 7)
			for {
				f, err := r.ReadFrame()
				if err != nil {
					return
				}
				if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
					_ = r.WriteData(1, true, []byte("done"))
					r.drain()
					return
				}
			}
		}
	})
	c, _ := connect(t, address, terms())
	x := ask("POST", "/")
	x.Request.Body = exchange.Text("0123456789")
	if got, err := fetch(t, c, x); got != "go on done" || err != nil || x.Usage.RequestBytes != 10 {
		t.Errorf("%q, %v, %d bytes", got, err, x.Usage.RequestBytes)
	}
}

func TestInformationalRepliesReachTheClient(t *testing.T) {
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(103)
		}
		_, _ = io.ReadAll(r.Body) // which makes the server say 100 when it was asked to
		w.WriteHeader(200)
	})
	c, _ := connect(t, address, terms())
	for method, want := range map[string]string{"GET": "[103]", "POST": "[100]"} {
		x := ask(method, "/")
		if method == "POST" {
			x.Request.Body, x.Request.Expect = slowly("x"), true
		}
		if _, err := fetch(t, c, x); err != nil {
			t.Fatal(err)
		}
		if w := x.Wire.(*informs); fmt.Sprint(w.got) != want || x.Reply.Status != 200 || (w.link == "") != (method == "POST") {
			t.Errorf("%s: %v, %q, then %d", method, w.got, w.link, x.Reply.Status)
		}
	}
}

func TestAReplyMayComeBeforeTheRequestHasEnded(t *testing.T) {
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(413)
		_, _ = io.WriteString(w, "no thanks")
	})
	c, _ := connect(t, address, terms())
	x := ask("POST", "/")
	r, feed := io.Pipe()
	defer feed.Close()
	x.Wire = &informs{cut: func() { _ = r.CloseWithError(io.ErrClosedPipe) }}
	x.Request.Body = exchange.Body{Reader: r, Length: -1}
	call, err := do(t, c, x, plan)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := body(x); got != "no thanks" || err != nil || x.Reply.Status != 413 || !x.Request.Streaming {
		t.Errorf("%q, %v, %d, streaming %v", got, err, x.Reply.Status, x.Request.Streaming)
	}
	call.Close()
	until(t, "the place is free", func() bool { return c.Open() == 0 })
}

func TestACallThatIsGivenUpIsResetAndTheOthersGoOn(t *testing.T) {
	heard, gone := make(chan struct{}, 1), make(chan struct{})
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			heard <- struct{}{}
			<-r.Context().Done()
			close(gone)
			return
		}
		_, _ = io.WriteString(w, "quick")
	})
	c, _ := connect(t, address, terms())
	x := ask("GET", "/slow")
	go func() { <-heard; x.Cancel.Cancel() }()
	if _, err := fetch(t, c, x); code(t, err) != "client_gone" {
		t.Error(err)
	}
	<-gone // RST_STREAM has reached the service
	if got, err := fetch(t, c, ask("GET", "/")); got != "quick" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestATargetHasSoLongToAnswerAndToGoOn(t *testing.T) {
	release := make(chan struct{})
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, _ = io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
		}
		<-release
	})
	defer close(release)
	c, _ := connect(t, address, terms())
	hurry := &Plan{Scheme: "http", Response: 50 * time.Millisecond, Idle: 50 * time.Millisecond}
	call, err := do(t, c, ask("GET", "/head"), hurry)
	if code(t, err) != "upstream_timeout" {
		t.Error(err)
	}
	call.Close()
	x := ask("GET", "/body")
	if call, err = do(t, c, x, &Plan{Scheme: "http", Response: patience, Idle: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if got, err := body(x); got != "begun" || code(t, err) != "upstream_timeout" {
		t.Errorf("%q, %v", got, err)
	}
	call.Close()
	until(t, "the places are free", func() bool { return c.Open() == 0 })
}

func TestASlowReaderDoesNotHoldTheOthersUp(t *testing.T) {
	address := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/much" {
			_, _ = io.Copy(w, &pattern{n: 1 << 30})
			return
		}
		_, _ = io.WriteString(w, "quick")
	})
	c, _ := connect(t, address, terms())
	var slow []*Call
	for range 90 {
		call, err := do(t, c, ask("GET", "/much"), plan)
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, call)
	}
	for range 20 {
		if got, err := fetch(t, c, ask("GET", "/")); got != "quick" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	c.mu.Lock()
	held := 0
	for _, call := range slow {
		held += len(call.in.filled)
	}
	c.mu.Unlock()
	if limit := 90 * startWindow; held > limit {
		t.Errorf("%d bytes wait for readers, want at most %d", held, limit)
	}
	for _, call := range slow {
		call.Close()
	}
}

// connectSetting says that a target takes extended CONNECT.
var connectSetting = []http2.Setting{{ID: http2.SettingEnableConnectProtocol, Val: 1}}

func upgrade(protocol string) *exchange.Exchange {
	x := ask("GET", "/chat?room=1")
	x.Request.Path, x.Request.HasQuery, x.Request.Query = "/chat", true, "room=1"
	x.Request.Upgrade = protocol
	x.Request.Header.Add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	x.Request.Header.Add("Sec-WebSocket-Version", "13")
	return x
}

func TestAnUpgradeIsAnExtendedCONNECT(t *testing.T) {
	address := target(t, connectSetting, func(r *raw) {
		h, _ := r.await(http2.FrameHeaders).(*http2.HeadersFrame)
		got := map[string]string{}
		fields, err := hpack.NewDecoder(4096, nil).DecodeFull(h.HeaderBlockFragment())
		for _, f := range fields {
			got[f.Name] = f.Value
		}
		want := map[string]string{
			":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":authority": "shop.example", ":path": "/chat?room=1",
			"sec-websocket-version": "13",
		}
		if err != nil || h.StreamEnded() || !maps.Equal(got, want) {
			t.Errorf("%v, %v, ended %v", got, err, h.StreamEnded())
		}
		r.head(1, false, ":status", "200", "sec-websocket-protocol", "chat")
		for {
			switch f, _ := r.ReadFrame(); f := f.(type) {
			case *http2.DataFrame:
				_ = r.WriteData(1, f.StreamEnded(), f.Data()) // an echo
			case nil:
				return
			}
		}
	})
	c, _ := connect(t, address, terms())
	x := upgrade("websocket")
	call, err := do(t, c, x, plan)
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	s := x.Reply.Switched
	if x.Reply.Status != 101 || s == nil || x.Reply.Header.Get("Sec-WebSocket-Protocol") != "chat" || !x.Reply.Body.None() {
		t.Fatalf("%+v", x.Reply)
	}
	for _, message := range []string{"ping", "pong"} {
		if n, err := s.Write([]byte(message)); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(s, got); string(got) != message || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if err := s.CloseWrite(); err != nil {
		t.Error(err)
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
	until(t, "the place is free", func() bool { return c.Open() == 0 })
}

func TestASwitchedStreamIsUnblockedFromOutside(t *testing.T) {
	address := target(t, connectSetting, func(r *raw) {
		r.await(http2.FrameHeaders)
		r.head(1, false, ":status", "200")
		if f, ok := r.await(http2.FrameRSTStream).(*http2.RSTStreamFrame); !ok || f.ErrCode != http2.ErrCodeCancel {
			t.Errorf("%v", f)
		}
	})
	c, _ := connect(t, address, terms())
	x := upgrade("websocket")
	call, err := do(t, c, x, plan)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := x.Reply.Switched.Read(make([]byte, 1))
		done <- err
	}()
	x.Reply.Switched.Interrupt()
	if err := <-done; err == nil {
		t.Error("it read something")
	}
	call.Close()
	c.Wait()
}

func TestAnUpgradeThatIsRefusedIsAnOrdinaryReply(t *testing.T) {
	address := target(t, connectSetting, func(r *raw) {
		r.await(http2.FrameHeaders)
		r.head(1, false, ":status", "403", "content-length", "2")
		_ = r.WriteData(1, true, []byte("no"))
		r.drain()
	})
	c, _ := connect(t, address, terms())
	x := upgrade("websocket")
	if got, err := fetch(t, c, x); got != "no" || err != nil || x.Reply.Status != 403 || x.Reply.Switched != nil {
		t.Errorf("%q, %v, %+v", got, err, x.Reply)
	}
}

func TestATargetWithoutExtendedCONNECTIsNotAskedToSwitch(t *testing.T) {
	c, _ := connect(t, target(t, nil, func(r *raw) { r.drain() }), terms())
	call, err := do(t, c, upgrade("websocket"), plan)
	if code(t, err) != "upstream_no_upgrade" || c.Open() != 0 {
		t.Errorf("%v, %d places taken", err, c.Open())
	}
	call.Close()
}
