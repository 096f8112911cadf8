package client

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"headgate/gateway/exchange"
)

// raw is the target's side of a connection, frame by frame.
type raw struct {
	*http2.Framer
	net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
}

// target serves every connection with the script, after the preface, and returns its address.
func target(t *testing.T, settings []http2.Setting, script func(r *raw)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				r := &raw{Framer: http2.NewFramer(c, c), Conn: c}
				r.enc = hpack.NewEncoder(&r.block)
				if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err == nil && r.WriteSettings(settings...) == nil {
					script(r)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l.Addr().String()
}

// await reads until a frame of the kind comes, answering nothing.
func (r *raw) await(kind http2.FrameType) http2.Frame {
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return nil
		}
		if f.Header().Type == kind {
			return f
		}
	}
}

// drain reads until the other side closes.
func (r *raw) drain() { _, _ = io.Copy(io.Discard, r.Conn) }

// fields makes a field section of names and values in turn.
func (r *raw) fields(nv ...string) []byte {
	r.block.Reset()
	for i := 0; i < len(nv); i += 2 {
		_ = r.enc.WriteField(hpack.HeaderField{Name: nv[i], Value: nv[i+1]})
	}
	return bytes.Clone(r.block.Bytes())
}

func (r *raw) head(id uint32, end bool, nv ...string) {
	b := r.fields(nv...)
	n := min(len(b), frameSize)
	_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:n], EndStream: end, EndHeaders: n == len(b)})
	for b = b[n:]; len(b) > 0; b = b[n:] {
		n = min(len(b), frameSize)
		_ = r.WriteContinuation(id, n == len(b), b[:n])
	}
}

