package h3

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"headgate/gateway/exchange"
)

func TestARequestIsCarriedAsItCame(t *testing.T) {
	d := open(t, echo)
	c := d.client(t)
	req, err := http.NewRequestWithContext(t.Context(), "GET", d.url("/a%20b/?q=1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", "a=1; b=2")
	rsp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	if rsp.StatusCode != 200 || rsp.Header.Get("X-Target") != "https://"+d.Bound()+"/a%20b/?q=1" || rsp.Header.Get("Date") == "" {
		t.Errorf("%d, %v", rsp.StatusCode, rsp.Header)
	}
	if got := rsp.Header.Values("X-Got"); !slices.Contains(got, "cookie=a=1; b=2") {
		t.Errorf("%q", got)
	}
	if rsp.ContentLength != 0 {
		t.Errorf("length %d: a GET has no body, and so its echo", rsp.ContentLength)
	}
}

func TestBodiesPassBothWays(t *testing.T) {
	d := open(t, echo)
	c := d.client(t)
	for _, n := range []int{0, 1, 1000, 40_000, 3 << 20} {
		for _, announced := range []bool{true, false} {
			content := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
			var body io.Reader = bytes.NewReader(content)
			if !announced {
				body = io.MultiReader(body)
			}
			rsp, err := c.Post(d.url("/"), "text/plain", body)
			if err != nil {
				t.Fatal(n, announced, err)
			}
			got, err := io.ReadAll(rsp.Body)
			_ = rsp.Body.Close()
			if err != nil || sha256.Sum256(got) != sha256.Sum256(content) {
				t.Errorf("%d bytes came back of %d, announced %v: %v", len(got), n, announced, err)
			}
		}
	}
}

func TestTrailersPassBothWays(t *testing.T) {
	d := open(t, echo)
	r := d.raw(t)
	s := r.request(slices.Concat(post(), frame(frameData, []byte("abc")),
		frame(frameHeaders, block("grpc-status", "0", "content-type", "late", "x-a", "1"))), true)
	got := read(s)
	if got.err != nil || got.body != "abc" || !slices.Equal(got.trailer, []string{"grpc-status=0", "x-a=1"}) {
		t.Errorf("%+v", got)
	}
}

func TestOrderAndRepeatedFieldsSurvive(t *testing.T) {
	d := open(t, echo)
	got := read(d.raw(t).request(get("x-b", "1", "x-a", "2", "x-b", "3", "te", "trailers", "cookie", "a=1", "cookie", "b=2"), true))
	want := []string{"x-got=x-b=1", "x-got=x-a=2", "x-got=x-b=3", "x-got=cookie=a=1; b=2"}
	if i := slices.Index(got.fields, want[0]); i < 0 || !slices.Equal(got.fields[i:i+len(want)], want) {
		t.Errorf("%q", got.fields)
	}
}

func TestAnExpectationIsAnswered(t *testing.T) {
	d := open(t, echo)
	c := d.client(t)
	informed := make(chan int, 10)
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
		informed <- code
		return nil
	}}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", d.url("/"), strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Expect", "100-continue")
	rsp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	if b, err := io.ReadAll(rsp.Body); string(b) != "body" || err != nil || await(t, informed) != 100 {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAStreamedReplyIsFlushedAsItComes(t *testing.T) {
	feed, pipe := io.Pipe()
	d := open(t, func(x *exchange.Exchange) error {
		x.Reply.Status, x.Reply.Body = 200, exchange.Body{Reader: feed, Length: -1}
		return x.Wire.Reply(x)
	})
	rsp, err := d.client(t).Get(d.url("/")) // the head is here before any of the body
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	for _, event := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(pipe, event); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(event))
		if _, err := io.ReadFull(rsp.Body, b); err != nil || string(b) != event {
			t.Fatalf("%q, %v", b, err)
		}
	}
	_ = pipe.Close()
	if n, err := rsp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
}

func TestRepliesWithoutABody(t *testing.T) {
	d := open(t, func(x *exchange.Exchange) error {
		x.Answer(200, "text/plain", "hello")
		switch x.Request.Path {
		case "/204":
			x.Reply.Status = 204
		case "/304":
			x.Reply.Status = 304
		}
		return x.Wire.Reply(x)
	})
	c := d.client(t)
	for _, one := range []struct{ method, path, length string }{
		{"HEAD", "/", "5"}, {"GET", "/204", ""}, {"GET", "/304", "5"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), one.method, d.url(one.path), nil)
		if err != nil {
			t.Fatal(err)
		}
		rsp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rsp.Body)
		_ = rsp.Body.Close()
		if err != nil || len(b) != 0 || rsp.Header.Get("Content-Length") != one.length {
			t.Errorf("%v: %q, %v, %v", one, b, err, rsp.Header)
		}
	}
}

// An early reply reaches a client that is still sending, which is asked to stop and not told that anything went wrong
// (RFC 9114 section 4.1.1).
func TestAnEarlyReplyStopsTheRequest(t *testing.T) {
	d := open(t, hello)
	s := d.raw(t).request(slices.Concat(post(), frame(frameData, []byte("the beginning"))), false)
	if got := read(s); got.err != nil || got.body != "hello" {
		t.Errorf("%+v", got)
	}
	if code := stopped(t, s); code != http3.ErrCodeNoError {
		t.Errorf("stopped with %v", code)
	}
}

