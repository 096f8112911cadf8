package compile

import (
	"fmt"
	"slices"
	"strings"

	"headgate/gateway/exchange"
	"headgate/gateway/release"
	"headgate/gateway/upstream"
	"headgate/internal/text"
)

// mentions checks the upstreams that others name: in a split, as a mirror or a fallback. They must exist, speak what the one
// speaks that names them, and must not lead back to it, or a request could go round for ever.
func (j *job) mentions() {
	names := j.loaded.Objects("upstreams")
	walk := cycles{job: j, done: map[string]bool{}}
	for _, name := range names {
		m := j.loaded.Document.Upstreams[name]
		for _, n := range upstream.Mentions(&m) {
			j.mention(name, n, names)
		}
		walk.from(name)
	}
}

// mention checks one of them.
func (j *job) mention(name string, n upstream.Mention, names []string) {
	path := append([]string{"upstreams", name}, n.Path...)
	from, to := j.next.upstreams[name], j.next.upstreams[n.Name]
	switch {
	case n.Name == name:
		j.problem("upstream_cycle", "an upstream cannot lead to itself; name another one", path...)
	case !slices.Contains(names, n.Name):
		hint := text.DidYouMean(n.Name, names)
		if hint == "" {
			hint = j.upstreamNames()
		}
		j.problem("unknown_upstream", fmt.Sprintf("there is no upstream %q%s", n.Name, hint), path...)
	case n.Path[0] == "fallback" && j.loaded.Document.Upstreams[n.Name].Split != nil && from != nil && from.upstream.Raw():
		j.problem("invalid_value", fmt.Sprintf("%q is a split, which shares requests, and the targets of %q carry bytes; "+
			"name an upstream with tcp:// targets, which shares connections by their weights", n.Name, name), path...)
	case from == nil || to == nil: // one of them has problems of its own
	case from.upstream.Raw() != to.upstream.Raw():
		j.problem("invalid_value", fmt.Sprintf("of %q and %q one carries bytes and the other one HTTP; both must have tcp:// targets, or none",
			name, n.Name), path...)
	}
}

// cycles walks from upstream to upstream, each once.
type cycles struct {
	*job
	done map[string]bool // all that it leads to is known
	way  []string        // that was walked
}

func (c *cycles) from(name string) {
	if c.done[name] {
		return
	}
	c.way = append(c.way, name)
	m := c.loaded.Document.Upstreams[name]
	for _, n := range upstream.Mentions(&m) {
		at := slices.Index(c.way, n.Name)
		if at < 0 {
			c.from(n.Name)
			continue
		}
		if n.Name == name { // which mention tells
			continue
		}
		circle := strings.Join(append(c.way[at:len(c.way):len(c.way)], n.Name), ", then ")
		c.problem("upstream_cycle", "upstreams lead to each other in a circle: "+circle+"; leave one of these out",
			append([]string{"upstreams", name}, n.Path...)...)
	}
	c.way = c.way[:len(c.way)-1]
	c.done[name] = true
}

// place is what references between upstreams lead to. A document that is live does not change any more.
func (l live) place(name string) upstream.Place {
	if s := l.upstreams[name]; s != nil {
		return upstream.Place{Upstream: s.upstream}
	}
	if f := l.fronts[name]; f != nil && f.split != nil {
		return upstream.Place{Split: func(x *exchange.Exchange) (*upstream.Upstream, func(error)) { return l.pick(x, f.split) }}
	}
	return upstream.Place{}
}

// pick chooses a variant, and of one that is a split itself again; splits lead to each other in no circle.
func (l live) pick(x *exchange.Exchange, s *release.Split) (*upstream.Upstream, func(error)) {
	name, outer := s.Pick(x)
	p := l.place(name)
	if p.Split == nil {
		return p.Upstream, outer
	}
	to, inner := p.Split(x)
	return to, func(err error) {
		outer(err)
		if inner != nil {
			inner(err)
		}
	}
}
