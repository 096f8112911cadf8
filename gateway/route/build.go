package route

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
)

// rulesPerTurn is after how many rules building lets others run: a reload on one core must not hold up requests.
const rulesPerTurn = 256

// Build makes a table of the rules, or says everything that stands against it.
func Build[T any](rules []Rule[T]) (*Table[T], []Conflict) {
	t := &Table[T]{values: make([]T, len(rules))}
	b := builder{index: &t.index, names: make([]string, len(rules))}
	b.index.methods.names = slices.Clone(commonMethods)
	b.index.exact, b.index.wildcard = map[string]*node{}, map[string]*node{}
	for i := range rules {
		if i%rulesPerTurn == 0 {
			runtime.Gosched()
		}
		r := &rules[i]
		t.values[i], b.names[i] = r.Value, r.Name
		if part, err := b.add(i, r.Hosts, r.Base, r.Path, r.Methods, r.Headers, r.Query); err != nil {
			b.conflicts = append(b.conflicts, Conflict{Kind: Invalid, Rule: i, Other: -1, Name: r.Name, Part: part, Reason: err.Error()})
		}
	}
	b.index.edges.freeze()
	b.check()
	if len(b.conflicts) > 0 {
		return nil, b.conflicts
	}
	return t, nil
}

// place is where an entry stands.
type place struct {
	entry *entry
	leaf  *leaf
	root  *node
	host  string // a name that leads to the root; "": any
}

type builder struct {
	index     *index
	names     []string
	places    []place
	leaves    []place // each leaf once; entry is its first
	conflicts []Conflict
	budget    int // comparisons left
}

// add puts a rule into the trees. On error it names the part of the rule that is wrong.
func (b *builder) add(
	rule int, hosts []string, base, path string, methods []string, headers, query map[string]string,
) (part string, err error) {
	patterns, err := parsePattern(base, path)
	if err != nil {
		if errors.As(err, new(*baseError)) {
			return "base", err
		}
		return "path", err
	}
	e := entry{rule: rule, anyMethod: len(methods) == 0}
	if e.explicit, err = b.index.methods.intern(methods); err != nil {
		return "methods", err
	}
	if e.methods = e.explicit; e.methods&bitGET != 0 {
		e.methods |= bitHEAD
	}
	if e.headers, err = parsePredicates("header", headers, true); err != nil {
		return "headers", err
	}
	if e.query, err = parsePredicates("query parameter", query, false); err != nil {
		return "query", err
	}
	e.weigh()
	roots, err := b.roots(hosts)
	if err != nil {
		return "hosts", err
	}
	for i := range patterns {
		own := e
		own.pattern, own.re, own.names = &patterns[i], patterns[i].re, patterns[i].names
		for _, p := range roots {
			p.entry, p.leaf = &own, b.index.insert(p.root, own.pattern)
			if len(p.leaf.entries) == 0 {
				b.leaves = append(b.leaves, p)
			}
			p.leaf.entries = append(p.leaf.entries, p.entry)
			b.places = append(b.places, p)
		}
	}
	return "", nil
}

// roots returns the trees of the hosts, each once.
func (b *builder) roots(hosts []string) (all []place, err error) {
	if len(hosts) == 0 {
		return []place{{root: fill(&b.index.anyHost)}}, nil
	}
	seen := map[*node]bool{}
	for _, host := range hosts {
		name, wildcard, err := parseHost(host)
		if err != nil {
			return nil, err
		}
		p, trees := place{host: name}, b.index.exact
		if wildcard {
			p.host, trees = "any."+name, b.index.wildcard
			b.index.maxLabels = max(b.index.maxLabels, labels(name))
		}
		if trees[name] == nil {
			trees[name] = new(node)
		}
		if p.root = trees[name]; seen[p.root] {
			return nil, fmt.Errorf("the host %q is given twice", host)
		}
		seen[p.root] = true
		all = append(all, p)
	}
	return all, nil
}

func labels(name string) int {
	n := 1
	for i := range len(name) {
		if name[i] == '.' {
			n++
		}
	}
	return n
}

// check sorts the leaves, looks for conflicts and prepares the Allow lists.
func (b *builder) check() {
	b.budget = maxComparisons
	b.index.methods.allows = map[uint64]string{}
	reported := map[int]bool{}
	for i, p := range b.leaves {
		if i%rulesPerTurn == 0 {
			runtime.Gosched()
		}
		p.leaf.sort()
		var all uint64
		for _, e := range p.leaf.entries {
			all |= e.methods
			b.allowOf(e.methods)
		}
		b.allowOf(all)
		b.ambiguous(p, reported)
	}
	b.shadowed(reported)
	slices.SortFunc(b.conflicts, func(x, y Conflict) int { return x.Rule - y.Rule })
}

func (b *builder) allowOf(mask uint64) {
	if m := &b.index.methods; mask != 0 && m.allows[mask] == "" {
		m.allows[mask] = m.list(mask)
	}
}