// A target that breaks the protocol is told so, its connection is dropped, and the exchange learns whose doing it was.
func TestMisbehaviourThatEndsTheConnection(t *testing.T) {
	many := func(n int, f func()) func() {
		return func() {
			for range n {
				f()
			}
		}
	}
	for _, test := range []struct {
		name   string
		code   http2.ErrCode
		script func(r *raw)
	}{
		{"DATA for a stream that was never opened", http2.ErrCodeProtocol, func(r *raw) { _ = r.WriteData(7, false, []byte("x")) }},
		{"HEADERS for a stream of its own", http2.ErrCodeProtocol, func(r *raw) { r.head(2, true, ":status", "200") }},
		{"a push", http2.ErrCodeProtocol, func(r *raw) {
			_ = r.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: r.fields(":method", "GET"), EndHeaders: true})
		}},
		{"a frame larger than allowed", http2.ErrCodeFrameSize, func(r *raw) { _ = r.WriteData(1, false, make([]byte, frameSize+1)) }},
		{"a window beyond its limit", http2.ErrCodeFlowControl, func(r *raw) { _ = r.WriteWindowUpdate(0, 1<<31-1) }},
		{"windows of streams beyond their limit", http2.ErrCodeFlowControl, func(r *raw) {
			_ = r.WriteWindowUpdate(1, 1<<31-1-startWindow)
			_ = r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: startWindow + 1})
		}},
		{"a setting that must not be", http2.ErrCodeProtocol, func(r *raw) {
			_ = r.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1})
		}},
		{"DATA beyond the stream's window", http2.ErrCodeFlowControl, func(r *raw) {
			r.head(1, false, ":status", "200")
			many(5, func() { _ = r.WriteData(1, false, make([]byte, frameSize)) })()
		}},
		{"fields that cannot be decoded", http2.ErrCodeCompression, func(r *raw) {
			_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}},
		{"a field longer than a whole head may be", http2.ErrCodeCompression, func(r *raw) {
			b := r.fields(":status", "200", "x", strings.Repeat("z", 100<<10))
			_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:frameSize]})
			for b = b[frameSize:]; len(b) > 0; {
				n := min(len(b), frameSize)
				_ = r.WriteContinuation(1, n == len(b), b[:n])
				b = b[n:]
			}
		}},
		{"a head in endless pieces", http2.ErrCodeEnhanceYourCalm, func(r *raw) {
			_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.fields(":status", "200")})
			many(maxContinuations+1, func() { _ = r.WriteContinuation(1, false, nil) })()
		}},
		{"something else inside a head", http2.ErrCodeProtocol, func(r *raw) {
			_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.fields(":status", "200")})
			_ = r.WritePing(false, [8]byte{})
		}},
		{"a flood of SETTINGS", http2.ErrCodeEnhanceYourCalm, func(r *raw) { many(chatter+1000, func() { _ = r.WriteSettings() })() }},
		{"a flood of PING", http2.ErrCodeEnhanceYourCalm, func(r *raw) {
			go r.drain()
			many(chatter+1000, func() { _ = r.WritePing(false, [8]byte{}) })()
		}},
		{"a flood of empty DATA", http2.ErrCodeEnhanceYourCalm, func(r *raw) {
			r.head(1, false, ":status", "200")
			many(chatter+1000, func() { _ = r.WriteData(1, false, nil) })()
		}},
		{"a flood of frames nobody knows", http2.ErrCodeEnhanceYourCalm, func(r *raw) {
			many(chatter+1000, func() { _ = r.WriteRawFrame(0x42, 0, 0, nil) })()
		}},
		{"a flood of windows by a byte", http2.ErrCodeEnhanceYourCalm, func(r *raw) {
			many(chatter+1000, func() { _ = r.WriteWindowUpdate(0, 1) })()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			said := make(chan http2.ErrCode, 1)
			address := target(t, nil, func(r *raw) {
				r.await(http2.FrameHeaders)
				test.script(r)
				for {
					f, err := r.ReadFrame()
					if err != nil {
						said <- 0xffff
						return
					}
					if g, ok := f.(*http2.GoAwayFrame); ok {
						said <- g.ErrCode
						return
					}
				}
			})
			c, w := connect(t, address, terms())
			x := ask("GET", "/")
			call, err := do(t, c, x, plan)
			if c != <-w.leaving || c.Reserve() {
				t.Error("it takes more calls")
			}
			if err == nil {
				_, err = body(x)
			}
			if got := code(t, err); got != "upstream_invalid" {
				t.Errorf("%s: %v", got, err)
			}
			call.Close()
			c.Wait()
			if got := <-said; got != test.code && !strings.Contains(test.name, "PING") {
				t.Errorf("told %v, want %v", got, test.code)
			}
		})
	}
}

