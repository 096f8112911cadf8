package expr

import (
	"slices"
	"strings"
)

// undash quotes the name in header.x-tenant for every table of texts, and any other name there that CEL would not take
// (query.in, query.2fa): CEL reads a dash as a subtraction, which texts do not have. It returns where columns moved.
func (l *words) undash(src string) (string, shifts) {
	var b strings.Builder
	var moved shifts
	line, start := 1, 0 // of the place in the result, in bytes; columns are told for ASCII
	for i := 0; i < len(src); {
		n := tokenLen(src[i:])
		token := src[i : i+n]
		i += n
		b.WriteString(token)
		if token == "\n" {
			line, start = line+1, b.Len()
		}
		if end := l.dashed(src, i-n, i); end > i {
			b.WriteString(".`" + src[i+1:end] + "`")
			moved = append(moved, shift{line, b.Len() - start, len("``")})
			i = end
		}
	}
	return b.String(), moved
}

// dashed returns where a name with dashes ends, if src[from:to] is a table of texts and one follows.
func (l *words) dashed(src string, from, to int) int {
	if !isWord(src[from]) || to+1 >= len(src) || src[to] != '.' {
		return 0
	}
	table := from // the name may have dots before it: reply.header
	for table > 0 && (isWord(src[table-1]) || src[table-1] == '.') {
		table--
	}
	if !slices.ContainsFunc(l.vars, func(v Variable) bool { return v.Type == Texts && v.Name == src[table:to] }) {
		return 0
	}
	end, dash := to+1, src[to+1] >= '0' && src[to+1] <= '9'
	for end < len(src) && (isWord(src[end]) || (src[end] == '-' && end+1 < len(src) && isWord(src[end+1]))) {
		dash = dash || src[end] == '-'
		end++
	}
	switch src[to+1 : end] {
	case "in", "true", "false", "null":
		return end
	}
	if !dash || src[to+1] == '-' {
		return 0
	}
	return end
}

// tokenLen returns how long the first token is: a word, a quoted text, a comment or one byte.
func tokenLen(s string) int {
	switch c := s[0]; {
	case isWord(c):
		n := 1
		for n < len(s) && isWord(s[n]) {
			n++
		}
		return n
	case c == '"' || c == '\'':
		return quotedLen(s)
	case strings.HasPrefix(s, "//"):
		if end := strings.IndexByte(s, '\n'); end > 0 {
			return end
		}
		return len(s)
	}
	return 1
}

// quotedLen returns the length of the quoted text that s begins with, or of s when it does not end. Raw texts (r"...")
// have no escapes in CEL; reading \" as one in them ends at the same quote or later, inside what would be an error.
func quotedLen(s string) int {
	quote := s[:1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s, triple) {
		quote = triple
	}
	for i := len(quote); i < len(s); i++ {
		if s[i] == '\\' {
			i++
		} else if strings.HasPrefix(s[i:], quote) {
			return i + len(quote)
		}
	}
	return len(s)
}

func isWord(c byte) bool {
	return c == '_' || (c >= '0' && c <= '9') || (c|0x20 >= 'a' && c|0x20 <= 'z')
}

// shift is one place from which on a line's columns have moved.
type shift struct{ line, col, by int }

type shifts []shift

// move puts an error back to the place in the text that the user wrote.
func (s shifts) move(e *Error) *Error {
	by := 0
	for _, one := range s {
		if one.line == e.Line && e.Col > one.col {
			by += one.by
		}
	}
	e.Col -= by
	return e
}
