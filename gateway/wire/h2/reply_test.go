package h2

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// pieces is a body that is handed out piece by piece, each when it is told to.
type pieces chan string

// Next implements exchange.Piecewise.
func (p pieces) Next() ([]byte, error) {
	s, ok := <-p
	if !ok {
		return nil, io.EOF
	}
	return []byte(s), nil
}

// Read implements io.Reader.
func (p pieces) Read([]byte) (int, error) { return 0, errors.New("it has pieces") }

// Ready says whether Next has to wait.
func (p pieces) Ready() bool { return len(p) > 0 }

func TestReplies(t *testing.T) {
	tests := []struct {
		name   string
		answer func(x *exchange.Exchange)
		want   string // status, body, Content-Length, trailers
	}{
		{"with a body", func(x *exchange.Exchange) { x.Answer(200, "text/plain", "hello") }, "200 hello 5 "},
		{"without one", func(x *exchange.Exchange) { x.Answer(200, "", "") }, "200  0 "},
		{"204", func(x *exchange.Exchange) { x.Answer(204, "", "") }, "204   "},
		{"304 with a length", func(x *exchange.Exchange) {
			x.Answer(304, "", "")
			x.Reply.Body.Length = 7
		}, "304  7 "},
		{"a status without an index", func(x *exchange.Exchange) { x.Answer(429, "", "slow") }, "429 slow 4 "},
		{"of unknown length", func(x *exchange.Exchange) {
			x.Answer(200, "", "")
			x.Reply.Body = exchange.Body{Reader: io.MultiReader(strings.NewReader("one,"), strings.NewReader("two")), Length: -1}
		}, "200 one,two  "},
		{"of unknown length, and empty", func(x *exchange.Exchange) {
			x.Answer(200, "", "")
			x.Reply.Body = exchange.Body{Reader: strings.NewReader(""), Length: -1}
		}, "200   "},
		{"with trailers", func(x *exchange.Exchange) {
			x.Answer(200, "", "hello")
			x.Reply.Body.Length = -1
			x.Reply.Trailer.Add("Grpc-Status", "0")
		}, "200 hello  grpc-status=0"},
		{"with trailers alone", func(x *exchange.Exchange) {
			x.Answer(200, "", "")
			x.Reply.Body.Length = -1
			x.Reply.Trailer.Add("Grpc-Status", "5")
		}, "200   grpc-status=5"},
		{"shorter than announced", func(x *exchange.Exchange) {
			x.Answer(200, "", "hello")
			x.Reply.Body.Length = 6
		}, "RST_STREAM INTERNAL_ERROR"},
		{"that breaks off", func(x *exchange.Exchange) {
			x.Answer(200, "", "")
			x.Reply.Body = exchange.Body{Reader: io.MultiReader(strings.NewReader("hello"), broken{}), Length: -1}
		}, "RST_STREAM INTERNAL_ERROR"},
		{"that panics", func(x *exchange.Exchange) { panic("on purpose") }, "RST_STREAM INTERNAL_ERROR"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := dial(t, begin(t, func(x *exchange.Exchange) {
				test.answer(x)
				_ = x.Wire.Reply(x)
			}, nil))
			p.head(1, true, get())
			got := p.outcome(1)
			if a := p.of(1); a.ended {
				got += " " + string(a.body) + " " + a.header["content-length"] + " "
				for name, value := range a.trailer {
					got += name + "=" + value
				}
				if a.header["date"] == "" {
					t.Error("it has no date")
				}
			}
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the upstream has gone") }

func TestAReplyToHEADSaysTheLengthAndHasNoBody(t *testing.T) {
	p := dial(t, begin(t, echo, nil))
	p.head(1, true, get(":method", "HEAD"))
	if a := p.answer(1); a.status != "200" || len(a.body) != 0 || a.header["content-length"] == "0" || a.header["content-length"] == "" {
		t.Errorf("%+v", a)
	}
}

func TestFieldsOfTheConnectionDoNotGoOut(t *testing.T) {
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		x.Answer(200, "", "")
		for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "X-Kept"} {
			x.Reply.Header.Add(name, "x")
		}
		_ = x.Wire.Reply(x)
	}, nil))
	p.head(1, true, get())
	if a := p.answer(1); a.header["x-kept"] != "x" || len(a.header) != 3 { // content-length, date
		t.Errorf("%v", a.header)
	}
}

// Every piece leaves as it comes, and the head before the first.
func TestAStreamedReplyIsFlushedPieceByPiece(t *testing.T) {
	body := make(pieces, 1)
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		x.Answer(200, "text/event-stream", "")
		x.Reply.Body = exchange.Body{Reader: body, Length: -1}
		_ = x.Wire.Reply(x)
	}, nil))
	p.head(1, true, get())
	if p.until("HEADERS 1"); p.of(1).status != "200" {
		t.Fatal("no head")
	}
	for _, event := range []string{"data: 1\n\n", "data: 2\n\n"} {
		body <- event
		p.until("DATA 1")
		if got := string(p.of(1).body); !strings.HasSuffix(got, event) {
			t.Fatalf("%q", got)
		}
	}
	close(body)
	if got := p.outcome(1); got != "200" {
		t.Error(got)
	}
}

