package route

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// maxSegments bounds the depth of the tree, and so how far a search goes into a path of many slashes.
const maxSegments = 64

// kind is what a segment of a pattern fits, the most specific first: this is the order of a search.
type kind uint8

const (
	end        kind = iota // not stored: behind the last segment
	literal                // one segment, equal to text
	capture                // {name}: one segment that is not empty
	star                   // *: one segment that is not empty
	expression             // ~...: all that follows, if the expression fits it
	captureAll             // {name...}: all that follows, also nothing
	starAll                // **: all that follows, also nothing
)

// segment is one part of a pattern; text is the decoded literal, the name or the expression.
type segment struct {
	kind kind
	text string
}

// pattern is a whole path, base path included.
type pattern struct {
	segments []segment
	names    []string       // of what is captured, in order; with an expression "" for an unnamed group
	re       *regexp.Regexp // the last segment, if it is an expression
	written  string         // for messages
}

// baseError is about the base path.
type baseError struct{ message string }

// Error returns what is wrong with the base path.
func (e *baseError) Error() string { return e.message }

// parsePattern reads the base path and the path below it. A path of "/" below a base path is two patterns.
func parsePattern(base, path string) ([]pattern, error) {
	base = strings.TrimSuffix(base, "/")
	var p pattern
	p.written = base + path
	if base != "" {
		if base[0] != '/' {
			return nil, &baseError{fmt.Sprintf("the base path %q does not begin with a slash", base)}
		}
		for text := range strings.SplitSeq(base[1:], "/") {
			s, err := parseSegment(text)
			if err != nil || s.kind != literal {
				return nil, &baseError{fmt.Sprintf("the base path %q must be literal: no {name}, * or ** in it", base)}
			}
			p.segments = append(p.segments, s)
		}
	}
	if expr, ok := strings.CutPrefix(path, "~"); ok {
		p.written = base + " " + path
		return p.withExpression(expr)
	}
	if path == "" {
		path, p.written = "/**", base+"/**"
	}
	if path[0] != '/' {
		return nil, fmt.Errorf("the path %q does not begin with a slash; write /%s, or ~%s for a regular expression", path, path, path)
	}
	whole := p
	for text := range strings.SplitSeq(path[1:], "/") {
		s, err := parseSegment(text)
		if err != nil {
			return nil, err
		}
		if err := p.add(s); err != nil {
			return nil, err
		}
	}
	if reason := CheckPath(p.sample(), true, true); reason != "" {
		return nil, fmt.Errorf("the path %q can never be asked for: %s", p.written, reason)
	}
	if path == "/" && base != "" {
		return []pattern{p, whole}, nil
	}
	return []pattern{p}, nil
}

func (p *pattern) add(s segment) error {
	if n := len(p.segments); n > 0 && p.segments[n-1].kind > expression {
		return fmt.Errorf("** and {name...} stand at the end of a path; in the middle, * and {name} fit one segment")
	}
	if len(p.segments) == maxSegments {
		return fmt.Errorf("the path has more than %d segments", maxSegments)
	}
	if s.kind == capture || s.kind == captureAll {
		if slices.Contains(p.names, s.text) {
			return fmt.Errorf("{%s} is captured twice; give the two segments different names", s.text)
		}
		p.names = append(slices.Clip(p.names), s.text)
	}
	p.segments = append(slices.Clip(p.segments), s)
	return nil
}

func (p pattern) withExpression(expr string) ([]pattern, error) {
	re, err := regexp.Compile(anchored(expr))
	if err != nil {
		if _, inner := regexp.Compile(expr); inner != nil {
			err = inner // names the expression as it was written
		}
		return nil, fmt.Errorf("the path's regular expression is not valid RE2: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	if re.NumSubexp() > 0 && strings.Join(re.SubexpNames(), "") != "" {
		p.names = re.SubexpNames()[1:]
	}
	p.segments, p.re = append(slices.Clip(p.segments), segment{expression, expr}), re
	return []pattern{p}, nil
}

func anchored(expr string) string { return `\A(?:` + expr + `)\z` }

var segmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func parseSegment(text string) (segment, error) {
	switch text {
	case "*":
		return segment{star, ""}, nil
	case "**":
		return segment{starAll, ""}, nil
	}
	if inner, ok := strings.CutPrefix(text, "{"); ok && strings.HasSuffix(inner, "}") {
		name, k := strings.TrimSuffix(inner, "}"), capture
		if rest, ok := strings.CutSuffix(name, "..."); ok {
			name, k = rest, captureAll
		}
		if !segmentName.MatchString(name) {
			return segment{}, fmt.Errorf("%q is not a name for a segment; write letters, digits and _, such as {order_id}", name)
		}
		return segment{k, name}, nil
	}
	if i := strings.IndexAny(text, "{}*"); i >= 0 {
		return segment{}, fmt.Errorf("%q mixes text and %q in one segment; {name} and * are whole segments, a regular expression "+
			"(~ in front of the path) can do more, and %%%02X is the character itself", text, text[i], text[i])
	}
	if i := strings.IndexAny(text, "?#"); i >= 0 {
		return segment{}, fmt.Errorf("%q contains %q, which is no part of a path; query parameters are matched by query", text, text[i])
	}
	lit, ok := decoded(text)
	if !ok {
		return segment{}, fmt.Errorf("%q contains a malformed percent-escape or NUL", text)
	}
	return segment{literal, lit}, nil
}

// sampleSegment fits {name} and *; it is unlikely to be a literal of anybody.
const sampleSegment = "x"

// sample returns a path as a client would send it, that fits the pattern up to an expression.
func (p *pattern) sample() string { return encoded(p.sampleDecoded(sampleSegment)) }

func (p *pattern) sampleDecoded(fill string) string {
	var b strings.Builder
	for _, s := range p.segments {
		switch s.kind {
		case literal:
			b.WriteString("/" + s.text)
		case capture, star, captureAll, starAll:
			b.WriteString("/" + fill)
		}
	}
	return b.String()
}

// covers reports whether p fits every path that q fits; neither has an expression.
func (p *pattern) covers(q *pattern) bool {
	for i, s := range p.segments {
		if s.kind > expression {
			return true
		}
		if i == len(q.segments) || q.segments[i].kind > expression {
			return false
		}
		if t := q.segments[i]; s.kind == literal && (t.kind != literal || t.text != s.text) || t.kind == literal && t.text == "" &&
			s.kind != literal {
			return false
		}
	}
	return len(p.segments) == len(q.segments)
}

// asExpression writes the pattern's segments from the given one on as a regular expression.
func (p *pattern) asExpression(from int) string {
	var b strings.Builder
	for _, s := range p.segments[from:] {
		switch s.kind {
		case literal:
			b.WriteString("/" + regexp.QuoteMeta(strings.ReplaceAll(s.text, string(slashMark), "%2F")))
		case capture, star:
			b.WriteString("/[^/]+")
		case captureAll, starAll:
			b.WriteString("(?s:/.*)?")
		case expression:
			b.WriteString("(?:" + s.text + ")")
		}
	}
	return b.String()
}
