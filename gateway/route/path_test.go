package route

import (
	"net/url"
	"strings"
	"testing"
)

func TestCheckPath(t *testing.T) {
	const (
		slash = 1 << iota // encoded slashes are allowed
		empty             // empty segments are allowed
	)
	tests := []struct {
		path  string
		allow int
		want  string
	}{
		{"/", 0, ""},
		{"/orders/42", 0, ""},
		{"/orders/", 0, ""},
		{"/a.b/.well-known/..hidden/a../...", 0, ""},
		{"/a;v=1/b", 0, ""},
		{"/caf%C3%A9/café/%e2%82%ac", 0, ""},
		{"/%252e%252e/", 0, ""}, // the text "%2e%2e", decoded once
		{"/%E0%A0%80/%F0%90%80%80", 0, ""},

		{"", 0, NotAbsolute},
		{"*", 0, NotAbsolute},
		{"orders", 0, NotAbsolute},

		{"/.", 0, DotSegment},
		{"/..", 0, DotSegment},
		{"/a/../b", 0, DotSegment},
		{"/a/./b", 0, DotSegment},
		{"/%2e%2E/b", 0, DotSegment},
		{"/.%2e", 0, DotSegment},
		{"/%2e.", 0, DotSegment},
		{"/%2e", 0, DotSegment},
		{"/a/..;/b", 0, DotSegment},
		{"/a/..;jsessionid=1", 0, DotSegment},
		{"/a/.;x/b", 0, DotSegment},
		{"/a/..%3b/b", 0, DotSegment},
		{"/a/..%2fb", 0, DotSegment},
		{"/a/..%5cb", 0, DotSegment},
		{`/a/..\b`, 0, DotSegment},
		{"/a%2f../b", slash, DotSegment},
		{"/a/..%2fb", slash, DotSegment},
		{"/a/../b", slash | empty, DotSegment},

		{"//", 0, EmptySegment},
		{"//a", 0, EmptySegment},
		{"/a//b", 0, EmptySegment},
		{"/a//", 0, EmptySegment},
		{"/a//b", empty, ""},
		{"/a//../b", empty, DotSegment},

		{"/a%2fb", 0, EncodedSlash},
		{"/a%2Fb", 0, EncodedSlash},
		{"/a%2Fb", slash, ""},

		{`/a\b`, 0, Backslash},
		{"/a%5cb", slash | empty, Backslash},

		{"/a%00", 0, ControlByte},
		{"/a%0d%0aSet-Cookie", 0, ControlByte},
		{"/a%7f", 0, ControlByte},
		{"/a\x00", 0, ControlByte},
		{"/\x01", 0, ControlByte},

		{"/a b", 0, ReservedByte},
		{"/a#b", 0, ReservedByte},
		{"/a?b", 0, ReservedByte},

		{"/%", 0, MalformedEscape},
		{"/a%2", 0, MalformedEscape},
		{"/a%zz", 0, MalformedEscape},
		{"/..%", 0, MalformedEscape},
		{"/a%u002e", 0, MalformedEscape},

		{"/%c0%ae%c0%ae/", 0, OverlongEscape},
		{"/a%c1%9c", 0, OverlongEscape},
		{"/a%e0%80%af", 0, OverlongEscape},
		{"/a%f0%80%80%af", 0, OverlongEscape},
	}
	for _, tt := range tests {
		if got := CheckPath(tt.path, tt.allow&slash != 0, tt.allow&empty != 0); got != tt.want {
			t.Errorf("CheckPath(%q, %d) = %q, want %q", tt.path, tt.allow, got, tt.want)
		}
	}
}

// What passes has, however often and in whatever order somebody decodes once, splits and strips matrix parameters, no dot
// segment, no empty segment and no control character.
func FuzzCheckPathLeavesNothingToInterpret(f *testing.F) {
	for _, s := range []string{"/", "/a/..;/b", "/%2e%2e/", "/a%2f..%2f", "//", "/a%c0%af", "/..%00/", "/a/%2e;x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		for _, allowSlash := range []bool{false, true} {
			if CheckPath(path, allowSlash, false) != "" {
				continue
			}
			text, err := url.PathUnescape(path)
			if err != nil {
				t.Fatalf("%q passes and cannot be decoded", path)
			}
			readings := [][]string{strings.Split(path, "/"), strings.FieldsFunc(text, func(r rune) bool { return r == '/' || r == '\\' })}
			for _, segments := range readings {
				for _, s := range segments {
					bare, _, _ := strings.Cut(s, ";")
					if once, err := url.PathUnescape(bare); err == nil {
						bare, _, _ = strings.Cut(once, ";")
					}
					if bare == "." || bare == ".." {
						t.Fatalf("%q passes with the dot segment %q", path, s)
					}
				}
			}
			if strings.Contains(path, "//") || strings.ContainsAny(text,
				"\x00\r\n\\") || !allowSlash && strings.Count(text, "/") != strings.Count(path, "/") {
				t.Fatalf("%q passes", path)
			}
		}
	})
}

func TestCheckPathDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { CheckPath("/shop/v1/orders/42%20a", false, false) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCheckPath(b *testing.B) {
	for b.Loop() {
		CheckPath("/shop/orders/1234567", false, false)
	}
}
