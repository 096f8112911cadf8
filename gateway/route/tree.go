package route

import (
	"slices"
	"strings"

	"headgate/gateway/exchange"
)

// index finds entries. Each host has a tree of its own.
type index struct {
	methods   methods
	edges     edges
	exact     map[string]*node
	wildcard  map[string]*node // by the suffix behind "*."
	anyHost   *node
	maxLabels int // of the wildcard suffixes
}

// node is a place in the tree of segments.
type node struct {
	text        string // the literal that leads here
	id          uint32 // as the beginning of literal edges
	from        uint32 // the id of its parent, if a literal leads here
	literals    uint32 // children by literals
	only        *node  // the child, if there is one alone
	capture     *node
	star        *node
	end         *leaf
	expressions *leaf
	captureAll  *leaf
	starAll     *leaf
}

// leaf has the entries of one place, the most specific first.
type leaf struct {
	alone   *entry // the one entry, if there are not more
	entries []*entry
	heads   []*entry // the order for HEAD, if an entry lists HEAD itself: it goes before one that lists GET
}

func fill[V any](p **V) *V {
	if *p == nil {
		*p = new(V)
	}
	return *p
}

// insert returns the leaf of the pattern below n, creating what is missing.
func (x *index) insert(n *node, p *pattern) *leaf {
	for _, s := range p.segments {
		switch s.kind {
		case literal:
			n = x.edges.add(n, s.text)
		case capture:
			n = fill(&n.capture)
		case star:
			n = fill(&n.star)
		case expression:
			return fill(&n.expressions)
		case captureAll:
			return fill(&n.captureAll)
		case starAll:
			return fill(&n.starAll)
		}
	}
	return fill(&n.end)
}

// search is one request looking for its rule.
type search struct {
	index  *index
	path   string // decoded
	query  string
	header *exchange.Header
	params []exchange.Param
	bit    uint64 // the method
	allow  uint64 // methods of entries that fit but for the method
	steps  int    // nodes visited
	head   bool
	mark   bool // the path has encoded slashes
}

// run tries the trees of the host, the most specific first.
func (s *search) run(host string) *entry {
	raw := strings.IndexByte(s.path, '%') < 0
	if !raw {
		var ok bool
		if s.path, ok = decoded(s.path); !ok {
			return nil
		}
		s.mark = strings.IndexByte(s.path, slashMark) >= 0
	}
	if s.path == "" || s.path[0] != '/' {
		return nil
	}
	if len(s.index.exact)+len(s.index.wildcard) > 0 {
		host = bareHost(host)
		if root := s.index.exact[host]; root != nil {
			if e := s.tree(root); e != nil {
				return e
			}
		}
		if e := s.wildcards(host); e != nil {
			return e
		}
	}
	if s.index.anyHost != nil {
		return s.tree(s.index.anyHost)
	}
	return nil
}

func (s *search) wildcards(host string) *entry {
	if len(s.index.wildcard) == 0 {
		return nil
	}
	skip := strings.Count(host, ".") - s.index.maxLabels // dots in front of the longest suffix that there is
	for {
		i := strings.IndexByte(host, '.')
		if i < 0 {
			return nil
		}
		first := i > 0
		host = host[i+1:]
		if skip--; skip >= 0 || !first {
			continue
		}
		if root := s.index.wildcard[host]; root != nil {
			if e := s.tree(root); e != nil {
				return e
			}
		}
	}
}

func (s *search) tree(root *node) *entry {
	base := len(s.params)
	e := s.at(root, 0)
	if e == nil {
		return nil
	}
	if e.re != nil {
		if len(e.names) > 0 {
			s.groups(e)
		}
		return e
	}
	for i, name := range e.names {
		s.params[base+i].Name = name
	}
	if s.mark {
		for i := base; i < len(s.params); i++ {
			s.params[i].Value = strings.ReplaceAll(s.params[i].Value, string(slashMark), "/")
		}
	}
	return e
}

