package h1

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"headgate/gateway/exchange"
)

// everywhere cuts a message into single bytes.
func everywhere(raw string) (cuts []int) {
	for i := range raw {
		cuts = append(cuts, i)
	}
	return cuts
}

// chunkedBodies are bodies of requests, what they mean, and where they end.
var chunkedBodies = []struct {
	name, raw string
	want      message
}{
	{"empty", "0\r\n\r\n", message{}},
	{"one chunk", "5\r\nhello\r\n0\r\n\r\n", message{data: "hello"}},
	{"two chunks", "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", message{data: "hello, world"}},
	{"zeros in front, capitals", "00A\r\n0123456789\r\n000\r\n\r\n", message{data: "0123456789"}},
	{"line ends as data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", message{data: "\r\n\r\n"}},
	{"last chunk as data", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", message{data: "\r\n0\r\n\r\n"}},
	{"request as data", "12\r\nGET / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n", message{data: "GET / HTTP/1.1\r\n\r\n"}},
	{"extensions are dropped", "5;a=b;c=\"d;e\"\r\nhello\r\n0;x\r\n\r\n", message{data: "hello"}},
	{"trailers", "5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n", message{data: "hello", trailer: "A=b\nC=d\n"}},
	{"trailers that must not be there", "0\r\nContent-Length: 9\r\nHost: b\r\nA: b\r\n\r\n", message{trailer: "A=b\n"}},
	{"next request behind", "5\r\nhello\r\n0\r\n\r\nGET /", message{data: "hello", rest: "GET /"}},
	{"next request behind trailers", "0\r\nA: b\r\n\r\nGET /", message{trailer: "A=b\n", rest: "GET /"}},
	{"empty line behind", "0\r\n\r\n\r\n", message{rest: "\r\n"}},
	{"longest line", "5;" + strings.Repeat("a", maxChunkLine-3) + "\r\nhello\r\n0\r\n\r\n", message{data: "hello"}},

	{"line too long", "5;" + strings.Repeat("a", maxChunkLine-2) + "\r\nhello\r\n0\r\n\r\n", message{err: errChunkLine}},
	{"line without end", strings.Repeat("0", 1000), message{err: errChunkLine}},
	{"LF behind a size", "5\nhello\r\n0\r\n\r\n", message{err: errBareLF}},
	{"CR behind a size", "5\rhello\r\n0\r\n\r\n", message{err: errBareCR}},
	{"LF CR behind a size", "5\n\rhello\r\n0\r\n\r\n", message{err: errBareLF}},
	{"CR CR LF behind a size", "5\r\r\nhello\r\n0\r\n\r\n", message{err: errBareCR}},
	{"two other bytes behind a size", "5XXhello\r\n0\r\n\r\n", message{err: errChunkSize}},
	{"nothing behind a size", "5hello\r\n0\r\n\r\n", message{err: errChunkSize}},
	{"empty line for a size", "\r\n5\r\nhello\r\n0\r\n\r\n", message{err: errChunkSize}},
	{"LF for a size", "\n0\r\n\r\n", message{err: errBareLF}},
	{"EXT.TERM: LF ends an extension", "5;\nxx\r\nhello\r\n0\r\n\r\n", message{err: errBareLF}},
	{"TERM.EXT: LF inside an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n", message{err: errBareLF}},
	{"CR ends an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", message{err: errBareCR}},
	{"LF inside a quoted extension", "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", message{err: errBareLF}},
	{"NUL in an extension", "5;a\x00\r\nhello\r\n0\r\n\r\n", message{err: errChunkExt}},
	{"space behind a size", "5 \r\nhello\r\n0\r\n\r\n", message{err: errChunkExt}},
	{"space before a size", " 5\r\nhello\r\n0\r\n\r\n", message{err: errChunkSize}},
	{"0x", "0x5\r\nhello\r\n0\r\n\r\n", message{err: errChunkSize}},
	{"plus sign", "+5\r\nhello\r\n0\r\n\r\n", message{err: errChunkSize}},
	{"minus sign", "-5\r\nhello\r\n0\r\n\r\n", message{err: errChunkSize}},
	{"overflow", "10000000000000005\r\nhello\r\n0\r\n\r\n", message{err: errChunkSize}},
	{"data longer than its size", "5\r\nhello!\r\n0\r\n\r\n", message{data: "hello", err: errChunkEnd}},
	{"data shorter than its size", "6\r\nhello\r\n0\r\n\r\n", message{data: "hello\r", err: errChunkEnd}},
	{"SPILL: the end is two other bytes", "5\r\nhelloXX0\r\n\r\n", message{data: "hello", err: errChunkEnd}},
	{"LF behind the data", "5\r\nhello\n0\r\n\r\n", message{data: "hello", err: errChunkEnd}},
	{"CR behind the data", "5\r\nhello\r0\r\n\r\n", message{data: "hello", err: errChunkEnd}},
	{"LF CR behind the data", "5\r\nhello\n\r0\r\n\r\n", message{data: "hello", err: errChunkEnd}},
	{"nothing behind the data", "5\r\nhello0\r\n\r\n", message{data: "hello", err: errChunkEnd}},
	{"space behind the data", "5\r\nhello \r\n0\r\n\r\n", message{data: "hello", err: errChunkEnd}},
	{"one wrong byte behind the data is enough", "5\r\nhellox", message{data: "hello", err: errChunkEnd}},
	{"LF behind the last chunk", "0\n\r\n", message{err: errBareLF}},
	{"LF ends the body", "0\r\n\n", message{err: errBareLF}},
	{"request in place of the last CRLF", "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", message{err: errNameSpace}},
	{"folded trailer", "0\r\nA: b\r\n c\r\n\r\n", message{err: errFold}},
	{"LF in a trailer", "0\r\nA: b\nC: d\r\n\r\n", message{err: errBareLF}},
	{"CR in a trailer", "0\r\nA: b\rC: d\r\n\r\n", message{err: errBareCR}},
	{"trailer section too large", "0\r\nA: " + strings.Repeat("b", 9<<10) + "\r\n\r\n", message{err: errHeadTooLarge}},

	{"nothing", "", message{err: errShortBody}},
	{"end within a size", "5", message{err: errShortBody}},
	{"end behind a size", "5\r\n", message{err: errShortBody}},
	{"end within the data", "5\r\nhel", message{data: "hel", err: errShortBody}},
	{"end behind the data", "5\r\nhello", message{data: "hello", err: errShortBody}},
	{"end before the last chunk", "5\r\nhello\r\n", message{data: "hello", err: errShortBody}},
	{"end within the last chunk", "5\r\nhello\r\n0\r\n", message{data: "hello", err: errShortBody}},
	{"end within the last CRLF", "5\r\nhello\r\n0\r\n\r", message{data: "hello", err: errShortBody}},
	{"end within the trailers", "0\r\nA: b\r\n", message{err: errShortBody}},
}

// A chunked body means the same, or is refused for the same reason, whether it arrives at once or byte by byte; and it
// never takes a byte of what stands behind it.
func TestChunkedBodies(t *testing.T) {
	ws := newWires(t)
	for _, c := range chunkedBodies {
		t.Run(c.name, func(t *testing.T) {
			for arrival, cuts := range map[string][]int{"at once": nil, "byte by byte": everywhere(c.raw)} {
				if got := ws.receive(t, c.raw, cuts, how{kind: byChunks, request: true}); got != c.want {
					t.Errorf("%s: %.200q\n got %+v\nwant %+v", arrival, c.raw, got, c.want)
				}
			}
		})
	}
}

func TestBodiesOfKnownLength(t *testing.T) {
	ws := newWires(t)
	large := strings.Repeat("0123456789abcdef", 16<<10)
	for _, c := range []struct {
		name, raw string
		how       how
		want      message
	}{
		{"whole", "hello", how{kind: byLength, length: 5}, message{data: "hello"}},
		{"empty", "", how{kind: byLength}, message{}},
		{"next request behind", "helloGET /", how{kind: byLength, length: 5}, message{data: "hello", rest: "GET /"}},
		{"empty, next request behind", "GET /", how{kind: byLength}, message{rest: "GET /"}},
		{"no body, next request behind", "GET /", how{kind: noBody}, message{rest: "GET /"}},
		{"large", large + "X", how{kind: byLength, length: int64(len(large))}, message{data: large, rest: "X"}},
		{"short", "hel", how{kind: byLength, length: 5}, message{data: "hel", err: errShortBody}},
		{"nothing", "", how{kind: byLength, length: 5}, message{err: errShortBody}},
		{"until the end", "hello", how{kind: byClose}, message{data: "hello"}},
		{"until the end at once", "", how{kind: byClose}, message{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			splits := map[string][]int{"at once": nil, "in the middle": {len(c.raw) / 2}}
			if len(c.raw) < 100 {
				splits["byte by byte"] = everywhere(c.raw)
			}
			for arrival, cuts := range splits {
				if got := ws.receive(t, c.raw, cuts, c.how); got != c.want {
					t.Errorf("%s: got %.100q %v, want %.100q %v", arrival, got.data, got.err, c.want.data, c.want.err)
				}
			}
		})
	}
}

// The size of a chunked body is only known as it comes, and is held against the limit before the chunk is taken.
func TestChunkedRequestBodiesAreBounded(t *testing.T) {
	ws := newWires(t)
	l := testLimits()
	l.Body = 8
	for _, c := range []struct {
		name, raw string
		request   bool
		want      message
	}{
		{"at the limit", "5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n", true, message{data: "helloyou"}},
		{"above by the second chunk", "5\r\nhello\r\n4\r\nyou!\r\n0\r\n\r\n", true, message{data: "hello", err: errBodyTooLarge}},
		{"above by the first chunk", "9\r\nhello you\r\n0\r\n\r\n", true, message{err: errBodyTooLarge}},
		{"above by far", "fffffffffffffff\r\n", true, message{err: errBodyTooLarge}},
		{"a reply's is not", "9\r\nhello you\r\n0\r\n\r\n", false, message{data: "hello you"}},
	} {
		if got := ws.receive(t, c.raw, nil, how{kind: byChunks, limits: l, request: c.request}); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// A body is an io.Reader like any other.
func TestBodyReadsLikeAnyReader(t *testing.T) {
	ws := newWires(t)
	for _, c := range []struct {
		name, raw string
		kind      bodyKind
	}{
		{"length", "hello, world", byLength},
		{"chunks", "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", byChunks},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := ws.open(t)
			defer w.close()
			if err := w.send(c.raw, nil); err != nil {
				t.Fatal(err)
			}
			l := testLimits()
			var trailer exchange.Header
			var b Body
			b.begin(&w.in, &Head{Length: 12}, c.kind, &trailer, l, l.BodyTime)
			if err := iotest.TestReader(&b, []byte("hello, world")); err != nil {
				t.Error(err)
			}
		})
	}
}

// AtHand takes the rest of a body exactly when all of it has arrived.
func TestBodyAtHand(t *testing.T) {
	ws := newWires(t)
	w := ws.open(t)
	defer w.close()
	l := testLimits()
	var trailer exchange.Header
	var b Body
	b.begin(&w.in, &Head{Length: 5}, byLength, &trailer, l, l.BodyTime)
	if p := b.AtHand(); p != nil || b.Size() != 5 || b.Done() {
		t.Fatalf("nothing has arrived: %q, size %d, done %v", p, b.Size(), b.Done())
	}
	if _, err := io.WriteString(w.peer, "helloGET"); err != nil {
		t.Fatal(err)
	}
	for len(w.in.Buffered()) < 8 {
		if err := w.in.Fill(100); err != nil {
			t.Fatal(err)
		}
	}
	if p := b.AtHand(); string(p) != "hello" || b.Size() != 5 || !b.Done() {
		t.Errorf("%q, size %d, done %v", p, b.Size(), b.Done())
	}
	if rest := string(w.in.Buffered()); rest != "GET" {
		t.Errorf("rest %q", rest)
	}
}

// A body without progress ends when its time is over, and one that drips ends when it is slower than the least rate.
func TestSlowBodiesEnd(t *testing.T) {
	ws := newWires(t)
	ctx, cancel := context.WithCancel(t.Context())
	var sweeping sync.WaitGroup
	sweeping.Go(func() { _ = ws.sweeper.Run(ctx) })
	defer sweeping.Wait()
	defer cancel()

	for _, c := range []struct {
		name    string
		sent    string
		began   time.Duration // before now
		request bool
		time    time.Duration
		want    error
	}{
		{"no byte within the time", "", 0, true, 10 * time.Millisecond, errSlowBody},
		{"no byte until the rate holds", "", rateGrace - 20*time.Millisecond, true, time.Hour, errSlowBody},
		{"no more bytes until the rate holds", "h", rateGrace - 20*time.Millisecond, true, time.Hour, errSlowBody},
		{"a byte, and then none", "h", 0, true, 10 * time.Millisecond, errSlowBody},
		{"a reply's, too", "h", 0, false, 10 * time.Millisecond, errSlowBody},
		{"below the rate", "h", rateGrace + time.Minute, true, time.Hour, errSlowBody},
		{"below the rate within the grace", "hello", rateGrace - time.Second, true, time.Hour, io.EOF},
		{"a reply may be slow", "hello", rateGrace + time.Minute, false, time.Hour, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := ws.open(t)
			defer w.close()
			l := testLimits()
			l.MinBodyRate, l.BodyTime = 100, c.time
			var trailer exchange.Header
			var b Body
			b.begin(&w.in, &Head{Length: 5}, byLength, &trailer, l, l.BodyTime)
			if c.request {
				b.meter(ws.sweeper)
				b.began -= c.began
			}
			if _, err := io.WriteString(w.peer, c.sent); err != nil {
				t.Fatal(err)
			}
			var err error
			for err == nil {
				_, err = b.Next()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// The least rate is the client's to keep: time in which nobody reads, or in which it waits for 100 (Continue), is not its.
func TestOnlyTimeSpentReadingCountsAgainstTheClient(t *testing.T) {
	ws := newWires(t)
	for _, c := range []struct {
		name   string
		expect bool
		began  time.Duration // before now
		seen   time.Duration // before now
		want   error
	}{
		{"it was read from all the time", false, time.Hour, 0, errSlowBody},
		{"nobody has read since it began", false, time.Hour, time.Hour, io.EOF},
		{"it waited for 100 (Continue)", true, time.Hour, 0, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := ws.open(t)
			defer w.close()
			l := testLimits()
			l.MinBodyRate = 100
			var trailer exchange.Header
			var b Body
			b.begin(&w.in, &Head{Length: 5, Expect: c.expect}, byLength, &trailer, l, l.BodyTime)
			b.meter(ws.sweeper)
			b.began -= c.began
			b.seen -= c.seen
			if _, err := io.WriteString(w.peer, "hello"); err != nil {
				t.Fatal(err)
			}
			var err error
			for err == nil {
				_, err = b.Next()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
