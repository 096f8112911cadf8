// Package testkit runs behaviour scripts: one text file holds a document, what the upstream does, what the client sends on
// the raw wire and what must come of it, and the real binary is put between the two. README.md tells the format.
package testkit

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// section is a part of a script: what stands below a line "-- name --".
type section struct {
	name string
	line int // of its first line
	text string
}

// statement is one line of a script or of an upstream's behaviour.
type statement struct {
	line int
	text string // as written
	verb string
	arg  string
}

// script is a file taken apart.
type script struct {
	path     string
	sections []section
}

var heading = regexp.MustCompile(`^-- (.+) --$`)

// readScript reads a script's file.
func readScript(path string) (*script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parseScript(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.path = path
	return s, nil
}

// parseScript takes a script apart. It begins with a comment that says what is proven.
func parseScript(text string) (*script, error) {
	s := &script{}
	if !strings.HasPrefix(text, "#") {
		return nil, fmt.Errorf("a script begins with a comment that says what it proves")
	}
	for i, line := range strings.SplitAfter(text, "\n") {
		if m := heading.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			s.sections = append(s.sections, section{name: m[1], line: i + 2})
			continue
		}
		if n := len(s.sections); n > 0 {
			s.sections[n-1].text += line
		} else if t := strings.TrimSpace(line); t != "" && t[0] != '#' {
			return nil, fmt.Errorf("line %d: %q stands before the first section", i+1, t)
		}
	}
	for _, sec := range s.sections {
		if !known(sec.name) {
			return nil, fmt.Errorf("line %d: no section is called %q", sec.line-1, sec.name)
		}
	}
	return s, nil
}

func known(name string) bool {
	switch word, rest, _ := strings.Cut(name, " "); word {
	case "headgate.yaml", "upstream":
		_, err := strconv.Atoi(rest)
		return rest == "" || err == nil
	case "file":
		return rest != ""
	case "script", "bad.yaml", "error", "environment":
		return rest == ""
	}
	return false
}

// section returns the section of that name.
func (s *script) section(name string) (section, bool) {
	for _, sec := range s.sections {
		if sec.name == name {
			return sec, true
		}
	}
	return section{}, false
}

// statements takes a section of statements apart. Comments are left out; a blank line becomes a statement without verb.
func (s section) statements(parse func(string) (verb, arg string, err error)) ([]statement, error) {
	var list []statement
	for i, text := range strings.Split(strings.TrimRight(s.text, "\n"), "\n") {
		if strings.HasPrefix(text, "#") {
			continue
		}
		st := statement{line: s.line + i, text: text}
		if strings.TrimSpace(text) != "" {
			var err error
			if st.verb, st.arg, err = parse(text); err != nil {
				return nil, fmt.Errorf("line %d: %w", st.line, err)
			}
		}
		list = append(list, st)
	}
	return list, nil
}

// marks are the statements that begin with a sign instead of a word; the longer ones stand first.
var marks = []struct{ sign, verb string }{
	{">|", "raw"}, {">*", "repeat"}, {">", "line"},
	{"<|", "take"}, {"<closed", "closed"}, {"<aborted", "aborted"}, {"<none", "none"}, {"<trailer ", "trailer"}, {"<length ", "length"},
	{"<!", "absent"}, {"<~", "body-has"}, {"<=", "body-is"}, {"<?", "header-like"}, {"<", "reply"},
	{"^none", "got-nothing"}, {"^unfinished", "got-unfinished"}, {"^count ", "got-count"}, {"^trailer ", "got-trailer"},
	{"^!", "got-absent"}, {"^=", "got-head"}, {"^~", "got-has"}, {"^|", "got-body"}, {"^?", "got-like"}, {"^", "got"},
}

// words are the other statements of a client's script.
var words = []string{
	"connect", "on", "half-close", "hangup", "reset", "within", "trickle", "piecemeal", "crowd",
	"advance", "reload", "replace", "signal", "exit",
	"status", "metrics", "log", "file", "limit", "upstream", "await",
}

var upstreamMark = regexp.MustCompile(`^\^([2-9])`)

// parseClient reads one statement of a client's script. "^2" speaks of the second upstream: the number goes before the
// argument, separated by a NUL.
func parseClient(text string) (verb, arg string, err error) {
	number := "1"
	if m := upstreamMark.FindStringSubmatch(text); m != nil {
		number, text = m[1], "^"+text[2:]
	}
	for _, m := range marks {
		if rest, ok := strings.CutPrefix(text, m.sign); ok {
			rest = strings.TrimPrefix(rest, " ")
			if m.sign[0] == '^' {
				rest = number + "\x00" + rest
			}
			return m.verb, rest, nil
		}
	}
	return word(text, words)
}

// upstreamWords are the statements of an upstream's behaviour.
var upstreamWords = []string{
	"expect", "expect-head", "body", "send", "piecemeal", "flood", "close", "half-close", "reset", "stall", "wait-closed",
	"read", "wait-end",
}

// parseUpstream reads one statement of an upstream's behaviour.
func parseUpstream(text string) (verb, arg string, err error) { return word(text, upstreamWords) }

func word(text string, allowed []string) (verb, arg string, err error) {
	verb, arg, _ = strings.Cut(text, " ")
	for _, w := range allowed {
		if w == verb {
			return verb, arg, nil
		}
	}
	return "", "", fmt.Errorf("%q is no statement; there are %s", verb, strings.Join(allowed, ", "))
}

var bareQuote = regexp.MustCompile(`\\.|"`)

// unescape reads Go's escapes (\r\n\t\x00\\); quotes may stand bare.
func unescape(s string) (string, error) {
	quoted := bareQuote.ReplaceAllStringFunc(s, func(m string) string {
		if m == `"` {
			return `\"`
		}
		return m
	})
	text, err := strconv.Unquote(`"` + quoted + `"`)
	if err != nil {
		return "", fmt.Errorf("%q has an escape that Go does not know", s)
	}
	return text, nil
}

// counted reads "N text".
func counted(arg string) (n int, text string, err error) {
	number, text, _ := strings.Cut(arg, " ")
	if n, err = strconv.Atoi(number); err != nil {
		return 0, "", fmt.Errorf("%q does not begin with a number", arg)
	}
	return n, text, nil
}

// repeated reads a text with escapes, or "*N TEXT" for N times the text.
func repeated(arg string) (text string, err error) {
	n := 1
	if rest, ok := strings.CutPrefix(arg, "*"); ok {
		if n, arg, err = counted(rest); err != nil {
			return "", err
		}
	}
	text, err = unescape(arg)
	return strings.Repeat(text, n), err
}
