package route

import (
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"strings"
)

// Kind is what stands against a table.
type Kind string

// The kinds, as stable codes.
const (
	Invalid   Kind = "route_invalid"
	Ambiguous Kind = "route_ambiguous" // two rules fit one request and neither is more specific
	Shadowed  Kind = "route_shadowed"  // another rule leaves this one no request
)

// Conflict is one thing that stands against a table.
type Conflict struct {
	Kind    Kind
	Rule    int      // whose fault, as an index into the rules
	Other   int      // with whom; -1: nobody
	Name    string   // of Rule
	With    string   // the name of Other
	Witness *Witness // a request that fits both; nil: Kind is Invalid, or none could be constructed
	Part    string   // of the rule that is Invalid: hosts, base, path, methods, headers or query; "": all of it
	Reason  string
}

// Error returns the whole sentence, without the name of the rule itself.
func (c Conflict) Error() string { return c.Reason }

// maxComparisons bounds the time that looking for conflicts takes. Rules of one path are compared only if their values
// could be equal; a document in which this many remain is written by a program, with patterns only.
const maxComparisons = 1 << 21

func (b *builder) ambiguous(p place, reported map[int]bool) {
	entries := p.leaf.entries
	for len(entries) > 1 {
		n := 1
		for n < len(entries) && entries[n].count == entries[0].count {
			n++
		}
		b.group(p, entries[:n], nil, reported)
		entries = entries[n:]
	}
}

// split names what a group of entries is divided by: the method, a header field or a query parameter.
type split struct {
	kind byte // 'm', 'h', 'q'
	name string
}

// bruteGroup is up to how many entries comparing each with each is cheapest.
const bruteGroup = 8

// group compares the entries of equal count that could meet. Entries that ask for different values of one thing are never
// compared.
func (b *builder) group(p place, entries []*entry, done []split, reported map[int]bool) {
	if len(entries) <= bruteGroup {
		b.each(p, entries, entries, reported)
		return
	}
	by, found := bestSplit(entries, done)
	if !found {
		b.each(p, entries, entries, reported)
		return
	}
	var loose []*entry
	parts := map[string][]*entry{}
	var order []string
	for _, e := range entries {
		value, ok := by.value(e)
		if !ok {
			loose = append(loose, e)
			continue
		}
		if parts[value] == nil {
			order = append(order, value)
		}
		parts[value] = append(parts[value], e)
	}
	done = append(slices.Clip(done), by)
	for _, value := range order {
		b.group(p, parts[value], done, reported)
		b.each(p, parts[value], loose, reported)
	}
	if len(loose) > 1 {
		b.group(p, loose, done, reported)
	}
}

func (s split) value(e *entry) (string, bool) {
	list := e.headers
	switch s.kind {
	case 'm':
		return fmt.Sprint(e.explicit), bits.OnesCount64(e.explicit) == 1
	case 'q':
		list = e.query
	}
	for i := range list {
		if list[i].name == s.name {
			return list[i].text, list[i].test == equals
		}
	}
	return "", false
}

// bestSplit returns what most entries ask a single value of.
func bestSplit(entries []*entry, done []split) (best split, found bool) {
	counts := map[split]int{}
	for _, e := range entries {
		if bits.OnesCount64(e.explicit) == 1 {
			counts[split{kind: 'm'}]++
		}
		for i := range e.headers {
			if e.headers[i].test == equals {
				counts[split{'h', e.headers[i].name}]++
			}
		}
		for i := range e.query {
			if e.query[i].test == equals {
				counts[split{'q', e.query[i].name}]++
			}
		}
	}
	for s, n := range counts {
		if slices.Contains(done, s) {
			continue
		}
		if m := counts[best]; !found || n > m || n == m && (s.kind < best.kind || s.kind == best.kind && s.name < best.name) {
			best, found = s, true
		}
	}
	return best, found
}

// each compares entries of two lists. Each rule is reported once: the rest would say the same again.
func (b *builder) each(p place, some, others []*entry, reported map[int]bool) {
	for i, e := range some {
		from := 0
		if len(some) == len(others) && &some[0] == &others[0] {
			from = i + 1
		}
		for _, o := range others[from:] {
			first, second := e, o
			if first.rule > second.rule {
				first, second = second, first
			}
			if reported[second.rule] || first.rule == second.rule {
				continue
			}
			if b.budget--; b.budget%rulesPerTurn == 0 {
				runtime.Gosched()
			}
			if b.budget == 0 {
				b.conflicts = append(b.conflicts, Conflict{Kind: Ambiguous, Rule: second.rule, Other: -1, Name: b.names[second.rule],
					Reason: fmt.Sprintf("too many routes of one path differ only by patterns: after %d comparisons there were more "+
						"to come; give them different paths, or values instead of patterns", maxComparisons)})
			}
			if b.budget > 0 {
				b.pair(p, first, second, reported)
			}
		}
	}
}

func (b *builder) pair(p place, first, second *entry, reported map[int]bool) {
	if first.before(second) || second.before(first) {
		return
	}
	m := b.index.methods.meet(first, second)
	if !m.meet {
		return
	}
	path, meet, decided := meetPaths(first.pattern, second.pattern)
	if !meet {
		return
	}
	reported[second.rule] = true
	c := Conflict{Kind: Ambiguous, Rule: second.rule, Other: first.rule, Name: b.names[second.rule], With: b.names[first.rule]}
	const advice = "give one of them another path, or a method, header or query parameter that the other does not have"
	if !m.decided || !decided {
		c.Reason = fmt.Sprintf("cannot be told apart from %s: their regular expressions are too complex to rule out a request that fits "+
			"both; %s",
			c.With, advice)
	} else {
		m.witness.Host, m.witness.Path = p.host, path
		c.Witness = &m.witness
		c.Reason = fmt.Sprintf("overlaps with %s: %s fits both, and neither is more specific; %s", c.With, c.Witness, advice)
	}
	b.conflicts = append(b.conflicts, c)
}

// meetPaths returns a path that fits both patterns, which stand at one leaf.
func meetPaths(a, b *pattern) (path string, meet, decided bool) {
	if a.re == nil {
		return a.sample(), true, true
	}
	c := compare(a.expression(), b.expression(), a.domain())
	return a.sample() + encodedBelow(c.witness), c.overlap || !c.decided, c.decided
}

// encodedBelow encodes what an expression sees, in which an encoded slash is written out already.
func encodedBelow(text string) string {
	return encoded(strings.ReplaceAll(text, "%2F", string(slashMark)))
}

func (p *pattern) expression() string { return p.segments[len(p.segments)-1].text }

// domain is what comes below the base path: nothing, or a slash and more; without a base path, never nothing.
func (p *pattern) domain() domain { return domain{path: true, nonEmpty: len(p.segments) == 1} }
