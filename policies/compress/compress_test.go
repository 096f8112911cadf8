package compress

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"headgate/gateway/exchange"
	"headgate/gateway/policy/policytest"
)

// plain reads a compressed body.
func plain(t testing.TB, encoding string, r io.Reader) string {
	t.Helper()
	var err error
	switch encoding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "br":
		r = brotli.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", encoding, err)
	}
	return string(b)
}

var long = strings.Repeat(`{"id": 12345, "status": "open"}`, 100)

func TestWhichRepliesAreCompressed(t *testing.T) {
	for _, c := range []struct {
		name, request, accept string
		status                int
		fields                []string
		body                  string
		encoding, vary        string // of the reply
	}{
		{"the first offer of those liked equally", "GET /", "gzip, br, zstd", 200, nil, long, "zstd", "Accept-Encoding"},
		{"what the client likes best", "GET /", "zstd;q=0.5, br;q=0.8, gzip", 200, nil, long, "gzip", "Accept-Encoding"},
		{"x-gzip is gzip", "GET /", "x-gzip", 200, nil, long, "gzip", "Accept-Encoding"},
		{"anything will do", "GET /", "*", 200, nil, long, "zstd", "Accept-Encoding"},
		{"anything but", "GET /", "*, zstd;q=0, br;q=0.000", 200, nil, long, "gzip", "Accept-Encoding"},
		{"nothing at all", "GET /", "*;q=0", 200, nil, long, "", "Accept-Encoding"},
		{"rather as it is", "GET /", "gzip;q=0.5, identity", 200, nil, long, "", "Accept-Encoding"},
		{"a weight that cannot be read is none", "GET /", "gzip;q=2, br;q=0.8888, zstd;level=3", 200, nil, long, "", "Accept-Encoding"},
		{"no field", "GET /", "", 200, nil, long, "", "Accept-Encoding"},
		{"only unknown ones", "GET /", "deflate, compress", 200, nil, long, "", "Accept-Encoding"},
		{"Vary is added to", "GET /", "gzip", 200, []string{"Vary: Origin"}, long, "gzip", "Origin, Accept-Encoding"},
		{"Vary is not repeated", "GET /", "gzip", 200, []string{"Vary: Origin, accept-encoding"}, long, "gzip", "Origin, accept-encoding"},
		{"too small", "GET /", "gzip", 200, nil, "{}", "", ""},
		{"another media type", "GET /", "gzip", 200, []string{"Content-Type: image/png"}, long, "", ""},
		{"a suffix", "GET /", "gzip", 200, []string{"Content-Type: application/problem+json; charset=utf-8"}, long, "gzip", "Accept-Encoding"},
		{"nothing before the suffix", "GET /", "gzip", 200, []string{"Content-Type: application/+json"}, long, "", ""},
		{"messages of gRPC", "GET /", "gzip", 200, []string{"Content-Type: application/grpc+json"}, long, "", ""},
		{"messages of gRPC-Web", "GET /", "gzip", 200, []string{"Content-Type: application/grpc-web-text+json"}, long, "", ""},
		{"messages of Connect", "GET /", "gzip", 200, []string{"Content-Type: application/connect+json"}, long, "", ""},
		{"what begins like them", "GET /", "gzip", 200, []string{"Content-Type: application/connects+json"}, long, "gzip", "Accept-Encoding"},
		{"encoded already", "GET /", "gzip", 200, []string{"Content-Encoding: br"}, long, "", ""},
		{"a part", "GET /", "gzip", 206, []string{"Content-Range: bytes 0-1/2"}, long, "", ""},
		{"not to be transformed", "GET /", "gzip", 200, []string{"Cache-Control: public, no-transform"}, long, "", ""},
		{"not modified", "GET /", "gzip", 304, nil, long, "", "Accept-Encoding"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := policytest.Open(t, Kind, "{}")
			x := b.Exchange(c.request)
			if c.accept != "" {
				x.Request.Header.Add("Accept-Encoding", c.accept)
			}
			policytest.Fill(&x.Reply.Header, append([]string{"Content-Type: application/json", `ETag: "1"`}, c.fields...)...)
			if len(c.fields) > 0 && strings.HasPrefix(c.fields[0], "Content-Type") {
				x.Reply.Header.Set("Content-Type", strings.TrimPrefix(c.fields[0], "Content-Type: "))
			}
			x.Reply.Status, x.Reply.Body = c.status, exchange.Text(c.body)
			b.Hooks.Response.Now(x)
			body := b.Hooks.ResponseBody(x, x.Reply.Body.Reader)
			defer b.Hooks.Done(x)
			if got := x.Reply.Header.Joined("Vary"); got != c.vary {
				t.Errorf("Vary: %q, want %q", got, c.vary)
			}
			if c.encoding == "" {
				if x.Reply.Body.Length != int64(len(c.body)) || x.Reply.Header.Get("ETag") != `"1"` || body != x.Reply.Body.Reader {
					t.Error("the reply was changed")
				}
				return
			}
			if got := x.Reply.Header.Get("Content-Encoding"); got != c.encoding || x.Reply.Body.Length != -1 ||
				x.Reply.Header.Get("ETag") != `W/"1"` {
				t.Fatalf("Content-Encoding: %q, length %d, ETag %s", got, x.Reply.Body.Length, x.Reply.Header.Get("ETag"))
			}
			if plain(t, c.encoding, body) != c.body {
				t.Error("the client reads something else")
			}
		})
	}
}

