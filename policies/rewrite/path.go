package rewrite

import (
	"strings"
	"unicode/utf8"
)

// maxPath bounds a path that templates or replacements make out of what was sent, so that a small request does not become
// a large one.
const maxPath = 16 << 10

const hexDigits = "0123456789ABCDEF"

// escapeSegment percent-encodes everything that is not unreserved (RFC 3986 section 2.3), so that a value stays inside its
// segment whatever it holds.
func escapeSegment(s string) string {
	n := 0
	for i := range len(s) {
		if !unreserved(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; unreserved(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(b)
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// wrongPath says what would let two programs read the path differently, or "". An encoded slash may stand in a segment, but
// counts as an end of one where dot segments are looked for, since some programs decode before they split.
func wrongPath(path string) string {
	if len(path) > maxPath {
		return "more bytes than a path may have"
	}
	if path == "" || path[0] != '/' {
		return "no slash at its beginning"
	}
	segment := make([]byte, 0, 64) // decoded
	decoded := make([]byte, 0, 256)
	params := false // behind a ';', which some programs strip with what follows (RFC 3986 section 3.3)
	for i := 1; i < len(path); i++ {
		c, raw := path[i], true
		if c == '%' {
			if i+2 >= len(path) || unhex(path[i+1]) < 0 || unhex(path[i+2]) < 0 {
				return "a malformed percent-escape"
			}
			c, raw = byte(unhex(path[i+1])<<4|unhex(path[i+2])), false
			i += 2
		}
		switch {
		case c < ' ' || c == 0x7f:
			return "a control character"
		case c == '\\':
			return "a backslash"
		case raw && (c == ' ' || c == '?' || c == '#'):
			return "a character that must be percent-encoded"
		case c == '/':
			if dots(segment) {
				return "a dot segment"
			}
			segment, params = segment[:0], false
		case c == ';':
			params = true
		case !params && len(segment) < 3: // longer ones are no dot segments
			segment = append(segment, c)
		}
		decoded = append(decoded, c)
	}
	switch {
	case dots(segment):
		return "a dot segment"
	case overlong(decoded):
		return "an overlong UTF-8 sequence"
	}
	return ""
}

func dots(segment []byte) bool { return string(segment) == "." || string(segment) == ".." }

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// overlong reports whether a sequence is longer than UTF-8 writes its character, which hides slashes and dots from all but
// careless decoders. Other bytes that are no UTF-8 may be an older encoding and are left alone.
func overlong(b []byte) bool {
	if utf8.Valid(b) {
		return false
	}
	for i, c := range b {
		next := byte(0xff)
		if i+1 < len(b) {
			next = b[i+1]
		}
		switch {
		case c == 0xc0 || c == 0xc1, c == 0xe0 && next >= 0x80 && next < 0xa0, c == 0xf0 && next >= 0x80 && next < 0x90:
			return true
		}
	}
	return false
}

// validHost reports whether s is a host with an optional port: a name, an IPv4 address or an IPv6 address in brackets.
func validHost(s string) bool {
	host := s
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host = s[:i]
		if len(s)-i-1 > 5 || strings.Trim(s[i+1:], "0123456789") != "" {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && strings.Contains(inner, ":") && strings.Trim(inner, "0123456789abcdefABCDEF:.") == ""
	}
	for i := range len(host) {
		if !unreserved(host[i]) || host[i] == '~' {
			return false
		}
	}
	return host != "" && len(host) <= 253
}
