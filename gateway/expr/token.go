package expr

import (
	"strconv"
	"strings"

	"headgate/gateway/exchange"
	"headgate/internal/expr"
)

// reference is a variable, or one name in a table.
type reference struct {
	variable *variable
	name     string // in a table; a path for claims
}

// text returns the text that the reference stands for, or nil when it is none.
func (r reference) text() exchanged[string] {
	switch v := r.variable; {
	case v.text != nil:
		return v.text
	case v.look != nil && r.name != "":
		return func(x *exchange.Exchange) string {
			s, _ := v.look(x, r.name)
			return s
		}
	}
	return nil
}

// reference reads a variable: consumer, client.ip, header.x-tenant, header["x-tenant"], claim.a.b.
func (p *plain) reference() (r reference, ok bool) {
	p.space()
	word := p.name(false)
	for word != "" {
		// No variable is the beginning of another one, so the first that fits is the one that was meant.
		if r.variable = p.vars[word]; r.variable != nil {
			break
		}
		if !strings.HasPrefix(p.rest, ".") {
			return r, false
		}
		p.rest = p.rest[1:]
		next := p.name(false)
		if next == "" {
			return r, false
		}
		word += "." + next
	}
	switch {
	case r.variable == nil:
		return r, false
	case r.variable.look == nil && r.variable.Type != expr.Values:
		return r, true
	case strings.HasPrefix(p.rest, "["):
		p.rest = p.rest[1:]
		name, found := p.literal()
		r.name = name
		return r, found && name != "" && p.take("]")
	}
	return r, p.path(&r)
}

// path reads the .name behind a table, and for claims more of them.
func (p *plain) path(r *reference) bool {
	for strings.HasPrefix(p.rest, ".") {
		before := p.rest
		p.rest = p.rest[1:]
		name := p.name(r.variable.look != nil)
		if name == "" {
			return false
		}
		if strings.HasPrefix(p.rest, "(") { // a method
			p.rest = before
			break
		}
		if r.name != "" {
			if r.variable.look != nil {
				return false // a text has no fields
			}
			name = r.name + "." + name
		}
		r.name = name
	}
	return r.name != "" && !strings.HasPrefix(p.rest, "[")
}

// name reads letters, digits and _, and dashes inside if wanted.
func (p *plain) name(dashes bool) string {
	n := 0
	for n < len(p.rest) && (isWord(p.rest[n]) || (dashes && n > 0 && p.rest[n] == '-' && n+1 < len(p.rest) && isWord(p.rest[n+1]))) {
		n++
	}
	name := p.rest[:n]
	if !dashes && n > 0 && (name[0] <= '9' || name == "in" || name == "true" || name == "false" || name == "null") {
		return "" // CEL has other plans with these
	}
	p.rest = p.rest[n:]
	return name
}

func isWord(c byte) bool {
	return c == '_' || (c >= '0' && c <= '9') || (c|0x20 >= 'a' && c|0x20 <= 'z')
}

// literal reads a quoted text without escapes, line breaks or triple quotes.
func (p *plain) literal() (string, bool) {
	p.space()
	if p.rest == "" || (p.rest[0] != '"' && p.rest[0] != '\'') {
		return "", false
	}
	end := strings.IndexByte(p.rest[1:], p.rest[0]) + 1
	if end == 0 {
		return "", false
	}
	s, after := p.rest[1:end], p.rest[end+1:]
	if strings.ContainsAny(s, "\\\r\n") || strings.HasPrefix(after, p.rest[:1]) || s != strings.ToValidUTF8(s, "") {
		return "", false
	}
	p.rest = after
	return s, true
}

// literals reads ["a", "b"].
func (p *plain) literals() (list []string, ok bool) {
	if !p.take("[") {
		return nil, false
	}
	for {
		s, ok := p.literal()
		if !ok {
			return nil, false
		}
		list = append(list, s)
		if p.take("]") {
			return list, true
		}
		if !p.take(",") {
			return nil, false
		}
	}
}

// number reads up to nine digits.
func (p *plain) number() (int, bool) {
	p.space()
	n := 0
	for n < len(p.rest) && p.rest[n] >= '0' && p.rest[n] <= '9' {
		n++
	}
	after := p.rest[n:]
	if n == 0 || n > 9 || (after != "" && (isWord(after[0]) || after[0] == '.')) {
		return 0, false
	}
	value, err := strconv.Atoi(p.rest[:n])
	p.rest = after
	return value, err == nil
}

func (p *plain) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n\f") }

func (p *plain) peek(token string) bool {
	p.space()
	return strings.HasPrefix(p.rest, token)
}

func (p *plain) take(token string) bool {
	if !p.peek(token) {
		return false
	}
	p.rest = p.rest[len(token):]
	return true
}

// word takes a word that ends where it ends.
func (p *plain) word(w string) bool {
	if !p.peek(w) || (len(p.rest) > len(w) && isWord(p.rest[len(w)])) {
		return false
	}
	p.rest = p.rest[len(w):]
	return true
}
