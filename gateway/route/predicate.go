package route

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"headgate/gateway/exchange"
)

// test is what a predicate asks of a value, the narrowest last.
type test uint8

const (
	present test = iota // *
	fits                // ~expression
	equals
)

// predicate asks for a header field or a query parameter.
type predicate struct {
	name string
	test test
	text string // the value, or the expression
	re   *regexp.Regexp
}

func (p *predicate) holds(value string) bool {
	switch p.test {
	case equals:
		return value == p.text
	case fits:
		return p.re.MatchString(value)
	}
	return true
}

// implies reports whether every value that p accepts is accepted by q. Two expressions imply each other when equal.
func (p *predicate) implies(q *predicate) bool {
	switch {
	case q.test == present:
		return true
	case p.test == equals:
		return q.holds(p.text)
	}
	return p.test == q.test && p.text == q.text
}

// parsePredicates reads a map of names and values, sorted by name.
func parsePredicates(what string, m map[string]string, fold bool) ([]predicate, error) {
	var all []predicate
	for _, name := range slices.Sorted(maps.Keys(m)) {
		p := predicate{name: name, test: equals, text: m[name]}
		if fold {
			if !exchange.ValidName(name) {
				return nil, fmt.Errorf("%q cannot be the name of a header field", name)
			}
			p.name = strings.ToLower(name)
			if slices.ContainsFunc(all, func(q predicate) bool { return q.name == p.name }) {
				return nil, fmt.Errorf("header %q is given twice; names of header fields have no case", name)
			}
		}
		if expr, ok := strings.CutPrefix(p.text, "~"); ok {
			re, err := regexp.Compile(anchored(expr))
			if err != nil {
				return nil, fmt.Errorf("%s %q: the regular expression %q is not valid RE2", what, name, expr)
			}
			p.test, p.text, p.re = fits, expr, re
		} else if p.text == "*" {
			p.test, p.text = present, ""
		}
		all = append(all, p)
	}
	return all, nil
}

// entry is one rule at one leaf. What every search looks at stands first and together.
type entry struct {
	methods   uint64 // with HEAD, if GET is one of them
	anyMethod bool
	rule      int
	re        *regexp.Regexp // the pattern's
	names     []string       // the pattern's
	headers   []predicate
	query     []predicate
	explicit  uint64 // the methods that the rule lists
	pattern   *pattern
	count     int // predicates
	narrow    int // how narrow they are
}

func (e *entry) weigh() {
	e.count, e.narrow = len(e.headers)+len(e.query), 0
	if !e.anyMethod {
		e.count++
	}
	for _, list := range [][]predicate{e.headers, e.query} {
		for i := range list {
			e.narrow += int(list[i].test)
		}
	}
}

// compareEntries orders the entries of one leaf. Only conflicting entries ever get as far as the rule's index.
func compareEntries(a, b *entry) int {
	return cmp.Or(b.count-a.count, b.narrow-a.narrow, bits.OnesCount64(a.explicit)-bits.OnesCount64(b.explicit), a.rule-b.rule)
}

// accepts reports whether header fields and query parameters are what the rule asks for.
func (e *entry) accepts(header *exchange.Header, query string) bool {
	for i := range e.headers {
		if !headerHolds(&e.headers[i], header) {
			return false
		}
	}
	for i := range e.query {
		if !queryHolds(&e.query[i], query) {
			return false
		}
	}
	return true
}

func headerHolds(p *predicate, header *exchange.Header) bool {
	for i := range header.Len() {
		if f := header.At(i); exchange.EqualFold(f.Name, p.name) && p.holds(f.Value) {
			return true
		}
	}
	return false
}

func queryHolds(p *predicate, query string) bool {
	for name, value := range parameters(query) {
		if name == p.name && p.holds(value) {
			return true
		}
	}
	return false
}

// parameters yields the decoded names and values of a query (WHATWG URL, application/x-www-form-urlencoded); what cannot
// be decoded stays as it is.
func parameters(query string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for query != "" {
			var pair string
			pair, query, _ = strings.Cut(query, "&")
			name, value, _ := strings.Cut(pair, "=")
			if !yield(unescapeQuery(name), unescapeQuery(value)) {
				return
			}
		}
	}
}

func unescapeQuery(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	if text, err := url.QueryUnescape(s); err == nil {
		return text
	}
	return s
}

// implies reports whether every request that a's predicates accept is accepted by b's.
func (e *entry) implies(b *entry) bool {
	if !b.anyMethod && (e.anyMethod || e.explicit&^b.explicit != 0) {
		return false
	}
	return implyAll(e.headers, b.headers) && implyAll(e.query, b.query)
}

func implyAll(a, b []predicate) bool {
	for i := range b {
		if !slices.ContainsFunc(a, func(p predicate) bool { return p.name == b[i].name && p.implies(&b[i]) }) {
			return false
		}
	}
	return true
}

// before reports whether a's predicates are more specific than b's.
func (e *entry) before(b *entry) bool {
	if e.count != b.count {
		return e.count > b.count
	}
	return e.implies(b) && !b.implies(e)
}

// maxMethods is the number of different methods that the rules of a table may list: they are bits of a word.
const maxMethods = 63

// methods numbers the methods of a table.
type methods struct {
	names  []string
	allows map[uint64]string // the Allow lists that single leaves lead to
}

var commonMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"}

// The bits of the methods that are special.
const (
	bitGET     = 1 << 0
	bitHEAD    = 1 << 1
	bitOPTIONS = 1 << 6
)

// bit returns the method's bit, or 0 for one that no rule lists.
func (m *methods) bit(method string) uint64 {
	for i, name := range m.names {
		if name == method {
			return 1 << i
		}
	}
	return 0
}

// intern returns the methods' bits and numbers new ones.
func (m *methods) intern(names []string) (mask uint64, err error) {
	for _, name := range names {
		if !exchange.ValidName(name) || strings.ToUpper(name) != name {
			return 0, fmt.Errorf("%q is not a method; methods are written in capitals, such as GET", name)
		}
		if m.bit(name) == 0 {
			if len(m.names) == maxMethods {
				return 0, fmt.Errorf("the routes list more than %d different methods", maxMethods)
			}
			m.names = append(m.names, name)
		}
		mask |= m.bit(name)
	}
	return mask, nil
}

// allow returns the Allow field's value for the methods.
func (m *methods) allow(mask uint64) string {
	if list, ok := m.allows[mask]; ok {
		return list
	}
	return m.list(mask)
}

// list is an Allow list: OPTIONS is always answered.
func (m *methods) list(mask uint64) string { return m.join(mask | bitOPTIONS) }

func (m *methods) join(mask uint64) string {
	var names []string
	for i, name := range m.names {
		if mask&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