// A reply that is not valid ends its call with RST_STREAM; the next one on the same connection is fine.
func TestMisbehaviourThatEndsTheCallAlone(t *testing.T) {
	for _, test := range []struct {
		name   string
		script func(r *raw)
	}{
		{"no status", func(r *raw) { r.head(1, true, "a", "b") }},
		{"a status of letters", func(r *raw) { r.head(1, true, ":status", "2xx") }},
		{"a status beyond all", func(r *raw) { r.head(1, true, ":status", "600") }},
		{"two of them", func(r *raw) { r.head(1, true, ":status", "200", ":status", "201") }},
		{"a pseudo-header field of requests", func(r *raw) { r.head(1, true, ":status", "200", ":path", "/") }},
		{"a pseudo-header field behind others", func(r *raw) { r.head(1, true, "a", "b", ":status", "200") }},
		{"a name in upper case", func(r *raw) { r.head(1, true, ":status", "200", "X-Upper", "b") }},
		{"a name that is no token", func(r *raw) { r.head(1, true, ":status", "200", "a b", "b") }},
		{"an empty name", func(r *raw) { r.head(1, true, ":status", "200", "", "b") }},
		{"a value with a line end", func(r *raw) { r.head(1, true, ":status", "200", "a", "b\r\nset-cookie: c=d") }},
		{"a value with white space around", func(r *raw) { r.head(1, true, ":status", "200", "a", " b") }},
		{"Connection", func(r *raw) { r.head(1, true, ":status", "200", "connection", "close") }},
		{"Transfer-Encoding", func(r *raw) { r.head(1, true, ":status", "200", "transfer-encoding", "chunked") }},
		{"two lengths", func(r *raw) { r.head(1, false, ":status", "200", "content-length", "1", "content-length", "1") }},
		{"a length that is none", func(r *raw) { r.head(1, false, ":status", "200", "content-length", "+1") }},
		{"too many fields", func(r *raw) { r.head(1, true, append([]string{":status", "200"}, slicesRepeat("a", "b", 300)...)...) }},
		{"too large a head", func(r *raw) {
			r.head(1, true, append([]string{":status", "200"}, slicesRepeat("a", strings.Repeat("b", 1000), 70)...)...)
		}},
		{"101", func(r *raw) { r.head(1, false, ":status", "101") }},
		{"an informational reply that is the end", func(r *raw) { r.head(1, true, ":status", "103") }},
		{"a flood of them", func(r *raw) {
			for range maxInformational + 1 {
				r.head(1, false, ":status", "103")
			}
		}},
		{"DATA before the head", func(r *raw) { _ = r.WriteData(1, true, []byte("x")) }},
		{"DATA beyond Content-Length", func(r *raw) {
			r.head(1, false, ":status", "200", "content-length", "2")
			_ = r.WriteData(1, false, []byte("123"))
		}},
		{"less than Content-Length", func(r *raw) {
			r.head(1, false, ":status", "200", "content-length", "4")
			_ = r.WriteData(1, true, []byte("123"))
		}},
		{"less than Content-Length, and trailers", func(r *raw) {
			r.head(1, false, ":status", "200", "content-length", "4")
			_ = r.WriteData(1, false, []byte("123"))
			r.head(1, true, "sum", "1")
		}},
		{"nothing of Content-Length", func(r *raw) { r.head(1, true, ":status", "200", "content-length", "4") }},
		{"a body of 204", func(r *raw) {
			r.head(1, false, ":status", "204")
			_ = r.WriteData(1, true, []byte("x"))
		}},
		{"trailers that are not the end", func(r *raw) {
			r.head(1, false, ":status", "200")
			r.head(1, false, "sum", "1")
		}},
		{"a status among trailers", func(r *raw) {
			r.head(1, false, ":status", "200")
			r.head(1, true, ":status", "200")
		}},
		{"a window opened by nothing", func(r *raw) { _ = r.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := target(t, nil, func(r *raw) {
				r.await(http2.FrameHeaders)
				test.script(r)
				reset, asked := false, false
				for !reset || !asked { // in either order: they are of two streams
					f, err := r.ReadFrame()
					if err != nil {
						t.Errorf("reset %v, asked again %v: %v", reset, asked, err)
						return
					}
					reset = reset || f.Header().Type == http2.FrameRSTStream && f.Header().StreamID == 1
					asked = asked || f.Header().Type == http2.FrameHeaders && f.Header().StreamID == 3
				}
				r.head(3, true, ":status", "200")
				r.drain()
			})
			c, _ := connect(t, address, terms())
			x := ask("GET", "/")
			call, err := do(t, c, x, plan)
			if err == nil {
				if x.Reply.Body.None() {
					until(t, "the call ends", func() bool { return c.Open() == 0 })
				} else {
					_, err = body(x)
				}
			}
			if err != nil || !x.Reply.Body.None() {
				if got := code(t, err); got != "upstream_invalid" {
					t.Errorf("%s: %v", got, err)
				}
			}
			call.Close()
			if _, err := fetch(t, c, ask("GET", "/")); err != nil {
				t.Errorf("then: %v", err)
			}
		})
	}
}

// slicesRepeat is n times a name and a value; the names differ.
func slicesRepeat(name, value string, n int) (nv []string) {
	for i := range n {
		nv = append(nv, name+strconv.Itoa(i), value)
	}
	return nv
}

