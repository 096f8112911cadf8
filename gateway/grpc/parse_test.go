package grpc

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headgate/gateway/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestATimeoutIsDigitsAndAUnit(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"1H", time.Hour, true},
		{"90M", 90 * time.Minute, true},
		{"5S", 5 * time.Second, true},
		{"250m", 250 * time.Millisecond, true},
		{"99999999u", 99999999 * time.Microsecond, true},
		{"1n", 1, true},
		{"0S", 0, true},
		{"00000001S", time.Second, true},
		{"99999999H", math.MaxInt64, true}, // more than a Duration can say
		{"123456789n", 0, false},           // nine digits
		{"", 0, false},
		{"S", 0, false},
		{"5", 0, false},
		{"5s", 0, false},
		{"5h", 0, false},
		{"5 S", 0, false},
		{" 5S", 0, false},
		{"+5S", 0, false},
		{"-5S", 0, false},
		{"5.0S", 0, false},
		{"0x5S", 0, false},
		{"5SS", 0, false},
		{"٥S", 0, false},
	} {
		if got, ok := parseTimeout(c.text); got != c.want || ok != c.ok {
			t.Errorf("%q: %v %v, want %v %v", c.text, got, ok, c.want, c.ok)
		}
	}
}

func TestAConnectTimeoutIsTenDigitsAtMost(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"1", time.Millisecond, true}, {"9999999999", 9999999999 * time.Millisecond, true}, {"0", 0, true},
		{"10000000000", 0, false}, {"", 0, false}, {"1s", 0, false}, {"-1", 0, false}, {"1.5", 0, false},
	} {
		if got, ok := parseConnectTimeout(c.text); ok != c.ok || ok && got != c.want {
			t.Errorf("%q: %v %v, want %v %v", c.text, got, ok, c.want, c.ok)
		}
	}
}

// What the upstream is told is never more than what is left, never nothing, and exact to one part in fifty thousand.
func TestWhatIsLeftIsToldToTheUpstream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		left := time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "left"))
		text := formatTimeout(left)
		got, ok := parseTimeout(text)
		if !ok || got > left || left-got > left/50_000+1 {
			t.Fatalf("%v is told as %s, which is %v", left, text, got)
		}
	})
	for left, want := range map[time.Duration]string{
		0: "1n", -time.Second: "1n", 5 * time.Second: "5000000u", time.Millisecond: "1000000n", time.Minute: "60000000u",
	} {
		if got := formatTimeout(left); got != want {
			t.Errorf("%v: %s, want %s", left, got, want)
		}
	}
	for left, want := range map[time.Duration]string{0: "1", -1: "1", 1500 * time.Microsecond: "1", math.MaxInt64: "9999999999"} {
		if got := formatConnectTimeout(left); got != want {
			t.Errorf("%v: %s, want %s", left, got, want)
		}
	}
}

func FuzzTimeout(f *testing.F) {
	for _, s := range []string{"1S", "99999999H", "123456789n", "", "m", "1.5S", "01M"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := parseTimeout(s)
		valid := len(s) >= 2 && len(s) <= 9 && strings.Trim(s[:len(s)-1], "0123456789") == "" && strings.Contains("HMSmun", s[len(s)-1:])
		if ok != valid || d < 0 {
			t.Errorf("%q: %v %v", s, d, ok)
		}
	})
}

