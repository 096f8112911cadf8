package route

import (
	"fmt"
	"strings"

	"headgate/gateway/exchange"
)

// Candidate is a rule whose host and path fit a request, and why it is not the one that is taken.
type Candidate[T any] struct {
	Value T
	Why   string // "": it is the one
}

// Candidates returns the rules whose host and path fit a request, at most limit of them, the most specific first. It is
// for explaining, not for serving.
func (t *Table[T]) Candidates(
	method, host, path string, header *exchange.Header, query string, limit int,
) (all []Candidate[T]) {
	text, ok := decoded(path)
	if !ok || !strings.HasPrefix(text, "/") {
		return nil
	}
	s := search{index: &t.index, query: query, header: header, bit: t.index.methods.bit(method), head: method == "HEAD"}
	var taken *found
	for _, root := range t.index.roots(bareHost(host)) {
		t.index.visit(root.node, text, 0, func(l *leaf, rest string) bool {
			for _, e := range l.order(s.head) {
				if re := e.re; re != nil && !re.MatchString(strings.ReplaceAll(rest, string(slashMark), "%2F")) {
					continue
				}
				here := &found{e, root.rank}
				why := s.misses(e)
				if why == "" && taken != nil {
					why = here.behind(taken)
				} else if why == "" {
					taken = here
				}
				if all = append(all, Candidate[T]{t.values[e.rule], why}); len(all) == limit {
					return false
				}
			}
			return true
		})
		if len(all) == limit {
			break
		}
	}
	return all
}

// root is the tree of a host and how specific it is.
type root struct {
	node *node
	rank string
}

// roots returns the trees of a host, the most specific first.
func (x *index) roots(host string) (all []root) {
	if n := x.exact[host]; n != nil {
		all = append(all, root{n, "the host " + host})
	}
	for rest := host; ; {
		_, suffix, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		if n := x.wildcard[suffix]; n != nil && len(suffix)+1 < len(host) {
			all = append(all, root{n, "*." + suffix})
		}
		rest = suffix
	}
	if x.anyHost != nil {
		all = append(all, root{x.anyHost, "every host"})
	}
	return all
}

// misses says what about the request does not fit, or "".
func (s *search) misses(e *entry) string {
	if !e.anyMethod && e.methods&s.bit == 0 {
		return "it is for " + s.index.methods.join(e.methods)
	}
	for i := range e.headers {
		if !headerHolds(&e.headers[i], s.header) {
			return "it asks for header " + e.headers[i].String()
		}
	}
	for i := range e.query {
		if !queryHolds(&e.query[i], s.query) {
			return "it asks for query parameter " + e.query[i].String()
		}
	}
	return ""
}

// String writes a predicate as in a document.
func (p *predicate) String() string {
	switch p.test {
	case present:
		return p.name + ": *"
	case fits:
		return p.name + ": ~" + p.text
	}
	return p.name + ": " + p.text
}

type found struct {
	entry *entry
	host  string
}

// behind says why f comes after the rule that is taken.
func (f *found) behind(taken *found) string {
	if f.host != taken.host {
		return fmt.Sprintf("less specific: it is for %s, not for %s", f.host, taken.host)
	}
	a, b := f.entry.pattern.segments, taken.entry.pattern.segments
	for i := range max(len(a), len(b)) {
		var own, its segment
		if i < len(a) {
			own = a[i]
		}
		if i < len(b) {
			its = b[i]
		}
		if own.kind != its.kind {
			return fmt.Sprintf("less specific: its path has %s where that one has %s", own, its)
		}
	}
	if f.entry.count != taken.entry.count {
		return fmt.Sprintf("less specific: of methods, header fields and query it asks for %d, not for %d", f.entry.count, taken.entry.count)
	}
	return "less specific: what it asks of methods, header fields and query is wider"
}

// String writes a segment as in a document.
func (s segment) String() string {
	switch s.kind {
	case literal:
		return fmt.Sprintf("%q", s.text)
	case capture:
		return "{" + s.text + "}"
	case star:
		return "*"
	case expression:
		return "~" + s.text
	case captureAll:
		return "{" + s.text + "...}"
	case starAll:
		return "**"
	}
	return "its end"
}

// order is the order in which entries are tried.
func (l *leaf) order(head bool) []*entry {
	if head && l.heads != nil {
		return l.heads
	}
	return l.entries
}
