package fields

import (
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

// Whatever is encoded, in whatever order and with whatever changes of the table's size, x/net's decoder reads the same.
func TestWhatIsEncodedIsDecoded(t *testing.T) { rapid.Check(t, encodings) }

// FuzzEncoder is TestWhatIsEncodedIsDecoded led by coverage.
func FuzzEncoder(f *testing.F) { f.Fuzz(rapid.MakeFuzz(encodings)) }

func encodings(t *rapid.T) {
	e := NewEncoder()
	var got []hpack.HeaderField
	d := hpack.NewDecoder(MaxTable, func(f hpack.HeaderField) { got = append(got, f) })
	name := rapid.SampledFrom([]string{"Content-Type", "content-type", "Date", "X-Request-Id", "x", "Set-Cookie", "ETag", "Server",
		"X-" + strings.Repeat("Long", 40), "Strict-Transport-Security", "Grpc-Status"})
	value := rapid.OneOf(rapid.SampledFrom([]string{"", "a", "application/json", strings.Repeat("v", 300), strings.Repeat("w", 600)}),
		rapid.StringMatching(`[a-z]{0,3}`))
	for range rapid.IntRange(1, 60).Draw(t, "sections") {
		if rapid.IntRange(0, 9).Draw(t, "resize") == 0 {
			for range rapid.IntRange(1, 3).Draw(t, "times") {
				size := rapid.SampledFrom([]int{0, 40, 100, 1000, MaxTable}).Draw(t, "size")
				e.Resize(size)
			}
		}
		status := rapid.IntRange(100, 599).Draw(t, "status")
		length := rapid.Int64Range(0, 1<<40).Draw(t, "length")
		b := e.Begin(nil)
		b = e.Status(b, status)
		b = e.Length(b, length)
		want := []hpack.HeaderField{
			{Name: ":status", Value: strconv.Itoa(status)}, {Name: "content-length", Value: strconv.FormatInt(length, 10)},
		}
		for range rapid.IntRange(0, 12).Draw(t, "fields") {
			n, v := name.Draw(t, "name"), value.Draw(t, "value")
			b = e.Field(b, n, v)
			want = append(want, hpack.HeaderField{Name: strings.ToLower(n), Value: v})
		}
		got = got[:0]
		if _, err := d.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d fields, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i].Name != want[i].Name || got[i].Value != want[i].Value {
				t.Fatalf("%v, want %v", got[i], want[i])
			}
			if got[i].Name == "set-cookie" && !got[i].Sensitive {
				t.Fatal("a cookie may get into a table")
			}
		}
	}
}

// What repeats costs a byte, from the third time on unless something else had the same place in between (one in 64); what does
// not repeat pushes nothing out.
func TestRepeatedFieldsAreShort(t *testing.T) {
	e := NewEncoder()
	for i := range 300 {
		e.Field(nil, "X-Request-Id", strconv.Itoa(i))
		b := e.Field(nil, "Content-Type", "application/json")
		if i >= 10 && len(b) != 1 {
			t.Fatalf("%d bytes the %dth time", len(b), i)
		}
	}
}

func TestEncodingDoesNotAllocate(t *testing.T) {
	e := NewEncoder()
	b := make([]byte, 0, 1024)
	id := "0123456789abcdef"
	n := testing.AllocsPerRun(1000, func() {
		b = e.Status(e.Begin(b[:0]), 200)
		b = e.Field(b, "Content-Type", "application/json")
		b = e.Field(b, "X-Request-Id", id)
		b = e.Length(b, 200)
	})
	if n != 0 {
		t.Errorf("%v times", n)
	}
}

func BenchmarkEncode(b *testing.B) {
	e := NewEncoder()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.Status(e.Begin(buf[:0]), 200)
		for _, f := range [...][2]string{{"Content-Type", "application/json"}, {"Server", "origin"}, {"X-Origin", "1"},
			{"Cache-Control", "no-store"},
			{"X-Request-Id", "0123456789abcdef0123456789abcdef"}, {"Date", "Mon, 02 Jan 2006 15:04:05 GMT"}} {
			buf = e.Field(buf, f[0], f[1])
		}
		buf = e.Length(buf, 200)
	}
}