// trickle gives one piece for each read, as a slow upstream does.
type trickle struct {
	pieces []string
	err    error
}

func (r *trickle) Read(p []byte) (int, error) {
	if len(r.pieces) == 0 {
		return 0, r.err
	}
	n := copy(p, r.pieces[0])
	r.pieces = r.pieces[1:]
	return n, nil
}

func TestEventsAreFlushedBeforeTheNextOneIsWaitedFor(t *testing.T) {
	for _, encoding := range []string{"gzip", "br", "zstd"} {
		t.Run(encoding, func(t *testing.T) {
			offers := newOffers([]string{encoding}, "fast")
			for range 2 { // the second time with an encoder that has been used
				upstream := &trickle{pieces: []string{"data: one\n\n"}, err: errors.New("nothing more was asked for")}
				s := &stream{offer: offers[0], left: -1}
				s.begin(upstream)
				var got []byte
				buf := make([]byte, 7)
				for s.out.Len() > 0 || len(upstream.pieces) > 0 {
					n, err := s.Read(buf)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, buf[:n]...)
				}
				if text := beginning(t, encoding, got, len("data: one\n\n")); text != "data: one\n\n" {
					t.Errorf("before the second event the client reads %q", text)
				}
				s.end()
			}
		})
	}
}

// beginning reads the first n bytes of a compressed body that has not ended.
func beginning(t *testing.T, encoding string, b []byte, n int) string {
	t.Helper()
	var r io.Reader = bytes.NewReader(b)
	var err error
	switch encoding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "br":
		r = brotli.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWhateverThePiecesTheClientReadsWhatTheUpstreamSent(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		encoding := rapid.SampledFrom([]string{"gzip", "br", "zstd"}).Draw(r, "encoding")
		level := rapid.SampledFrom([]string{"fast", "balanced", "best"}).Draw(r, "level")
		pieces := rapid.SliceOf(rapid.StringN(1, 2000, pieceSize)).Draw(r, "pieces")
		s := &stream{offer: newOffers([]string{encoding}, level)[0], left: -1}
		s.begin(&trickle{pieces: pieces, err: io.EOF})
		if got := plain(t, encoding, s); got != strings.Join(pieces, "") {
			r.Errorf("%d bytes became %d", len(strings.Join(pieces, "")), len(got))
		}
		s.end()
	})
}

func TestAReplyToHeadHasTheFieldsOfGet(t *testing.T) {
	b := policytest.Open(t, Kind, "{}")
	var want []string
	for _, method := range []string{"GET", "HEAD"} {
		x := b.Exchange(method+" /", "Accept-Encoding: br")
		policytest.Fill(&x.Reply.Header, "Content-Type: text/html", `ETag: "1"`, "Accept-Ranges: bytes")
		x.Reply.Status, x.Reply.Body = 200, exchange.Text(long)
		if method == "HEAD" {
			x.Reply.Body.Reader = nil
		}
		b.Hooks.Response.Now(x)
		if x.Reply.Body.Length != -1 {
			t.Errorf("%s: the length of what came, %d, stands in a reply of another length", method, x.Reply.Body.Length)
		}
		if got := policytest.Lines(&x.Reply.Header); want == nil {
			want = got
		} else if !slices.Equal(got, want) {
			t.Errorf("HEAD has %q, GET %q", got, want)
		}
		b.Hooks.Done(x)
	}
}