func TestAMessageIsPercentEncoded(t *testing.T) {
	for _, c := range []struct{ message, want string }{
		{"all is well", "all is well"},
		{"", ""},
		{"100%", "100%25"},
		{"two\nlines", "two%0Alines"},
		{"ü", "%C3%BC"},
		{"~\x7f", "~%7F"},
		{"\x00\xff", "%00%FF"},
		{strings.Repeat("a", maxMessage-1) + "ü", strings.Repeat("a", maxMessage-1)}, // cut between characters
	} {
		if got := encodeMessage(c.message); got != c.want {
			t.Errorf("%q: %q, want %q", c.message, got, c.want)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"", "a b", "50% off", "\r\nx: y", "日本"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := encodeMessage(s)
		if !exchange.ValidValue(got) && strings.TrimSpace(got) == got {
			t.Errorf("%q becomes %q, which cannot be a field's value", s, got)
		}
		back, err := url.PathUnescape(got)
		if err != nil || len(s) <= maxMessage && back != s || !strings.HasPrefix(s, back) && utf8.ValidString(s) {
			t.Errorf("%q becomes %q, which is read as %q", s, got, back)
		}
	})
}

func TestRecognition(t *testing.T) {
	for _, c := range []struct {
		method, contentType, field string
		protocol                   protocol
		subtype                    string
		ok                         bool
	}{
		{"POST", "application/grpc", "", native, "", true},
		{"POST", "application/grpc+proto", "", native, "+proto", true},
		{"POST", "Application/GRPC+json; charset=utf-8", "", native, "+json; charset=utf-8", true},
		{"POST", "application/grpc-web", "", web, "", true},
		{"POST", "application/grpc-web+proto", "", web, "+proto", true},
		{"POST", "application/grpc-web-text", "", webText, "", true},
		{"POST", "application/grpc-web-text+proto", "", webText, "+proto", true},
		{"POST", "application/connect+json", "", connectStream, "+json", true},
		{"POST", "application/proto", "Connect-Protocol-Version", connectUnary, "", true},
		{"POST", "application/json; charset=utf-8", "Connect-Protocol-Version", connectUnary, "", true},
		{"GET", "", "", connectUnary, "", true}, // with connect=v1 in the query
		{"POST", "application/json", "", 0, "", false},
		{"POST", "application/grpcx", "", 0, "", false},
		{"POST", "application/grpc-webx", "", 0, "", false},
		{"POST", "application/grpc-web-textual", "", 0, "", false},
		{"POST", "application/connect", "", 0, "", false},
		{"POST", "application/", "", 0, "", false},
		{"POST", "text/plain", "", 0, "", false},
		{"POST", "", "", 0, "", false},
		{"PUT", "application/grpc", "", 0, "", false}, // a call is a POST
	} {
		r := exchange.Request{Method: c.method, HasQuery: true, Query: "connect=v1"}
		if c.contentType != "" {
			r.Header.Add("content-type", c.contentType)
		}
		if c.field != "" {
			r.Header.Add(c.field, "1")
		}
		p, subtype, ok := recognize(&r)
		if ok != c.ok || ok && (p != c.protocol || (subtype != c.subtype && !p.isConnect())) {
			t.Errorf("%s %q: %v %q %v, want %v %q %v", c.method, c.contentType, p, subtype, ok, c.protocol, c.subtype, c.ok)
		}
	}
}

func TestAcceptDecidesWhetherAReplyIsText(t *testing.T) {
	for _, c := range []struct {
		accept string
		asked  protocol
		text   bool
	}{
		{"", webText, true}, {"", web, false}, {"*/*", webText, true},
		{"application/grpc-web-text", web, true},
		{"application/grpc-web", webText, false},
		{"text/html, application/grpc-web-text+proto, application/grpc-web", web, true},
	} {
		var h exchange.Header
		if c.accept != "" {
			h.Add("Accept", c.accept)
		}
		if got := wantsText(&h, c.asked); got != c.text {
			t.Errorf("%q: %v", c.accept, got)
		}
	}
}