// What a target says about streams, and what it means for whoever asked.
func TestHowAStreamEnds(t *testing.T) {
	for _, test := range []struct {
		name        string
		script      func(r *raw)
		code        string
		unprocessed bool
		retry       bool
	}{
		{"refused", func(r *raw) { _ = r.WriteRSTStream(1, http2.ErrCodeRefusedStream) }, "upstream_closed", true, true},
		{"reset", func(r *raw) { _ = r.WriteRSTStream(1, http2.ErrCodeInternal) }, "upstream_closed", false, false},
		{"above the last one of GOAWAY", func(r *raw) { _ = r.WriteGoAway(0, http2.ErrCodeNo, nil); r.drain() }, "upstream_closed", true, true},
		{"below it, and then the end", func(r *raw) { _ = r.WriteGoAway(1, http2.ErrCodeNo, nil) }, "upstream_closed", false, true},
		{"the end without a word", func(*raw) {}, "upstream_closed", false, true},
		{"the end inside a frame", func(r *raw) { _, _ = r.Conn.Write([]byte{0, 0, 4}) }, "upstream_closed", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := target(t, nil, func(r *raw) {
				r.await(http2.FrameHeaders)
				test.script(r)
			})
			c, _ := connect(t, address, terms())
			x := ask("POST", "/")
			x.Request.Body = exchange.Text("again")
			call, err := do(t, c, x, plan)
			var e *exchange.Error
			if !errors.As(err, &e) || e.Code.Name != test.code || e.Retry != test.retry {
				t.Errorf("%v, retry %v", err, e.Retry)
			}
			if call.Unprocessed() != test.unprocessed || !call.Repeatable() {
				t.Errorf("unprocessed %v, repeatable %v", call.Unprocessed(), call.Repeatable())
			}
			call.Close()
		})
	}
}

func TestAReplyThatIsWholeIsTakenAlthoughItsStreamIsResetThen(t *testing.T) {
	address := target(t, nil, func(r *raw) {
		r.await(http2.FrameHeaders)
		r.head(1, false, ":status", "200")
		_ = r.WriteData(1, true, []byte("enough"))
		_ = r.WriteRSTStream(1, http2.ErrCodeNo) // RFC 9113 section 8.1: the rest of the request is not needed
		r.drain()
	})
	c, _ := connect(t, address, terms())
	x := ask("POST", "/")
	in, feed := io.Pipe()
	defer feed.Close()
	x.Wire = &informs{cut: func() { _ = in.CloseWithError(io.ErrClosedPipe) }}
	x.Request.Body = exchange.Body{Reader: in, Length: -1}
	if got, err := fetch(t, c, x); got != "enough" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestCallsOfAConnectionThatTheTargetLeavesEndWell(t *testing.T) {
	left := make(chan struct{})
	address := target(t, nil, func(r *raw) {
		r.await(http2.FrameHeaders)
		_ = r.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
		_ = r.WriteGoAway(1, http2.ErrCodeNo, nil)
		<-left
		r.head(1, false, ":status", "200")
		_ = r.WriteData(1, true, []byte("the last one"))
		if g := r.await(http2.FrameGoAway); g == nil {
			t.Error("nothing was said at the end")
		}
	})
	c, w := connect(t, address, terms())
	go func() { <-w.leaving; close(left) }()
	if got, err := fetch(t, c, ask("GET", "/")); got != "the last one" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	c.Wait()
}

func TestATargetThatDoesNotSpeakHTTP2IsToldApart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			_ = c.Close()
		}
	}()
	if _, err := dial(t, sweeper(t), l.Addr().String(), terms(), newWatcher()); !errors.Is(err, errNoPreface) {
		t.Errorf("%v", err)
	}
}