func TestAReplyThatBreaksOffIsNeverSilentlyShort(t *testing.T) {
	d := open(t, func(x *exchange.Exchange) error {
		x.Reply.Status = 200
		body := io.MultiReader(strings.NewReader("some"), &broken{})
		x.Reply.Body = exchange.Body{Reader: body, Length: -1}
		if x.Request.Path == "/short" {
			x.Reply.Body = exchange.Body{Reader: io.MultiReader(strings.NewReader("some")), Length: 10}
		}
		if x.Request.Path == "/panic" {
			x.Reply.Body.Reader = io.MultiReader(strings.NewReader("some"), &broken{panics: true})
		}
		return x.Wire.Reply(x)
	})
	for _, path := range []string{"/", "/short", "/panic"} {
		s := d.raw(t).request(frame(frameHeaders, block(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", path)), true)
		if got := read(s); got.reset() != http3.ErrCodeInternalError {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

// broken is a body that fails.
type broken struct{ panics bool }

// Read implements io.Reader.
func (b *broken) Read([]byte) (int, error) {
	if b.panics {
		panic("a body panics")
	}
	return 0, io.ErrUnexpectedEOF
}

func TestAClientThatGivesUpCancelsTheExchange(t *testing.T) {
	for _, one := range []struct {
		name string
		body bool
	}{{"while it is answered", false}, {"in its request", true}} {
		t.Run(one.name, func(t *testing.T) {
			begun := make(chan struct{})
			d := open(t, func(x *exchange.Exchange) error {
				close(begun)
				if one.body {
					_, _ = io.ReadAll(x.Request.Body.Reader) // how it ends is told by the context
				}
				<-x.Context().Done()
				x.Answer(499, "", "")
				_ = x.Wire.Reply(x)
				return io.ErrClosedPipe
			})
			s := d.raw(t).request(slices.Concat(post(), frame(frameData, []byte("x"))), !one.body)
			<-begun
			s.CancelWrite(0x10c)
			if !one.body {
				s.CancelRead(0x10c)
			}
			d.await(t, io.ErrClosedPipe.Error())
		})
	}
}

func TestInterruptEndsAWaitForTheBody(t *testing.T) {
	d := open(t, func(x *exchange.Exchange) error {
		var wait sync.WaitGroup
		var err error
		wait.Go(func() { _, err = io.ReadAll(x.Request.Body.Reader) })
		x.Wire.Interrupt()
		wait.Wait()
		if err == nil {
			t.Error("the body ended well")
		}
		x.Answer(200, "", "")
		return x.Wire.Reply(x)
	})
	if got := read(d.raw(t).request(post(), false)); got.err != nil || got.status != "200" {
		t.Errorf("%+v", got)
	}
}

func TestExchangesOfOneConnectionRunSideBySide(t *testing.T) {
	var meet sync.WaitGroup
	meet.Add(maxStreams)
	d := open(t, func(x *exchange.Exchange) error {
		meet.Done()
		meet.Wait() // nobody is answered before all have asked
		return hello(x)
	})
	c := d.client(t)
	var all sync.WaitGroup
	for range maxStreams {
		all.Go(func() {
			rsp, err := c.Get(d.url("/"))
			if err != nil {
				t.Error(err)
				return
			}
			defer rsp.Body.Close()
			if b, err := io.ReadAll(rsp.Body); string(b) != "hello" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	all.Wait()
}

func TestWhoTheClientIs(t *testing.T) {
	seen := make(chan exchange.Client, 1)
	d := open(t, func(x *exchange.Exchange) error {
		seen <- x.Client
		return hello(x)
	})
	r := d.raw(t)
	_ = read(r.request(get(), true))
	c := await(t, seen)
	if c.Peer.String() != r.LocalAddr().String() && c.Peer.Port() == 0 || c.Addr != "127.0.0.1" || !c.Secure {
		t.Errorf("%+v", c)
	}
	if c.TLS.Version != "TLS 1.3" || c.TLS.ServerName != "localhost" || c.TLS.ALPN != "h3" || c.TLS.Early {
		t.Errorf("%+v", c.TLS)
	}
}

func TestHeadersAreSpelledAsHTTP3Wants(t *testing.T) {
	d := open(t, func(x *exchange.Exchange) error {
		x.Answer(200, "", "")
		for _, name := range []string{"Content-Type", "X-Unknown-To-Us", "Connection", "Transfer-Encoding", "Keep-Alive", "already"} {
			x.Reply.Header.Add(name, "v")
		}
		return x.Wire.Reply(x)
	})
	got := read(d.raw(t).request(get(), true))
	want := []string{"content-type=v", "x-unknown-to-us=v", "already=v", "content-length=0"}
	if len(got.fields) != 5 || !slices.Equal(got.fields[:4], want) {
		t.Errorf("%q", got.fields)
	}
}
