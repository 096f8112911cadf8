package exchange

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// received makes a header as a parser does: every field is a part of the raw section.
func received(lines ...string) *Header {
	raw := strings.Join(lines, "")
	h := new(Header)
	h.Reset(raw)
	at := 0
	for _, line := range lines {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ":")
		h.AddLine(name, strings.Trim(value, " \t"), at, at+len(line))
		at += len(line)
	}
	return h
}

func text(h *Header) string { return string(h.AppendTo(nil)) }

// Lines that nobody touched go on byte for byte; those that were changed are written anew.
func TestUntouchedLinesAreForwardedByteForByte(t *testing.T) {
	section := []string{"Host:a\r\n", "X-Odd:\t b \t\r\n", "ACCEPT: c\r\n", "x-odd:d\r\n"}
	for _, c := range []struct {
		name string
		edit func(*Header)
		want string
	}{
		{"nothing", func(*Header) {}, "Host:a\r\nX-Odd:\t b \t\r\nACCEPT: c\r\nx-odd:d\r\n"},
		{"del first", func(h *Header) { h.Del("host") }, "X-Odd:\t b \t\r\nACCEPT: c\r\nx-odd:d\r\n"},
		{"del all of a name", func(h *Header) { h.Del("X-ODD") }, "Host:a\r\nACCEPT: c\r\n"},
		{"del what is not there", func(h *Header) { h.Del("X") }, "Host:a\r\nX-Odd:\t b \t\r\nACCEPT: c\r\nx-odd:d\r\n"},
		{"set keeps the place, and only one", func(h *Header) { h.Set("X-Odd", "1") }, "Host:a\r\nX-Odd: 1\r\nACCEPT: c\r\n"},
		{"set what is not there", func(h *Header) { h.Set("B", "2") }, "Host:a\r\nX-Odd:\t b \t\r\nACCEPT: c\r\nx-odd:d\r\nB: 2\r\n"},
		{"add", func(h *Header) { h.Add("Host", "") }, "Host:a\r\nX-Odd:\t b \t\r\nACCEPT: c\r\nx-odd:d\r\nHost: \r\n"},
		{"rename keeps values and places", func(h *Header) { h.Rename("x-odd", "X-Even") },
			"Host:a\r\nX-Even: b\r\nACCEPT: c\r\nX-Even: d\r\n"},
		{"delete by value", func(h *Header) { h.DelFunc(func(_, v string) bool { return v == "d" || v == "a" }) },
			"X-Odd:\t b \t\r\nACCEPT: c\r\n"},
		{"reset", func(h *Header) { h.Reset("") }, ""},
	} {
		h := received(section...)
		if c.edit(h); text(h) != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, text(h), c.want)
		}
	}
}

func TestHeaderLookups(t *testing.T) {
	h := received("A: 1\r\n", "b:\r\n", "a: 2\r\n", "C: 3\r\n")
	h.Add("A", "4")
	if v := h.Get("a"); v != "1" {
		t.Errorf("Get: %q", v)
	}
	if v, ok := h.Lookup("B"); v != "" || !ok || !h.Has("B") {
		t.Errorf("an empty value is there: %q, %v", v, ok)
	}
	if v, ok := h.Lookup("D"); v != "" || ok || h.Has("D") {
		t.Errorf("what is not there: %q, %v", v, ok)
	}
	if v := slices.Collect(h.Values("a")); !slices.Equal(v, []string{"1", "2", "4"}) {
		t.Errorf("Values: %q", v)
	}
	if j := [3]string{h.Joined("A"), h.Joined("C"), h.Joined("D")}; j != [3]string{"1, 2, 4", "3", ""} {
		t.Errorf("Joined: %q", j)
	}
	if f := h.At(2); h.Len() != 5 || f.Name != "a" || f.Value != "2" {
		t.Errorf("At: %d fields, the third %+v", h.Len(), f)
	}
	for range h.All() {
		break // an iterator that is left early must not go on
	}
}

// A copy shares nothing that an edit of either could change in the other.
func TestCopiedHeadersAreIndependent(t *testing.T) {
	src := received("A: 1\r\n", "B: 2\r\n")
	var dst Header
	dst.CopyFrom(src)
	src.Set("A", "x")
	dst.Del("B")
	if text(src) != "A: x\r\nB: 2\r\n" || text(&dst) != "A: 1\r\n" {
		t.Errorf("source %q, copy %q", text(src), text(&dst))
	}
}

func TestNamesAreComparedByASCIILetters(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"", "", true}, {"Host", "hOST", true}, {"a-b_c", "A-B_C", true},
		{"a", "b", false}, {"a", "aa", false}, {"@", "`", false}, {"[", "{", false}, {"]", "}", false}, {"^", "~", false}, {"-", "\r", false},
		{"\xc3\x89", "\xc3\xa9", false}, {"k", "\xe2\x84\xaa", false}, {"0", "\x10", false},
	} {
		if EqualFold(c.a, c.b) != c.same || EqualFold(c.b, c.a) != c.same {
			t.Errorf("%q and %q: the same %v, want %v", c.a, c.b, !c.same, c.same)
		}
	}
}

