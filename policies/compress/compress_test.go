package compress

import (
	"bytes"
	"errors"
	"io"
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
		{"HEAD says only that it varies", "HEAD /", "gzip", 200, nil, long, "", "Accept-Encoding"},
		{"Vary is added to", "GET /", "gzip", 200, []string{"Vary: Origin"}, long, "gzip", "Origin, Accept-Encoding"},
		{"Vary is not repeated", "GET /", "gzip", 200, []string{"Vary: Origin, accept-encoding"}, long, "gzip", "Origin, accept-encoding"},
		{"too small", "GET /", "gzip", 200, nil, "{}", "", ""},
		{"another media type", "GET /", "gzip", 200, []string{"Content-Type: image/png"}, long, "", ""},
		{"a suffix", "GET /", "gzip", 200, []string{"Content-Type: application/problem+json; charset=utf-8"}, long, "gzip", "Accept-Encoding"},
		{"nothing before the suffix", "GET /", "gzip", 200, []string{"Content-Type: application/+json"}, long, "", ""},
		{"encoded already", "GET /", "gzip", 200, []string{"Content-Encoding: br"}, long, "", ""},
		{"a part", "GET /", "gzip", 206, []string{"Content-Range: bytes 0-1/2"}, long, "", ""},
		{"not to be transformed", "GET /", "gzip", 200, []string{"Cache-Control: public, no-transform"}, long, "", ""},
		{"not modified", "GET /", "gzip", 304, nil, long, "", ""},
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
				s := &stream{offer: offers[0]}
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
		s := &stream{offer: newOffers([]string{encoding}, level)[0]}
		s.begin(&trickle{pieces: pieces, err: io.EOF})
		if got := plain(t, encoding, s); got != strings.Join(pieces, "") {
			r.Errorf("%d bytes became %d", len(strings.Join(pieces, "")), len(got))
		}
		s.end()
	})
}

func TestABodyThatBreaksOffBreaksOff(t *testing.T) {
	broken := errors.New("reset")
	s := &stream{offer: newOffers([]string{"gzip"}, "fast")[0]}
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
