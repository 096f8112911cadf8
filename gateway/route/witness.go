package route

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Witness is a request that shows a conflict: it fits both rules.
type Witness struct {
	Method  string
	Host    string // "": any
	Path    string // as a client would send it
	Query   map[string]string
	Headers map[string]string
}

// String writes the request as one line: method, address and the header fields that matter.
func (w Witness) String() string {
	var b strings.Builder
	b.WriteString(w.Method + " ")
	if w.Host != "" {
		b.WriteString("http://" + w.Host)
	}
	b.WriteString(w.Path)
	for i, name := range slices.Sorted(maps.Keys(w.Query)) {
		b.WriteString([]string{"?", "&"}[min(i, 1)])
		b.WriteString(url.QueryEscape(name) + "=" + url.QueryEscape(w.Query[name]))
	}
	for i, name := range slices.Sorted(maps.Keys(w.Headers)) {
		b.WriteString([]string{" with header ", ", "}[min(i, 1)])
		b.WriteString(name + ": " + w.Headers[name])
	}
	return b.String()
}

// meeting is whether and how two entries of one host meet.
type meeting struct {
	meet    bool
	decided bool
	witness Witness
}

// meet looks for a request whose method, header fields and query parameters fit both entries.
func (m *methods) meet(a, b *entry) meeting {
	result := meeting{meet: true, decided: true}
	result.witness.Method = "GET"
	switch common := a.explicit & b.explicit; {
	case a.anyMethod && b.anyMethod:
	case a.anyMethod:
		result.witness.Method = m.firstOf(b.explicit)
	case b.anyMethod:
		result.witness.Method = m.firstOf(a.explicit)
	case common == 0:
		return meeting{decided: true}
	default:
		result.witness.Method = m.firstOf(common)
	}
	var headers, query bool
	result.witness.Headers, headers, result.decided = meetPredicates(a.headers, b.headers)
	if result.decided {
		result.witness.Query, query, result.decided = meetPredicates(a.query, b.query)
	}
	result.meet = !result.decided || headers && query
	return result
}

func (m *methods) firstOf(mask uint64) string {
	for i, name := range m.names {
		if mask&(1<<i) != 0 {
			return name
		}
	}
	return ""
}

// meetPredicates returns values that satisfy both lists.
func meetPredicates(a, b []predicate) (values map[string]string, meet, decided bool) {
	values = map[string]string{}
	for _, p := range slices.Concat(a, b) {
		i := slices.IndexFunc(a, func(q predicate) bool { return q.name == p.name })
		j := slices.IndexFunc(b, func(q predicate) bool { return q.name == p.name })
		first, second := p, p
		if i >= 0 && j >= 0 {
			first, second = a[i], b[j]
		}
		value, meet, decided := meetValues(&first, &second)
		if !meet || !decided {
			return nil, meet, decided
		}
		values[p.name] = value
	}
	return values, true, true
}

// meetValues returns a value that satisfies both. A request may carry a field or parameter twice with two values; one
// value that does for both is what counts as an overlap.
func meetValues(a, b *predicate) (value string, meet, decided bool) {
	switch {
	case a.test == equals:
		return a.text, b.holds(a.text), true
	case b.test == equals:
		return b.text, a.holds(b.text), true
	case a.test == present && b.test == present:
		return sampleSegment, true, true
	}
	exprA, exprB := a.text, b.text
	if a.test == present {
		exprA = "(?s:.*)"
	}
	if b.test == present {
		exprB = "(?s:.*)"
	}
	c := compare(exprA, exprB, domain{})
	return c.witness, c.overlap, c.decided
}