// at looks below n for the path from i on, which is at a slash or at the end. A node is reached by one way only, so a
// search visits each at most once, whatever the path.
func (s *search) at(n *node, i int) *entry {
	s.steps++
	kept := len(s.params)
	if i == len(s.path) {
		if n.end != nil {
			if e := s.leaf(n.end, ""); e != nil {
				return e
			}
		}
	} else {
		next := i + 1
		for next < len(s.path) && s.path[next] != '/' {
			next++
		}
		text := s.path[i+1 : next]
		if c := s.index.edges.find(n, text); c != nil {
			if e := s.at(c, next); e != nil {
				return e
			}
		}
		if n.capture != nil && text != "" {
			s.params = append(s.params, exchange.Param{Value: text})
			if e := s.at(n.capture, next); e != nil {
				return e
			}
			s.params = s.params[:kept]
		}
		if n.star != nil && text != "" {
			if e := s.at(n.star, next); e != nil {
				return e
			}
		}
	}
	return s.rest(n, i, kept)
}

// rest tries what takes the whole rest of the path.
func (s *search) rest(n *node, i, kept int) *entry {
	if n.expressions != nil {
		if e := s.leaf(n.expressions, s.below(i)); e != nil {
			s.params = s.params[:kept]
			return e
		}
	}
	if n.captureAll != nil {
		if e := s.leaf(n.captureAll, ""); e != nil {
			s.params = append(s.params, exchange.Param{Value: s.path[min(i+1, len(s.path)):]})
			return e
		}
	}
	if n.starAll != nil {
		return s.leaf(n.starAll, "")
	}
	return nil
}

// below is the path from i on as expressions see it.
func (s *search) below(i int) string {
	if s.mark {
		return strings.ReplaceAll(s.path[i:], string(slashMark), "%2F")
	}
	return s.path[i:]
}

func (s *search) leaf(l *leaf, rest string) *entry {
	if e := l.alone; e != nil {
		if s.fits(e, rest) {
			return e
		}
		return nil
	}
	for _, e := range l.order(s.head) {
		if s.fits(e, rest) {
			return e
		}
	}
	return nil
}

// fits reports whether the entry fits, and notes its methods when they are all that does not.
func (s *search) fits(e *entry, rest string) bool {
	fits := e.anyMethod || e.methods&s.bit != 0
	if !fits && e.methods&^s.allow == 0 {
		return false // nothing to learn from it
	}
	if e.re != nil && !e.re.MatchString(rest) || !e.accepts(s.header, s.query) {
		return false
	}
	if !fits {
		s.allow |= e.methods
	}
	return fits
}

// groups captures the named groups of the entry's expression.
func (s *search) groups(e *entry) {
	rest, depth := s.path, len(e.pattern.segments)-1
	at := 0
	for range depth { // skip the base path
		at = 1 + at
		for at < len(rest) && rest[at] != '/' {
			at++
		}
	}
	text := s.below(at)
	found := e.re.FindStringSubmatchIndex(text)
	for i, name := range e.names {
		if from := found[2*(i+1)]; name != "" && from >= 0 {
			s.params = append(s.params, exchange.Param{Name: name, Value: text[from:found[2*(i+1)+1]]})
		}
	}
}

// sort brings a leaf's entries into order.
func (l *leaf) sort() {
	if len(l.entries) == 1 {
		l.alone = l.entries[0]
		return
	}
	slices.SortFunc(l.entries, compareEntries)
	if !slices.ContainsFunc(l.entries, func(e *entry) bool { return e.explicit&bitHEAD != 0 }) {
		return
	}
	l.heads = slices.Clone(l.entries)
	slices.SortStableFunc(l.heads, func(a, b *entry) int {
		if a.count != b.count {
			return b.count - a.count
		}
		return int(b.explicit&bitHEAD) - int(a.explicit&bitHEAD)
	})
}