// What the client does not take stays with the upstream: a blocked stream holds one piece, and stands in nobody's way.
func TestAReplyWaitsForTheWindowAndOthersGoOn(t *testing.T) {
	const size = 1 << 20
	pulled := make(chan int, 1)
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		if x.Request.Path == "/large" {
			x.Answer(200, "", "")
			body := &counting{left: size, told: pulled}
			x.Reply.Body = exchange.Body{Reader: body, Length: size}
			_ = x.Wire.Reply(x)
			return
		}
		echo(x)
	}, nil), http2Window(1000))
	p.head(1, true, get(":path", "/large"))
	for len(p.of(1).body) < 1000 {
		p.next()
	}
	p.must(p.framer.WriteSettings(http2Window(10_000))) // also for streams that are there
	for len(p.of(1).body) < 10_000 {
		p.next()
	}
	p.head(3, true, get())
	if got := p.outcome(3); got != "200" {
		t.Errorf("another stream: %s", got)
	}
	if n := <-pulled; n > 64<<10 {
		t.Errorf("%d bytes were pulled for 10,000 that could be sent", n)
	}
	p.must(p.framer.WriteWindowUpdate(1, size))
	p.must(p.framer.WriteWindowUpdate(0, size))
	if got := p.outcome(1); got != "200" || len(p.of(1).body) != size {
		t.Errorf("%s, %d bytes", got, len(p.of(1).body))
	}
}

// counting is a body that tells how much of it has been read.
type counting struct {
	left, read int
	told       chan int
}

// Read implements io.Reader.
func (c *counting) Read(p []byte) (int, error) {
	n := min(len(p), c.left)
	if n == 0 {
		return 0, io.EOF
	}
	c.left -= n
	c.read += n
	select {
	case <-c.told:
	default:
	}
	c.told <- c.read
	return n, nil
}

func TestAClientThatNeverOpensItsWindowLosesTheStream(t *testing.T) {
	reply := make(chan error, 1)
	r := begin(t, func(x *exchange.Exchange) {
		x.Answer(200, "", strings.Repeat("x", 100<<10))
		reply <- x.Wire.Reply(x)
	}, func(l *h1.Limits) { l.BodyTime = 50 * time.Millisecond })
	p := dial(t, r)
	p.head(1, true, get())
	if got := p.outcome(1); got != "RST_STREAM CANCEL" {
		t.Error(got)
	}
	if err := <-reply; !errors.Is(err, errStalled) {
		t.Errorf("%v", err)
	}
	if r.counted("headgate_h2_abuse_total", "slow_reader") != 1 {
		t.Error("it was not counted")
	}
	p.head(3, true, get(":method", "HEAD"))
	if got := p.outcome(3); got != "200" {
		t.Errorf("the next request: %s", got)
	}
}

// A client that reads nothing at all is cut off, and so are those that wait for it: no memory grows.
func TestAClientThatReadsNothingIsCutOff(t *testing.T) {
	var ended sync.WaitGroup
	ended.Add(10)
	r := begin(t, func(x *exchange.Exchange) {
		defer ended.Done()
		x.Answer(200, "", "")
		x.Reply.Body = exchange.Body{Reader: endless{}, Length: -1}
		if err := x.Wire.Reply(x); err == nil {
			t.Error("an endless reply has ended well")
		}
	}, func(l *h1.Limits) { l.BodyTime = 100 * time.Millisecond })
	p := dial(t, r, http2Window(maxWindow))
	p.must(p.framer.WriteWindowUpdate(0, maxWindow-initialWindow))
	for i := range uint32(10) {
		p.head(2*i+1, true, get())
	}
	ended.Wait()
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Slow client, fast upstream, and both directions at once: nothing waits for what waits for it.
func TestReadersAndWritersDoNotWaitForEachOther(t *testing.T) {
	const size = 3 << 20
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		x.Answer(200, "", "")
		x.Reply.Body = exchange.Body{Reader: x.Request.Body.Reader, Length: -1}
		_ = x.Wire.Reply(x)
	}, nil), http2Window(64<<10))
	var writing sync.Mutex
	var room sync.Cond
	room.L = &writing
	window := map[uint32]int{0: connWindow, 1: streamWindow, 3: streamWindow}
	send := func(id uint32) {
		for left := size; left > 0; {
			writing.Lock()
			for window[0] < 8<<10 || window[id] < 8<<10 {
				room.Wait()
			}
			n := min(left, 8<<10)
			p.data(id, left == n, strings.Repeat("x", n))
			left -= n
			window[0] -= n
			window[id] -= n
			writing.Unlock()
		}
	}
	p.head(1, false, post())
	p.head(3, false, post())
	p.until("WINDOW_UPDATE 0")
	var sending sync.WaitGroup
	sending.Go(func() { send(1) })
	sending.Go(func() { send(3) })
	for !p.of(1).ended || !p.of(3).ended {
		f := p.next()
		var id uint32
		var n int
		writing.Lock()
		if scan(f, "WINDOW_UPDATE %d %d", &id, &n) {
			window[id] += n
			room.Broadcast()
		} else if before := len(p.of(1).body) + len(p.of(3).body); scan(f, "DATA %d", &id) && before > 0 {
			p.must(p.framer.WriteWindowUpdate(0, 16<<10)) // more than came: the connection's window grows
			p.must(p.framer.WriteWindowUpdate(id, 16<<10))
		}
		writing.Unlock()
		if f == "closed" || strings.HasPrefix(f, "GOAWAY") || strings.HasPrefix(f, "RST") {
			t.Fatal(f)
		}
	}
	sending.Wait()
	if len(p.of(1).body) != size || len(p.of(3).body) != size {
		t.Errorf("%d and %d bytes", len(p.of(1).body), len(p.of(3).body))
	}
}

