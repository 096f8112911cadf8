package expr

import (
	"maps"
	"slices"
	"strings"

	"headgate/gateway/exchange"
)

func label(x *exchange.Exchange, name string) (string, bool) {
	if x.Consumer == nil {
		return "", false
	}
	v, ok := x.Consumer.Labels[name]
	return v, ok
}

func labelNames(x *exchange.Exchange) []string {
	if x.Consumer == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(x.Consumer.Labels))
}

func param(x *exchange.Exchange, name string) (string, bool) {
	for i := range x.Params {
		if x.Params[i].Name == name {
			return x.Params[i].Value, true
		}
	}
	return "", false
}

func paramNames(x *exchange.Exchange) []string {
	var names []string
	for i := range x.Params {
		names = append(names, x.Params[i].Name)
	}
	return names
}

// headerNames returns each name once, in lower case.
func headerNames(h *exchange.Header) []string {
	var names []string
	for name := range h.All() {
		names = append(names, strings.ToLower(name))
	}
	return unique(names)
}

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// queryValue finds the first parameter of that name without making a map. Only & separates parameters, as in the URL
// standard; ; does not (it did once, and programs that differ about it can be played off against each other).
func queryValue(query, name string) (string, bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		if pair != "" && sameDecoded(key, name) {
			return decode(value), true
		}
	}
	return "", false
}

func queryNames(x *exchange.Exchange) []string {
	var names []string
	for pair := range strings.SplitSeq(x.Request.Query, "&") {
		if key, _, _ := strings.Cut(pair, "="); pair != "" {
			names = append(names, decode(key))
		}
	}
	return unique(names)
}

// sameDecoded reports whether raw decodes to name, without decoding it into memory.
func sameDecoded(raw, name string) bool {
	for len(raw) > 0 {
		c, n := decodeByte(raw)
		if name == "" || name[0] != c {
			return false
		}
		raw, name = raw[n:], name[1:]
	}
	return name == ""
}

// decode undoes percent-encoding and + for a space. An escape that is none stays as it is, as in the URL standard.
func decode(raw string) string {
	if !strings.ContainsAny(raw, "%+") {
		return raw
	}
	b := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		c, n := decodeByte(raw)
		b, raw = append(b, c), raw[n:]
	}
	return string(b)
}

func decodeByte(raw string) (c byte, n int) {
	switch {
	case raw[0] == '+':
		return ' ', 1
	case raw[0] == '%' && len(raw) >= 3:
		if hi, lo := unhex(raw[1]), unhex(raw[2]); hi < 16 && lo < 16 {
			return hi<<4 | lo, 3
		}
	}
	return raw[0], 1
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}

func cookieValue(x *exchange.Exchange, name string) (string, bool) {
	return x.Request.Header.Cookie(name)
}

func cookieNames(x *exchange.Exchange) []string {
	var names []string
	for field := range x.Request.Header.Values("cookie") {
		for pair := range strings.SplitSeq(field, ";") {
			if name, _, ok := exchange.CutCookie(pair); ok {
				names = append(names, name)
			}
		}
	}
	return unique(names)
}
