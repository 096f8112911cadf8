package credential

import (
	"net/url"
	"strings"

	"headgate/gateway/exchange"
)

// findQuery returns the first value, decoded, of the parameter that is not empty, and how many there are. Names are
// compared as the upstream will read them, so that an encoded spelling is found, and hidden, as well.
func findQuery(query, name string) (value string, n int) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		k, v, _ := strings.Cut(pair, "=")
		if v == "" || !sameParameter(k, name) {
			continue
		}
		if n++; n == 1 {
			value = v
			if plain, err := url.QueryUnescape(v); err == nil {
				value = plain
			}
		}
	}
	return value, n
}

// cutQuery returns the query without the parameter; the other bytes stay as they are.
func cutQuery(query, name string) string {
	at := 0
	for at < len(query) {
		end := len(query)
		if i := strings.IndexByte(query[at:], '&'); i >= 0 {
			end = at + i
		}
		k, _, _ := strings.Cut(query[at:end], "=")
		switch {
		case !sameParameter(k, name):
			at = end + 1
		case end < len(query):
			query = join(query[:at], query[end+1:])
		default: // the last one goes with the separator before it
			return query[:max(at-1, 0)]
		}
	}
	return query
}

// sameParameter reports whether the raw name of a parameter, decoded, is name.
func sameParameter(raw, name string) bool {
	i := 0
	for j := range len(name) {
		if i >= len(raw) {
			return false
		}
		c := raw[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(raw) && hex(raw[i+1]) < 16 && hex(raw[i+2]) < 16:
			c = hex(raw[i+1])<<4 | hex(raw[i+2])
			i += 2
		}
		if c != name[j] {
			return false
		}
		i++
	}
	return i == len(raw)
}

// hex returns the value of a hexadecimal digit, or 16.
func hex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}

// findCookie returns the first value of the cookie that is not empty, without quotes, and how many there are
// (RFC 6265 section 4.2.1).
func findCookie(h *exchange.Header, name string) (value string, n int) {
	for i := range h.Len() {
		f := h.At(i)
		if !exchange.EqualFold(f.Name, "Cookie") {
			continue
		}
		for rest := f.Value; rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, ";")
			k, v, _ := strings.Cut(pair, "=")
			if strings.Trim(k, " \t") != name {
				continue
			}
			v = strings.Trim(v, " \t")
			if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			if v == "" {
				continue
			}
			if n++; n == 1 {
				value = v
			}
		}
	}
	return value, n
}

// join is a + b without an allocation when one of them is empty.
func join(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "":
		return a
	}
	return a + b
}
