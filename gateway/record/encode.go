package record

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxValue is how much of one value is logged, in bytes: a client that sends a head of 32 KiB must not get a line as long.
const maxValue = 2048

// plain says which bytes stand in a JSON string as they are.
var plain = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString appends s as a JSON string (RFC 8259 section 7). What would end the string, a line or a terminal's patience
// is escaped: quotes, backslashes, C0 and C1 controls, DEL and the Unicode line separators; bytes that are not UTF-8 become U+FFFD.
// Longer than maxValue it is cut and ends in "...".
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	b = appendText(b, s)
	return append(b, '"')
}

// appendText is appendString without the quotes.
func appendText(b []byte, s string) []byte {
	if len(s) <= maxValue && isPlain(s) {
		return append(b, s...)
	}
	return appendOdd(b, s)
}

// appendOdd appends what may need escaping or cutting.
func appendOdd(b []byte, s string) []byte {
	cut := len(s) > maxValue
	if cut {
		s = s[:cutAt(s, maxValue)]
	}
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = appendEscape(append(b, s[start:i]...), rune(c))
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if (r == utf8.RuneError && size == 1) || r < 0xa0 || r == '\u2028' || r == '\u2029' {
			b = appendEscape(append(b, s[start:i]...), r)
			start = i + size
		}
		i += size
	}
	b = append(b, s[start:]...)
	if cut {
		b = append(b, "..."...)
	}
	return b
}

// isPlain reports whether every byte is plain, looking at eight at once. It may say no to a string that is.
func isPlain(s string) bool {
	if len(s) < 8 {
		for i := range len(s) {
			if !plain[s[i]] {
				return false
			}
		}
		return true
	}
	for i := 0; i+8 < len(s); i += 8 {
		if !plainWord(s[i : i+8]) {
			return false
		}
	}
	return plainWord(s[len(s)-8:]) // overlaps the one before
}

// plainWord is isPlain for eight bytes.
func plainWord(t string) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	w := uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
		uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
	quote, slash, del := w^(ones*'"'), w^(ones*'\\'), w^(ones*0x7f)
	// A byte's top bit is set when it is below 0x20, a quote, a backslash, DEL or no ASCII. Borrows may set more: never less.
	return (w|(w-ones*0x20)|(quote-ones)|(slash-ones)|(del-ones))&highs == 0
}

// cutAt returns the last place at or before n that does not split a character.
func cutAt(s string, n int) int {
	for back := range utf8.UTFMax {
		if utf8.RuneStart(s[n-back]) {
			return n - back
		}
	}
	return n
}

const hexDigits = "0123456789abcdef"

func appendEscape(b []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(b, '\\', byte(r))
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// appendWord appends s for the readable form: as it is when it is one word of visible ASCII, else as a JSON string.
func appendWord(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	if s[0] == '=' || strings.IndexByte(s, ' ') >= 0 || len(s) > maxValue || !isPlain(s) {
		return appendString(b, s)
	}
	return append(b, s...)
}

// appendMillis appends d in milliseconds with three decimals.
func appendMillis(b []byte, d time.Duration) []byte {
	micros := uint64(max(0, d) / time.Microsecond)
	b = strconv.AppendUint(b, micros/1000, 10)
	rest := micros % 1000
	return append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// stamp prints times and remembers the last second, which most lines share.
type stamp struct {
	second int64
	text   [len("2006-01-02T15:04:05")]byte
}

// append appends t in RFC 3339 with milliseconds, in UTC.
func (s *stamp) append(b []byte, t time.Time) []byte {
	if second := t.Unix(); second != s.second || s.text[0] == 0 {
		s.second = second
		t.UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05")
	}
	millis := t.Nanosecond() / int(time.Millisecond)
	b = append(b, s.text[:]...)
	return append(b, '.', byte('0'+millis/100), byte('0'+millis/10%10), byte('0'+millis%10), 'Z')
}