func TestTextIsDecodedHoweverItIsCut(t *testing.T) {
	message := "\x00\x00\x00\x00\x05hello"
	encode := base64.StdEncoding.EncodeToString
	for _, text := range []string{
		encode([]byte(message)),
		encode([]byte(message[:1])) + encode([]byte(message[1:6])) + encode([]byte(message[6:])), // padding inside
		encode([]byte(message[:5])) + encode([]byte(message[5:])),
	} {
		for name, cut := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader,
			"with the end": iotest.DataErrReader,
		} {
			d := &decoder{from: cut(strings.NewReader(text))}
			got, err := io.ReadAll(iotest.OneByteReader(d))
			if string(got) != message || err != nil {
				t.Errorf("%s, %s: %q %v", text, name, got, err)
			}
			d.release()
		}
	}
}

func TestTextThatIsNotBase64IsRefused(t *testing.T) {
	for text, before := range map[string]string{
		"AAAA*AAA": "\x00\x00\x00", "AAA": "", "AAAAA": "\x00\x00\x00", "=AAA": "", "A===": "", "AA=A": "", "AA A": "", "AAA\n": "",
		"AA-_": "", // of another alphabet
	} {
		got, err := io.ReadAll(&decoder{from: strings.NewReader(text)})
		var e *exchange.Error
		if string(got) != before || !errors.As(err, &e) || e.Code != exchange.BadRequest || e.Source != exchange.FromClient {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
}

// The decoder agrees with encoding/base64 about every text that both take as one, and never invents bytes.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "AAAA", "AA==", "AA==AAA=", "AAA", "!", "AAAA AAAA", "AA==BBBB"} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, s string, size int) {
		d := &decoder{from: iotest.HalfReader(strings.NewReader(s))}
		var got []byte
		var err error
		for p := make([]byte, 1+max(size, -size)%64); err == nil; {
			var n int
			n, err = d.Read(p)
			got = append(got, p[:n]...)
		}
		want, wantErr := groupwise(s)
		if (errors.Is(err, io.EOF)) != (wantErr == nil) || !bytes.Equal(got, want) {
			t.Errorf("%q: %q %v, want %q %v", s, got, err, want, wantErr)
		}
		d.release()
	})
}

// groupwise decodes with the standard library, four characters at a time.
func groupwise(s string) (b []byte, err error) {
	for ; len(s) >= 4; s = s[4:] {
		piece, err := base64.StdEncoding.DecodeString(s[:4])
		if err != nil || strings.ContainsAny(s[:4], "\r\n") {
			return b, errors.New("not base64")
		}
		b = append(b, piece...)
	}
	if s != "" {
		return b, io.ErrUnexpectedEOF
	}
	return b, nil
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02hi\x00\x00\x00\x00\x00"), 1)
	f.Add([]byte("\x00\x00\x00\x00"), 2)
	f.Add([]byte("\x01\xff\xff\xff\xffabc"), 3)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		size = 1 + max(size, -size)%32
		var f frames
		for at := 0; at < len(stream); at += size {
			f.feed(stream[at:min(at+size, len(stream))])
			if got, want := f.whole(), wholeMessages(stream[:min(at+size, len(stream))]); got != want {
				t.Fatalf("%x: whole %v, want %v", stream[:min(at+size, len(stream))], got, want)
			}
		}
	})
}

// wholeMessages is frames.whole for a stream at hand.
func wholeMessages(b []byte) bool {
	for len(b) >= frameHead {
		n := int64(binary.BigEndian.Uint32(b[1:])) + frameHead
		if n > int64(len(b)) {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

func TestTrailersAreAFrame(t *testing.T) {
	var h exchange.Header
	h.Add("Grpc-Status", "0")
	h.Add("X-Cost", "3")
	want := "\x80\x00\x00\x00\x1bgrpc-status: 0\r\nx-cost: 3\r\n"
	if got := string(appendTrailers(nil, &h)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAStatusIsANumber(t *testing.T) {
	for text, want := range map[string]Status{"0": OK, "14": Unavailable, "16": Unauthenticated, "17": Unknown, "x": Unknown} {
		if got, ok := parseStatus(text); got != want || !ok {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
	if _, ok := parseStatus(""); ok {
		t.Error("nothing is no status")
	}
}