func TestABodyOfKnownLengthNeedsNoReadBeyondItsEnd(t *testing.T) {
	upstream := &trickle{pieces: []string{long[:1000], long[1000:]}, err: errors.New("read beyond the end")}
	s := &stream{offer: newOffers([]string{"gzip"}, "fast")[0], left: int64(len(long))}
	s.begin(upstream)
	if got := plain(t, "gzip", s); got != long {
		t.Errorf("%d bytes became %d", len(long), len(got))
	}
	s.end()
}

// eager is a body that tells whether more is at hand.
type eager struct{ trickle }

func (r *eager) Ready() bool { return len(r.pieces) > 0 }

func TestWhatComesInOneGoIsNotFlushedPieceByPiece(t *testing.T) {
	pieces := strings.SplitAfter(strings.Repeat("a line of a page\n", 500), "\n")
	size := func(body io.Reader) int {
		s := &stream{offer: newOffers([]string{"gzip"}, "fast")[0], left: -1}
		s.begin(body)
		defer s.end()
		b, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		return len(b)
	}
	atOnce, slowly := size(&eager{trickle{pieces, io.EOF}}), size(&trickle{pieces, io.EOF})
	if 5*atOnce > slowly {
		t.Errorf("%d bytes when all is at hand, %d when each line is flushed", atOnce, slowly)
	}
}

func TestAPieceThatFillsTheBufferIsFlushedToo(t *testing.T) {
	s := &stream{offer: newOffers([]string{"gzip"}, "fast")[0], left: -1}
	whole := strings.Repeat("x", pieceSize)
	s.begin(&trickle{pieces: []string{whole}, err: errors.New("waits for ever")})
	var got []byte
	buf := make([]byte, 512)
	for n, err := s.Read(buf); err == nil; n, err = s.Read(buf) {
		if got = append(got, buf[:n]...); s.out.Len() == 0 {
			break
		}
	}
	if beginning(t, "gzip", got, pieceSize) != whole {
		t.Error("the client waits for what the upstream has sent")
	}
	s.end()
}

func TestAReplyThatStaysAsItIsCostsNoAllocation(t *testing.T) {
	b := policytest.Open(t, Kind, "{}")
	x := b.Exchange("GET /", "Accept-Encoding: gzip, deflate, br, zstd")
	policytest.Fill(&x.Reply.Header, "Content-Type: application/json")
	x.Reply.Status, x.Reply.Body = 200, exchange.Text("{}")
	if n := testing.AllocsPerRun(100, func() {
		b.Hooks.Response.Now(x)
		b.Hooks.ResponseBody(x, x.Reply.Body.Reader)
		b.Hooks.Done(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCompress(b *testing.B) {
	for _, encoding := range []string{"gzip", "br", "zstd"} {
		b.Run(encoding, func(b *testing.B) {
			bench := policytest.Open(b, Kind, "{}")
			x := bench.Exchange("GET /", "Accept-Encoding: "+encoding)
			buf := make([]byte, 16<<10)
			b.SetBytes(int64(len(long)))
			b.ReportAllocs()
			for b.Loop() {
				x.Reply.Header.Reset("")
				x.Reply.Header.Add("Content-Type", "application/json")
				x.Reply.Status, x.Reply.Body = 200, exchange.Text(long)
				bench.Hooks.Response.Now(x)
				body := bench.Hooks.ResponseBody(x, x.Reply.Body.Reader)
				for {
					if _, err := body.Read(buf); err != nil {
						break
					}
				}
				bench.Hooks.Done(x)
			}
		})
	}
}

func TestABodyThatBreaksOffBreaksOff(t *testing.T) {
	broken := errors.New("reset")
	s := &stream{offer: newOffers([]string{"gzip"}, "fast")[0], left: -1}
	s.begin(&trickle{pieces: []string{"half"}, err: broken})
	if _, err := io.ReadAll(s); !errors.Is(err, broken) {
		t.Errorf("the client's body ends with %v", err)
	}
	s.end()
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Error("it can be read after its end")
	}
}

func TestWrongOptionsSayWhatIsAllowed(t *testing.T) {
	for options, want := range map[string]string{
		`{encodings: []}`:         "nothing is offered",
		`{encodings: [deflate]}`:  "zstd",
		`{types: [json]}`:         "type/subtype",
		`{types: ["*/*"]}`:        "type/subtype",
		`{types: ["text/*html"]}`: "type/subtype",
		`{level: 9}`:              "fast",
	} {
		if problems := policytest.Wrong(t, Kind, options); !strings.Contains(problems, want) {
			t.Errorf("%s: %q does not say %q", options, problems, want)
		}
	}
}