func TestWhatMayBeAName(t *testing.T) {
	for c := range 256 {
		want := c > ' ' && c < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, rune(c)) // RFC 9110 section 5.6.2
		if got := ValidName("X" + string([]byte{byte(c)})); got != want || IsToken(byte(c)) != want {
			t.Errorf("%q in a name: %v, want %v", byte(c), got, want)
		}
		want = c == '\t' || c >= ' ' && c != 0x7f // RFC 9110 section 5.5
		if got := ValidValue("a" + string([]byte{byte(c)}) + "b"); got != want {
			t.Errorf("%q in a value: %v, want %v", byte(c), got, want)
		}
	}
	if ValidName("") || !ValidValue("") || ValidValue(" a") || ValidValue("a\t") {
		t.Error("names are not empty; values may be, and have no white space at their ends")
	}
}

// naive is a header as simple as one can be.
type naive []Field

func (n naive) text() (s string) {
	for _, f := range n {
		s += f.Name + ": " + f.Value + "\r\n"
	}
	return s
}

func (n naive) del(name string) naive {
	return slices.DeleteFunc(slices.Clone(n), func(f Field) bool { return strings.EqualFold(f.Name, name) })
}

func (n naive) set(name, value string) naive {
	i := slices.IndexFunc(n, func(f Field) bool { return strings.EqualFold(f.Name, name) })
	if i < 0 {
		return append(slices.Clone(n), Field{Name: name, Value: value})
	}
	return slices.Concat(n[:i], naive{{Name: name, Value: value}}, n[i+1:].del(name))
}

func (n naive) rename(from, to string) naive {
	n = slices.Clone(n)
	for i := range n {
		if strings.EqualFold(n[i].Name, from) {
			n[i].Name = to
		}
	}
	return n
}

// edits draws any sequence of edits of a received header, makes them on it and on the naive one, and compares.
func edits(t *rapid.T) {
	name := rapid.SampledFrom([]string{"A", "a", "B", "Content-Type", "content-type", "X-Long-Name-Of-A-Field", "C"})
	value := rapid.SampledFrom([]string{"", "1", "two words", "caf\xe9", "x:y", "\"q\""})
	var lines []string
	var want naive
	for range rapid.IntRange(0, 8).Draw(t, "received") {
		n, v := name.Draw(t, "name"), value.Draw(t, "value")
		lines = append(lines, n+": "+v+"\r\n")
		want = append(want, Field{Name: n, Value: v})
	}
	h := received(lines...)
	for range rapid.IntRange(0, 12).Draw(t, "edits") {
		n, v := name.Draw(t, "name"), value.Draw(t, "value")
		switch op := rapid.SampledFrom([]string{"add", "set", "del", "rename", "delfunc", "copy", "reset"}).Draw(t, "edit"); op {
		case "add":
			h.Add(n, v)
			want = append(slices.Clone(want), Field{Name: n, Value: v})
		case "set":
			h.Set(n, v)
			want = want.set(n, v)
		case "del":
			h.Del(n)
			want = want.del(n)
		case "rename":
			to := name.Draw(t, "to")
			h.Rename(n, to)
			want = want.rename(n, to)
		case "delfunc":
			h.DelFunc(func(name, value string) bool { return name == n || value == v })
			want = slices.DeleteFunc(slices.Clone(want), func(f Field) bool { return f.Name == n || f.Value == v })
		case "copy":
			c := received("Z: of another message\r\n")
			c.CopyFrom(h)
			h = c
		case "reset":
			if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
				h.Reset("")
				want = nil
			}
		}
		same(t, h, want)
	}
	skip := func(name, value string) bool { return len(name)+len(value) > 5 }
	if got, want := string(h.AppendExcept(nil, skip)), slices.DeleteFunc(slices.Clone(want), func(f Field) bool {
		return skip(f.Name, f.Value)
	}).text(); got != want {
		t.Fatalf("AppendExcept: %q, want %q", got, want)
	}
}

func same(t *rapid.T, h *Header, want naive) {
	if got := string(h.AppendTo([]byte("before:"))); got != "before:"+want.text() {
		t.Fatalf("AppendTo: %q, want %q", got, want.text())
	}
	i := 0
	for name, value := range h.All() {
		if want[i].Name != name || want[i].Value != value {
			t.Fatalf("field %d is %q: %q, want %+v", i, name, value, want[i])
		}
		i++
	}
	if i != len(want) || h.Len() != len(want) {
		t.Fatalf("%d fields, Len %d, want %d", i, h.Len(), len(want))
	}
	for _, f := range want {
		var values []string
		for _, g := range want {
			if strings.EqualFold(f.Name, g.Name) {
				values = append(values, g.Value)
			}
		}
		if got := slices.Collect(h.Values(f.Name)); !slices.Equal(got, values) || h.Get(f.Name) != values[0] {
			t.Fatalf("values of %q: %q, want %q", f.Name, got, values)
		}
		if got := h.Joined(f.Name); got != strings.Join(values, ", ") {
			t.Fatalf("joined values of %q: %q, want %q", f.Name, got, values)
		}
	}
}

// Any edits have the same outcome as on a plain list, in every look at the header and on the wire.
func TestHeaderEditsEqualThoseOfAPlainList(t *testing.T) { rapid.Check(t, edits) }

// FuzzHeader is TestHeaderEditsEqualThoseOfAPlainList led by coverage.
func FuzzHeader(f *testing.F) { f.Fuzz(rapid.MakeFuzz(edits)) }
