package route

import (
	"fmt"
	"runtime"
	"strings"
)

// cover is what leaves a rule no request at one of its places.
type cover struct {
	by      *entry
	witness Witness
}

// shadowed looks for rules that can never match: at every place, a rule in front of it fits whatever it fits.
// Only *, ** and {name...} and expressions can be in that position: everything else goes first because it is narrower.
// Rules that only several others cover together are not found.
func (b *builder) shadowed(reported map[int]bool) {
	total, covered := map[int]int{}, map[int][]cover{}
	for i, p := range b.places {
		if i%rulesPerTurn == 0 {
			runtime.Gosched()
		}
		total[p.entry.rule]++
		if reported[p.entry.rule] || !p.entry.pattern.mayBeShadowed() {
			continue
		}
		if c, ok := b.cover(p, reported); ok {
			covered[p.entry.rule] = append(covered[p.entry.rule], c)
		}
	}
	for rule, covers := range covered {
		if len(covers) < total[rule] || reported[rule] {
			continue
		}
		c := Conflict{Kind: Shadowed, Rule: rule, Other: covers[0].by.rule, Name: b.names[rule], With: b.names[covers[0].by.rule]}
		c.Witness = &covers[0].witness
		c.Reason = fmt.Sprintf("can never match: %s (%s) comes first for every request that fits, such as %s; remove this one or make "+
			"its path "+
			"or its predicates more specific", c.With, covers[0].by.pattern.written, c.Witness)
		b.conflicts = append(b.conflicts, c)
	}
}

func (p *pattern) mayBeShadowed() bool {
	for _, s := range p.segments {
		if s.kind >= star {
			return true
		}
	}
	return false
}

// cover finds a rule in front of the place that fits whatever its rule fits. It asks the tree for what fits one sample
// path, so only rules that could be it are compared.
func (b *builder) cover(p place, reported map[int]bool) (cover, bool) {
	sample := p.entry.pattern.sampleDecoded(sampleSegment)
	if p.entry.pattern.re != nil {
		c := compare("(?s:.*)", p.entry.pattern.expression(), p.entry.pattern.domain())
		if c.decided && c.empty {
			reported[p.entry.rule] = true
			b.conflicts = append(b.conflicts, Conflict{Kind: Invalid, Rule: p.entry.rule, Other: -1, Name: b.names[p.entry.rule],
				Reason: fmt.Sprintf("can never match: no path below the base path fits ~%s; it is compared with the whole of it, "+
					"which begins with a slash", p.entry.pattern.expression())})
			return cover{}, false
		}
		if !c.decided {
			return cover{}, false
		}
		sample += strings.ReplaceAll(c.witness, "%2F", string(slashMark))
	}
	var found cover
	b.index.visit(p.root, sample, 0, func(l *leaf, _ string) bool {
		if l == p.leaf {
			return false
		}
		for _, e := range l.entries {
			if !covers(e, p.entry) {
				continue
			}
			if m := b.index.methods.meet(e, p.entry); m.meet && m.decided {
				found = cover{e, m.witness}
				found.witness.Host, found.witness.Path = p.host, encoded(sample)
				return false
			}
		}
		return true
	})
	return found, found.by != nil
}

// covers reports whether a fits whatever b fits.
func covers(a, b *entry) bool {
	if !b.implies(a) {
		return false
	}
	if a.pattern.re == nil && b.pattern.re == nil {
		return a.pattern.covers(b.pattern)
	}
	// Both stand below the base path of the one with the expression: one of the two is a leaf of the other's base.
	base := len(b.pattern.segments) - 1
	if b.pattern.re == nil {
		base = len(a.pattern.segments) - 1
	}
	if a.pattern.re != nil && len(a.pattern.segments) != base+1 {
		return false // below another base path, where it sees another part of the path
	}
	if len(a.pattern.segments) < base || len(b.pattern.segments) < base || !a.pattern.sharesLiterals(b.pattern, base) {
		return false
	}
	c := compare(a.pattern.asExpression(base), b.pattern.asExpression(base), domain{path: true, nonEmpty: base == 0})
	return c.decided && c.covered
}

func (p *pattern) sharesLiterals(q *pattern, n int) bool {
	for i := range n {
		if p.segments[i].kind != literal || p.segments[i] != q.segments[i] {
			return false
		}
	}
	return true
}

// visit calls f for the leaves that fit the path in the order of a search, with the rest of the path that expressions see,
// until f returns false.
func (x *index) visit(n *node, path string, i int, f func(*leaf, string) bool) bool {
	if i == len(path) {
		if n.end != nil && !f(n.end, "") {
			return false
		}
	} else {
		next := i + 1
		for next < len(path) && path[next] != '/' {
			next++
		}
		text := path[i+1 : next]
		below := []*node{x.edges.find(n, text)}
		if text != "" {
			below = append(below, n.capture, n.star)
		}
		for _, c := range below {
			if c != nil && !x.visit(c, path, next, f) {
				return false
			}
		}
	}
	for _, l := range []*leaf{n.expressions, n.captureAll, n.starAll} {
		if l != nil && !f(l, path[i:]) {
			return false
		}
	}
	return true
}