func TestASilentConnectionIsAskedForASignOfLifeAndGivenUp(t *testing.T) {
	pinged := make(chan struct{})
	address := target(t, nil, func(r *raw) {
		r.await(http2.FrameHeaders)
		f, ok := r.await(http2.FramePing).(*http2.PingFrame)
		if !ok {
			return
		}
		_ = r.WritePing(true, f.Data) // it lives
		if r.await(http2.FramePing) != nil {
			close(pinged)
		}
		r.drain() // and now it does not
	})
	brief := terms()
	brief.Ping, brief.PingTimeout = 30*time.Millisecond, 100*time.Millisecond
	c, _ := connect(t, address, brief)
	call, err := do(t, c, ask("GET", "/"), plan)
	if code(t, err) != "upstream_timeout" || !errors.Is(err, errSilent) {
		t.Error(err)
	}
	call.Close()
	<-pinged
}

func TestATargetThatTakesNothingDoesNotHoldTheMemory(t *testing.T) {
	address := target(t, nil, func(r *raw) {
		r.await(http2.FrameHeaders)
		_ = r.WriteWindowUpdate(0, 1<<30)
		_ = r.WriteWindowUpdate(1, 1<<30)
		// and never reads again: its socket fills
		time.Sleep(300 * time.Millisecond)
	})
	c, _ := connect(t, address, terms())
	x := ask("POST", "/")
	x.Request.Body = exchange.Body{Reader: &pattern{n: 1 << 30}, Length: -1}
	x.Wire = &informs{}
	most := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		call, err := do(t, c, x, plan)
		if err == nil {
			t.Error("answered")
		}
		call.Close()
	}()
	for {
		select {
		case <-done:
			if most > maxPending+2*frameSize {
				t.Errorf("%d bytes waited to be written", most)
			}
			return
		default:
			c.out.mu.Lock()
			most = max(most, len(c.out.buf))
			c.out.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	}
}

// A body that is still coming goes on with the next stream when the first one was refused, wherever it stands.
func TestABodyThatStreamsMovesToAnotherConnection(t *testing.T) {
	refuse := target(t, nil, func(r *raw) {
		r.await(http2.FrameHeaders)
		r.await(http2.FrameData) // it has begun
		_ = r.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		r.drain()
	})
	for _, ended := range []bool{false, true} {
		first, _ := connect(t, refuse, terms())
		second, _ := connect(t, serveH2C(t, echo), terms())
		x := ask("POST", "/")
		in, feed := io.Pipe()
		x.Request.Body = exchange.Body{Reader: in, Length: -1}
		x.Wire = &informs{cut: func() { _ = in.CloseWithError(io.ErrClosedPipe) }}
		go func() {
			_, _ = io.WriteString(feed, "one ")
			if ended {
				_ = feed.Close()
			}
		}()
		call, err := do(t, first, x, plan)
		if err == nil || !call.Unprocessed() || !call.Repeatable() {
			t.Fatalf("%v", err)
		}
		if !second.Reserve() {
			t.Fatal("no place")
		}
		go func() {
			if !ended {
				_, _ = io.WriteString(feed, "two")
				_ = feed.Close()
			}
		}()
		if err := call.Do(x, second); err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{false: "one two", true: "one "}[ended]
		if got, err := body(x); got != want || err != nil {
			t.Errorf("ended %v: %q, %v", ended, got, err)
		}
		call.Close()
	}
}

// A reply that breaks at the moment at which its client goes away ends all the same: nobody waits for the other's lock.
func TestBreakingAndCancelingAtOnce(t *testing.T) {
	address := target(t, nil, func(r *raw) {
		for {
			h, ok := r.await(http2.FrameHeaders).(*http2.HeadersFrame)
			if !ok {
				return
			}
			r.head(h.StreamID, false, ":status", "200")
			_ = r.WriteRSTStream(h.StreamID, http2.ErrCodeInternal)
		}
	})
	c, _ := connect(t, address, terms())
	for range 500 {
		x := ask("GET", "/")
		gone := make(chan struct{})
		call, err := do(t, c, x, plan)
		go func() { defer close(gone); x.Cancel.Cancel() }()
		if err == nil {
			_, err = body(x)
		}
		if got := code(t, err); got != "upstream_closed" && got != "client_gone" {
			t.Errorf("%s: %v", got, err)
		}
		call.Close()
		<-gone
	}
}
