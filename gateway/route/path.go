package route

import "strings"

// Why a path is refused by CheckPath, for the caller.
const (
	NotAbsolute     = "the path does not begin with a slash"
	DotSegment      = "the path contains a dot segment"
	EmptySegment    = "the path contains an empty segment"
	EncodedSlash    = "the path contains an encoded slash"
	Backslash       = "the path contains a backslash"
	ControlByte     = "the path contains a control character"
	MalformedEscape = "the path contains a malformed percent-escape"
	OverlongEscape  = "the path contains an overlong UTF-8 sequence"
	ReservedByte    = "the path contains a character that must be percent-encoded"
)

// CheckPath returns "" if every program that reads the path reads the same one, and otherwise the reason why it may not.
// The gateway decides by the path and the upstream acts on it, so a path that the two could read differently is a way
// around policies. Refused are:
//
//   - dot segments, also percent-encoded in any mix and with matrix parameters behind them (/..;/, which Java servers
//     strip): RFC 3986 section 5.2.4 removes them, and who does so sees another path;
//   - empty segments (//) before the end, unless allowEmpty: many programs merge them;
//   - encoded slashes, unless allowSlash: some programs decode before they split. Dot segments between them stay refused;
//   - backslashes, raw or encoded: some programs take them for slashes;
//   - control characters, raw or encoded, spaces, '#' and '?': they cut or split what is forwarded or logged;
//   - '%' without two hexadecimal digits (RFC 3986 section 2.1), and overlong UTF-8 such as %c0%af, which hides the above.
//
// Escapes are decoded once: %252e is the text "%2e".
func CheckPath(path string, allowSlash, allowEmpty bool) string {
	if path == "" || path[0] != '/' {
		return NotAbsolute
	}
	for i := 0; i < len(path); i++ {
		if plain[path[i]] {
			continue
		}
		switch c := path[i]; c {
		case '/':
			if i+1 == len(path) || plain[path[i+1]] && path[i+1] != '.' {
				continue
			}
			if path[i+1] == '/' && !allowEmpty {
				return EmptySegment
			}
			if dotSegment(path[i+1:]) {
				return DotSegment
			}
		case '%':
			if reason := checkEscape(path[i:], allowSlash); reason != "" {
				return reason
			}
			i += 2
		case '\\':
			return Backslash
		case ' ', '#', '?':
			return ReservedByte
		default:
			return ControlByte
		}
	}
	return ""
}

// checkEscape judges the percent-escape at the start of s.
func checkEscape(s string, allowSlash bool) string {
	c, ok := unhex(s)
	switch {
	case !ok:
		return MalformedEscape
	case c == '\\':
		return Backslash
	case c < 0x20 || c == 0x7f:
		return ControlByte
	case c == '/' && !allowSlash:
		return EncodedSlash
	case c == '/' && dotSegment(s[3:]):
		return DotSegment
	case c == 0xc0 || c == 0xc1:
		return OverlongEscape
	case c == 0xe0 || c == 0xf0:
		// RFC 3629 section 4: E0 is followed by A0..BF, F0 by 90..BF.
		if next, ok := unhex(s[3:]); ok && next >= 0x80 && (c == 0xe0 && next < 0xa0 || c == 0xf0 && next < 0x90) {
			return OverlongEscape
		}
	}
	return ""
}

// dotSegment reports whether s begins with "." or "..", dots encoded or not, as a whole segment or one followed by ';'.
func dotSegment(s string) bool {
	for dots := 0; ; dots++ {
		switch {
		case s == "" || s[0] == '/' || s[0] == ';' || s[0] == '\\':
			return dots > 0
		case s[0] == '.' && dots < 2:
			s = s[1:]
		case s[0] == '%':
			c, ok := unhex(s)
			if !ok {
				return false // refused as malformed a little later
			}
			if c == '/' || c == ';' || c == '\\' {
				return dots > 0
			}
			if c != '.' || dots == 2 {
				return false
			}
			s = s[3:]
		default:
			return false
		}
	}
}

// plain has the bytes that need no second look inside a segment. A dot is judged where its segment begins.
var plain = func() (t [256]bool) {
	for c := 0x21; c < 256; c++ {
		t[c] = c != 0x7f && strings.IndexByte(`/%\#?`, byte(c)) < 0
	}
	return t
}()

// unhex decodes the percent-escape at the start of s.
func unhex(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	hi, lo := hexDigit[s[1]], hexDigit[s[2]]
	return hi<<4 | lo&0xf, hi|lo < 16
}

var hexDigit = func() (t [256]byte) {
	for c := range t {
		t[c] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	for i, c := range "ABCDEF" {
		t[c] = byte(10 + i)
	}
	return t
}()

// slashMark stands for an encoded slash in decoded text, so that it is never taken for a separator. An encoded NUL
// itself fits no rule.
const slashMark = '\x00'

// decoded returns the path with its escapes decoded and slashMark for encoded slashes; ok is false for malformed escapes
// and for NUL, which no rule fits.
func decoded(path string) (text string, ok bool) {
	if strings.IndexByte(path, '%') < 0 {
		return path, strings.IndexByte(path, slashMark) < 0
	}
	b := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if c, ok = unhex(path[i:]); !ok {
				return "", false
			}
			i += 2
			if c == '/' {
				b = append(b, slashMark)
				continue
			}
		}
		if c == slashMark {
			return "", false
		}
		b = append(b, c)
	}
	return string(b), true
}

// encoded is the reverse of decoded: what a client would send.
func encoded(text string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == slashMark:
			b.WriteString("%2F")
		case c > 0x7f || !plain[c] && c != '/' || strings.IndexByte(`"<>^{}|`+"`", c) >= 0:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&0xf])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
