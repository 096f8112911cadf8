// Package decode turns YAML into the document: strict, with every problem at once and each at its place.
package decode

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong with a document.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Col     int    `json:"col,omitempty"`
	Path    string `json:"path,omitempty"` // such as apis.shop.routes["list orders"].match
	Code    string `json:"code"`           // stable, such as unknown_key
	Message string `json:"message"`        // what was found and what is allowed
}

// Place returns "file:line:col", as far as they are known.
func (p Problem) Place() string {
	switch {
	case p.Line > 0 && p.File != "":
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
	case p.Line > 0:
		return fmt.Sprintf("%d:%d", p.Line, p.Col)
	}
	return p.File
}

// String returns "file:line:col: path: message [code]".
func (p Problem) String() string {
	var b strings.Builder
	if place := p.Place(); place != "" {
		b.WriteString(place + ": ")
	}
	if p.Path != "" {
		fmt.Fprintf(&b, "%s: ", p.Path)
	}
	fmt.Fprintf(&b, "%s [%s]", p.Message, p.Code)
	return b.String()
}

// Problems is everything wrong with a document, as an error.
type Problems []Problem

// Error returns one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Sort orders by file, line, column and message, and drops repetitions.
func (ps Problems) Sort() Problems {
	slices.SortFunc(ps, func(a, b Problem) int {
		return firstNonZero(strings.Compare(a.File, b.File), a.Line-b.Line, a.Col-b.Col, strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(ps)
}

func firstNonZero(ns ...int) int {
	for _, n := range ns {
		if n != 0 {
			return n
		}
	}
	return 0
}

// PathError points into the value being checked: at a key below it, or at the value itself when Path is empty.
type PathError struct {
	Path []string // keys, and indexes in decimal
	Err  error
}

// Error returns the message alone; the place is told by the Problem that it becomes.
func (e *PathError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PathError) Unwrap() error { return e.Err }

// At returns an error that points at a key of the value being checked; nested keys are separated by dots.
// Several are joined with errors.Join.
func At(path, format string, args ...any) error {
	var keys []string
	if path != "" {
		keys = strings.Split(path, ".")
	}
	return &PathError{Path: keys, Err: fmt.Errorf(format, args...)}
}

// Flatten returns the single errors inside err, which may have been joined.
func Flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, Flatten(e)...)
		}
		return all
	}
	return []error{err}
}
