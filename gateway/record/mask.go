package record

import (
	"slices"
	"strings"

	"headgate/gateway/exchange"
)

// masked is what stands in the log in place of a secret.
const masked = "<secret>"

// What is always masked.
var (
	secretHeaders = []string{"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"}
	secretParams  = []string{"api_key", "apikey", "access_token", "refresh_token", "id_token", "token", "password", "client_secret"}
)

// mask knows which header fields and query parameters hold secrets.
type mask struct {
	names   []string // of header fields and query parameters alike, in lower case
	lengths uint64   // bit n: a parameter's name has n bytes; anything from 63 on shares the last bit
}

func newMask(configured []string) *mask {
	m := &mask{names: slices.Concat(secretHeaders, secretParams)}
	for _, name := range configured {
		m.names = append(m.names, strings.ToLower(name))
	}
	for _, n := range m.names {
		m.lengths |= 1 << min(len(n), 63)
	}
	return m
}

// header reports whether a header field holds a secret.
func (m *mask) header(name string) bool {
	return slices.ContainsFunc(m.names, func(secret string) bool { return exchange.EqualFold(secret, name) })
}

// param reports whether a query parameter, as it stands in the query, holds a secret. An escaped name (api%5Fkey) is the
// same name to the upstream, so it is here.
func (m *mask) param(name string) bool {
	if strings.IndexByte(name, '%') < 0 {
		if m.lengths&(1<<min(len(name), 63)) == 0 {
			return false
		}
		for _, secret := range m.names {
			if exchange.EqualFold(secret, name) {
				return true
			}
		}
		return false
	}
	for _, secret := range m.names {
		if equalUnescaped(name, secret) {
			return true
		}
	}
	return false
}

// equalUnescaped compares a percent-encoded name with a lower-case plain one, ignoring case.
func equalUnescaped(name, secret string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' && i+2 < len(name) {
			if high, low := nibble(name[i+1]|0x20), nibble(name[i+2]|0x20); high < 16 && low < 16 {
				c = high<<4 | low
				i += 2
			}
		}
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if secret == "" || secret[0] != c {
			return false
		}
		secret = secret[1:]
	}
	return secret == ""
}

// mentions reports whether an expression's source names a secret, as one word.
func (m *mask) mentions(src string) bool {
	inWord := func(r rune) bool {
		return r < 0x80 && (exchange.IsToken(byte(r)) && r != '.' && r != '\'' && r != '|' && r != '&' && r != '!')
	}
	for word := range strings.FieldsFuncSeq(src, func(r rune) bool { return !inWord(r) }) {
		if m.header(word) || m.header(strings.ReplaceAll(word, "_", "-")) {
			return true
		}
	}
	return false
}

// appendQuery appends the query, escaped, with the values of secret parameters replaced.
func (m *mask) appendQuery(b []byte, query string) []byte {
	cut := len(query) > maxValue
	if cut {
		query = query[:maxValue]
	}
	start := 0 // of what is not yet appended
	for at := 0; at < len(query); {
		end, equals := at, -1
		for end < len(query) && query[end] != '&' && query[end] != ';' {
			if query[end] == '=' && equals < 0 {
				equals = end
			}
			end++
		}
		if equals >= 0 && equals+1 < end && m.param(query[at:equals]) {
			b = append(appendText(b, query[start:equals+1]), masked...)
			start = end
		}
		at = end + 1
	}
	b = appendText(b, query[start:])
	if cut {
		b = append(b, "..."...)
	}
	return b
}
