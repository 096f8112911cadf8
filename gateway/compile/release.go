package compile

import (
	"crypto/rand"
	"maps"
	random "math/rand/v2"
	"slices"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/engine"
	"headgate/gateway/release"
	"headgate/gateway/release/sticky"
	"headgate/gateway/upstream"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/secret"
)

// releases is the building of what stands in front of upstreams or in place of them. What did not change, and leads to the
// same services as before, is taken over with the copies that it has under way.
type releases struct {
	*job
	env     release.Env
	done    map[string]release.Service // nil: there were problems, or it is being built
	cookies map[string]string          // who has the cookie of that name
	live    []func()                   // when the document goes live
}

// front is what is asked in place of an upstream, as a unit.
type front struct {
	unit
	release.Front
	hash decode.Hash
	over []release.Service // that it was put together from, by their order in the document

	split *release.Split // inside; nil: it is none
}

// releases builds all of them, once the upstreams are there.
func (j *job) releases() *releases {
	o := &j.compiler.options
	r := &releases{
		job: j, done: map[string]release.Service{}, cookies: map[string]string{},
		env: release.Env{Expr: o.Expr, Clock: o.Clock, Log: o.Log, Metrics: o.Metrics, Random: random.Uint64},
	}
	for _, name := range j.loaded.Objects("upstreams") {
		r.service(name)
	}
	return r
}

// service returns what is asked for an upstream's answer; nil: there were problems.
func (r *releases) service(name string) release.Service {
	if s, known := r.done[name]; known {
		return s
	}
	r.done[name] = nil // a circle ends here; mentions tells it
	m, ok := r.loaded.Document.Upstreams[name]
	if !ok {
		return nil
	}
	var plain release.Service
	if u := r.next.upstreams[name]; u != nil {
		plain = u.upstream
	}
	if m.Split == nil && m.Sticky == nil && m.Mirror == nil {
		r.done[name] = plain
		return plain
	}
	r.check(name, &m, plain)
	f := &front{Front: release.Front{Name: name}, hash: r.loaded.Hash("upstreams", name), over: []release.Service{plain}}
	for _, n := range upstream.Mentions(&model.Upstream{Split: m.Split, Mirror: m.Mirror}) {
		f.over = append(f.over, r.service(n.Name)) // held before what asks them, so that it is closed before them
	}
	before := r.compiler.liveFront(name)
	switch {
	case before != nil && before.hash == f.hash && slices.Equal(before.over, f.over) && r.take(&before.unit):
		f = before
	case !r.build(f, &m):
		return nil
	}
	r.next.fronts[name], r.done[name] = f, f.Service
	return f.Service
}

func (c *Compiler) liveFront(name string) *front {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live.fronts[name]
}

// build puts a front together, from the inside to the outside. It finds the mistakes of all its parts, also when it cannot
// be built because what it leads to has some.
func (r *releases) build(f *front, m *model.Upstream) bool {
	r.count.Fronts++
	f.Service = f.over[0]
	if m.Split != nil {
		if f.split = r.split(f.Name, m); f.split == nil {
			f.Service = nil
		} else {
			f.Service = f.split
		}
	}
	if m.Sticky != nil {
		f.Service = r.sticky(f.Name, m, f.Service)
	}
	if m.Mirror != nil {
		f.Service = r.mirror(f, m, f.Service)
	}
	if len(r.problems) > 0 || f.Service == nil { // no document with problems goes live
		return false
	}
	r.hold(&f.unit)
	return true
}

// mirror puts a mirror in front of a service. Its copies are waited for before anything that they ask is closed.
func (r *releases) mirror(f *front, m *model.Upstream, s release.Service) release.Service {
	hide := ""
	if m.Sticky != nil {
		hide = m.Sticky.Cookie
	}
	mirror, err := release.NewMirror(f.Name, m.Mirror, s, r.done[m.Mirror.Upstream], hide, r.env)
	if err != nil {
		r.locate(err, "upstreams", f.Name, "mirror")
	}
	if err != nil || s == nil {
		return nil
	}
	f.close = append(f.close, mirror.Close)
	return mirror
}

// split builds a split.
func (r *releases) split(name string, m *model.Upstream) *release.Split {
	to := map[string]release.Service{}
	for _, v := range m.Split.Variants {
		to[v.Upstream] = r.done[v.Upstream]
	}
	s, err := release.NewSplit(name, m.Split, to, r.env)
	if err != nil {
		r.locate(err, "upstreams", name, "split")
		return nil
	}
	return s
}

// sticky puts a cookie in front of a service.
func (r *releases) sticky(name string, m *model.Upstream, s release.Service) release.Service {
	if s == nil {
		return nil
	}
	c := sticky.New(name, m.Sticky)
	r.live = append(r.live, func() { r.compiler.lendKeys(c, name, m.Sticky) })
	return release.NewPinned(c, s, r.env)
}

// lendKeys gives a cookie its keys once the document is live: one that is only checked makes none.
func (c *Compiler) lendKeys(cookie *sticky.Cookie, name string, m *model.Sticky) {
	var keys [][]byte
	for _, k := range keysOf(m) {
		keys = append(keys, []byte(k.Reveal()))
	}
	if len(keys) == 0 {
		own, err := c.options.Sticky.Key()
		if err != nil {
			c.options.Log.Warn("sticky cookies are signed by a key that no other node and no restart knows; "+
				"set sticky.key, or HEADGATE_STATE to a folder", "upstream", name, "error", err)
		}
		if len(own) > 0 {
			keys = append(keys, own)
		}
	}
	if len(keys) > 0 {
		cookie.Use(keys...)
	}
}

// keysOf are those that the document names, the one that signs first.
func keysOf(m *model.Sticky) []secret.String {
	if !m.Key.Empty() {
		return []secret.String{m.Key}
	}
	return m.Keys
}

// front is what a route that names the upstream asks in its place; nil: the upstream itself, or nobody.
func (r *releases) front(name string) engine.Service {
	if f := r.next.fronts[name]; f != nil {
		return f.Service
	}
	return nil
}

// sortedFronts are those of a document, by their names.
func (l *live) sortedFronts() (list []release.Front) {
	for _, name := range slices.Sorted(maps.Keys(l.fronts)) {
		list = append(list, l.fronts[name].Front)
	}
	return list
}

// behind are the upstreams that are reached through others.
func (j *job) behind() (list []*upstream.Upstream) {
	for _, name := range j.loaded.Objects("upstreams") {
		m := j.loaded.Document.Upstreams[name]
		for _, n := range upstream.Mentions(&m) {
			if s := j.next.upstreams[n.Name]; s != nil {
				list = append(list, s.upstream)
			}
		}
	}
	return list
}

// newKeyring is the keyring of a compiler that is given none.
func newKeyring() *sticky.Keyring { return sticky.NewKeyring("", rand.Reader) }

// collectFronts tells at each scrape what changes by time alone.
func collectFronts(c clock.Clock, fronts []release.Front) func(metric.Emit) {
	return func(emit metric.Emit) {
		now := c.Now()
		for _, f := range fronts {
			f.Collect(now, emit)
		}
	}
}