func TestGivingAStreamUpCancelsItsExchangeAlone(t *testing.T) {
	canceled := make(chan uint32, 2)
	r := begin(t, func(x *exchange.Exchange) {
		if x.Request.Path == "/wait" {
			<-x.Context().Done()
			canceled <- x.Shard
			if err := x.Wire.Reply(x); !errors.Is(err, errReset) {
				t.Errorf("%v", err)
			}
			return
		}
		echo(x)
	}, nil)
	p := dial(t, r)
	p.head(1, true, get(":path", "/wait"))
	p.must(p.framer.WriteRSTStream(1, http2.ErrCodeCancel))
	<-canceled
	p.head(3, true, get())
	if got := p.outcome(3); got != "200" {
		t.Error(got)
	}
}

func TestAClientThatHasGoneCancelsAllItsExchanges(t *testing.T) {
	begun, canceled := make(chan struct{}, 3), make(chan struct{}, 3)
	p := dial(t, begin(t, func(x *exchange.Exchange) {
		begun <- struct{}{}
		<-x.Context().Done()
		canceled <- struct{}{}
	}, nil))
	for _, id := range []uint32{1, 3, 5} {
		p.head(id, true, get())
	}
	for range 3 {
		<-begun
	}
	_ = p.net.Close()
	for range 3 {
		<-canceled
	}
}

// A goodbye has two steps (RFC 9113 section 6.8): what was on its way is taken, what comes after the client knows is not.
func TestGoodbye(t *testing.T) {
	r := begin(t, patient, nil)
	p := dial(t, r)
	p.head(1, true, get(":path", "/wait"))
	p.until("SETTINGS ACK")
	p.must(p.framer.WritePing(false, [8]byte{}))
	p.until("PING ACK") // stream 1 has been taken
	r.Announce()
	if got := p.until("GOAWAY"); got != "GOAWAY NO_ERROR" {
		t.Fatal(got)
	}
	p.head(3, true, get()) // it was on its way
	if got := p.outcome(3); got != "200" {
		t.Fatal(got)
	}
	p.must(p.framer.WritePing(false, [8]byte{}))
	p.until("PING ACK") // and so has the answer to our PING, which says that the client knows
	p.head(5, true, get())
	p.must(p.framer.WriteRSTStream(1, http2.ErrCodeCancel))
	if got := p.until("HEADERS"); got != "closed" {
		t.Error(got)
	}
	if a := p.of(5); a.status != "" {
		t.Errorf("%+v", a)
	}
}

func TestDrainTakesNoLongerThanItsLastStream(t *testing.T) {
	r := begin(t, echo, nil)
	p := dial(t, r)
	p.head(1, true, get())
	p.answer(1)
	r.shut()
	r.Drain()
	p.until("GOAWAY")
	if got := p.until("HEADERS"); got != "closed" {
		t.Error(got)
	}
	_ = p.net.Close()
	if cut := r.Wait(t.Context()); cut != 0 {
		t.Errorf("%d cut off", cut)
	}
}

func TestWaitCutsOffWhatDoesNotEnd(t *testing.T) {
	begun := make(chan struct{})
	r := begin(t, func(x *exchange.Exchange) {
		close(begun)
		<-x.Context().Done()
	}, nil)
	p := dial(t, r)
	p.head(1, true, get())
	<-begun
	r.shut()
	r.Drain()
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if cut := r.Wait(now); cut != 1 {
		t.Errorf("%d cut off", cut)
	}
}

func TestRequestsOfAConnectionAreLimited(t *testing.T) {
	p := dial(t, begin(t, echo, func(l *h1.Limits) { l.Requests = 2 }))
	p.head(1, true, get())
	p.answer(1)
	p.head(3, true, get())
	if got := p.until("GOAWAY"); got != "GOAWAY NO_ERROR" {
		t.Fatal(got)
	}
	if got := p.outcome(3); got != "200" {
		t.Error(got)
	}
	if got := p.until("HEADERS"); got != "closed" {
		t.Error(got)
	}
}
