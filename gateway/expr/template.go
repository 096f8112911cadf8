package expr

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"headgate/gateway/exchange"
	"headgate/internal/expr"
)

// maxTemplate bounds a template in bytes: a fixed answer's body is one.
const maxTemplate = 1 << 20

// fewParts is up to how many expressions a template fills in without a list on the heap.
const fewParts = 8

// part is a literal text followed by an expression's value, or nil at the end.
type part struct {
	literal string
	value   func(*exchange.Exchange) string
}

// Template compiles text with {expression} in it; {{ and }} are braces. Without an expression it is a constant. Filling
// one in costs the allocation of the result.
func (c *Compiler) Template(src string, escape ...func(string) string) (func(*exchange.Exchange) string, error) {
	if len(src) > maxTemplate {
		return nil, &expr.Error{Line: 1, Col: 1, Message: fmt.Sprintf("the template has %d bytes; at most %d are allowed", len(src), maxTemplate)}
	}
	parts, err := c.parts(src, escape)
	if err != nil {
		return nil, err
	}
	if len(parts) == 1 {
		return func(*exchange.Exchange) string { return parts[0].literal }, nil
	}
	if len(parts) == 2 && parts[0].literal == "" && parts[1].literal == "" {
		return parts[0].value, nil
	}
	return func(x *exchange.Exchange) string { return fill(x, parts) }, nil
}

func fill(x *exchange.Exchange, parts []part) string {
	var few [fewParts]string
	values, size := few[:0], 0
	for i := range parts {
		size += len(parts[i].literal)
		if parts[i].value != nil {
			v := parts[i].value(x)
			values, size = append(values, v), size+len(v)
		}
	}
	var b strings.Builder
	b.Grow(size)
	for i := range parts {
		b.WriteString(parts[i].literal)
		if parts[i].value != nil {
			b.WriteString(values[i])
		}
	}
	return b.String()
}

// parts splits a template; every part but the last has a value.
func (c *Compiler) parts(src string, escape []func(string) string) (parts []part, err error) {
	var literal strings.Builder
	for i := 0; i < len(src); {
		brace := strings.IndexAny(src[i:], "{}")
		if brace < 0 {
			literal.WriteString(src[i:])
			break
		}
		literal.WriteString(src[i : i+brace])
		i += brace
		switch {
		case strings.HasPrefix(src[i:], "{{"), strings.HasPrefix(src[i:], "}}"):
			literal.WriteByte(src[i])
			i += 2
		case src[i] == '}':
			return nil, place(src, i, "a } without a {; write }} for a brace")
		default:
			end := closing(src, i)
			if end < 0 {
				return nil, place(src, i, "this { is not closed; write {{ for a brace")
			}
			value, err := c.String(src[i+1 : end])
			if err != nil {
				return nil, inside(src, i+1, err)
			}
			parts = append(parts, part{literal.String(), escaped(value, escape)})
			literal.Reset()
			i = end + 1
		}
	}
	return append(parts, part{literal: literal.String()}), nil
}

func escaped(value func(*exchange.Exchange) string, escape []func(string) string) func(*exchange.Exchange) string {
	for _, e := range escape {
		inner := value
		value = func(x *exchange.Exchange) string { return e(inner(x)) }
	}
	return value
}

// closing returns where the brace at open is closed, over nested braces and quoted texts, or -1.
func closing(src string, open int) int {
	depth := 0
	for i := open; i < len(src); i++ {
		switch c := src[i]; c {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		case '"', '\'':
			for i++; i < len(src) && src[i] != c; i++ {
				if src[i] == '\\' {
					i++
				}
			}
		}
	}
	return -1
}

// place is an error at an offset of the template.
func place(src string, offset int, message string) *expr.Error {
	before := src[:min(offset, len(src))]
	line := strings.Count(before, "\n")
	return &expr.Error{Line: line + 1, Col: utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1, Message: message}
}

// inside moves an expression's error to where the expression stands in the template.
func inside(src string, offset int, err error) error {
	var e *expr.Error
	if !errors.As(err, &e) {
		return err
	}
	at := place(src, offset, e.Message)
	if e.Line == 1 {
		at.Col += e.Col - 1
	} else {
		at.Line, at.Col = at.Line+e.Line-1, e.Col
	}
	return at
}
