package expr

import (
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"

	"headgate/internal/text"
)

// Error is what is wrong with an expression, and where. Line and Col count from 1, Col in characters.
type Error struct {
	Line, Col int
	Message   string
}

// Error names the column, and the line when it is not the first.
func (e *Error) Error() string {
	if e.Line > 1 {
		return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Col, e.Message)
	}
	return fmt.Sprintf("column %d: %s", e.Col, e.Message)
}

// explain turns CEL's first complaint into one that says what was found and what there is.
func (l *words) explain(src string, issues *cel.Issues, moved shifts) error {
	all := issues.Errors()
	if len(all) == 0 {
		return &Error{1, 1, issues.Err().Error()}
	}
	first := all[0]
	e := moved.move(&Error{first.Location.Line(), first.Location.Column() + 1, first.Message})
	e.Line, e.Col = max(e.Line, 1), max(e.Col, 1)
	e.Message = l.translate(e, src)
	return e
}

// The complaints of CEL that have a better form here.
var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	overload   = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
	expecting  = regexp.MustCompile(`^Syntax error: (.*?)(?: expecting .*)?$`)
	operator   = regexp.MustCompile(`^_?@?!?-?([^_]*?)_?$`)
)

func (l *words) translate(e *Error, src string) string {
	if m := undeclared.FindStringSubmatch(e.Message); m != nil {
		return l.unknown(m[1], e, src)
	}
	if m := overload.FindStringSubmatch(e.Message); m != nil {
		name := strings.NewReplacer("_", "", "@", "").Replace(m[1])
		if !operator.MatchString(m[1]) || name == "" {
			name = m[1]
		}
		return fmt.Sprintf("%s cannot be applied to %s", name, strings.ReplaceAll(m[2], "map(string, string)", "a table"))
	}
	if m := expecting.FindStringSubmatch(e.Message); m != nil {
		if hint := halfOperator(at(src, e.Line, e.Col)); hint != "" {
			return hint
		}
		message := strings.NewReplacer("'<EOF>'", "the end", "<EOF>", "the end").Replace(m[1])
		return "the expression cannot be read: " + message
	}
	return e.Message
}

// halfOperator explains an operator of which only the first half is written, as other languages have it.
func halfOperator(rest string) string {
	if rest == "" || strings.HasPrefix(rest[1:], rest[:1]) {
		return ""
	}
	switch rest[0] {
	case '=':
		return "= means nothing here; write == to compare"
	case '&':
		return "& means nothing here; write && for and"
	case '|':
		return "| means nothing here; write || for or"
	}
	return ""
}

// unknown says that there is no such variable or function, which one was meant, and which there are.
func (l *words) unknown(name string, e *Error, src string) string {
	names := make([]string, len(l.vars))
	for i, v := range l.vars {
		names[i] = v.Name
	}
	if first, _, dotted := strings.Cut(name, "."); dotted && strings.HasPrefix(at(src, e.Line, e.Col), ".") {
		e.Col = max(e.Col-len(first), 1) // the place of a selection is its dot
	}
	rest := at(src, e.Line, e.Col)
	if !strings.HasPrefix(rest, name) { // the place of a call is its parenthesis, of a method its dot
		return fmt.Sprintf("there is no function %q%s", name, text.DidYouMean(name, functionNames))
	}
	end := len(name)
	for end < len(rest) && (isWord(rest[end]) || rest[end] == '.') {
		end++
	}
	full := strings.TrimRight(rest[:end], ".")
	if strings.HasPrefix(rest[end:], "(") {
		full = name
	}
	hint := text.DidYouMean(full, names)
	if hint == "" && full != name {
		hint = l.tableHint(name, full, names)
	}
	return fmt.Sprintf("there is no %q%s; there are %s", full, hint, strings.Join(names, ", "))
}

// tableHint finds the table that was meant in table.name.
func (l *words) tableHint(name, full string, names []string) string {
	if near, ok := text.Nearest(name, names); ok {
		return fmt.Sprintf("; did you mean %q?", near+strings.TrimPrefix(full, name))
	}
	return ""
}

// functionNames are what a slip in a function's name may have meant.
var functionNames = []string{
	"inCIDR", "size", "has", "exists", "all", "exists_one", "filter", "map", "startsWith", "endsWith", "contains", "matches",
	"lowerAscii", "upperAscii", "replace", "split", "join", "substring", "trim", "indexOf", "lastIndexOf", "charAt", "reverse",
	"format", "string", "int", "double", "bool", "timestamp", "duration", "type",
}

// at returns the source from a place on.
func at(src string, line, col int) string {
	for ; line > 1; line-- {
		_, src, _ = strings.Cut(src, "\n")
	}
	runes := []rune(src)
	return string(runes[min(max(col-1, 0), len(runes)):])
}

// article names a type in prose.
func article(t *cel.Type) string {
	switch s := cel.FormatCELType(t); {
	case strings.HasPrefix(s, "map"):
		return "a table"
	case strings.HasPrefix(s, "list"):
		return "a list"
	case s == "string":
		return "a text"
	case s == "int" || s == "uint" || s == "double":
		return "a number"
	default:
		return s
	}
}
