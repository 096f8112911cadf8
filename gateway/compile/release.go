package compile

import (
	"crypto/rand"
	"fmt"
	random "math/rand/v2"
	"reflect"
	"slices"

	"headgate/config/model"
	"headgate/gateway/engine"
	"headgate/gateway/exchange"
	"headgate/gateway/release"
	"headgate/gateway/release/sticky"
	"headgate/gateway/upstream"
)

// releases is the building of what stands in front of upstreams or in place of them. It is done for each document anew:
// it holds no connection, and its numbers are kept by the registry of metrics.
type releases struct {
	*job
	env     release.Env
	done    map[string]release.Service // nil: there were problems, or it is being built
	cookies map[string]string          // who has the cookie of that name
	live    []func()                   // when the document goes live
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
	var s release.Service
	raw := false
	if plain := r.next.upstreams[name]; plain != nil {
		s, raw = plain.upstream, plain.upstream.Raw()
	}
	if m.Split != nil {
		s = r.split(name, &m)
	}
	if m.Sticky != nil {
		s = r.sticky(name, &m, s, raw)
	}
	if m.Mirror != nil {
		s = r.mirror(name, &m, s, raw)
	}
	r.done[name] = s
	return s
}

// mirror puts a mirror in front of a service. Its copies are waited for before anything that they ask is closed.
func (r *releases) mirror(name string, m *model.Upstream, s release.Service, raw bool) release.Service {
	other, hide := r.service(m.Mirror.Upstream), ""
	if m.Sticky != nil {
		hide = m.Sticky.Cookie
	}
	if raw {
		r.problem("invalid_value", "requests are copied, and the targets carry bytes and no HTTP", "upstreams", name, "mirror")
		return nil
	}
	mirror, err := release.NewMirror(name, m.Mirror, s, other, hide, r.env)
	if err != nil {
		r.locate(err, "upstreams", name, "mirror")
	}
	if err != nil || s == nil || other == nil {
		return nil
	}
	r.hold(&unit{close: []func() error{mirror.Close}})
	return mirror
}

// split builds a split, whose options are all that it has: what else an upstream can be told is for those with targets.
func (r *releases) split(name string, m *model.Upstream) release.Service {
	found := len(r.problems)
	r.checkSplit(name)
	to := map[string]release.Service{}
	for _, n := range upstream.Mentions(&model.Upstream{Split: m.Split}) {
		to[n.Name] = r.service(n.Name)
		if s := r.next.upstreams[n.Name]; s != nil && s.upstream.Raw() {
			r.problem("invalid_value", fmt.Sprintf("the targets of %q carry bytes and no HTTP, and a split is for requests", n.Name),
				slices.Concat([]string{"upstreams", name}, n.Path)...)
		}
	}
	s, err := release.NewSplit(name, m.Split, to, r.env)
	if err != nil {
		r.locate(err, "upstreams", name, "split")
	}
	if len(r.problems) > found || err != nil {
		return nil
	}
	return s
}

// besideSplit are the keys of an upstream that go together with a split.
var besideSplit = []string{"split", "sticky", "mirror"}

func (r *releases) checkSplit(name string) {
	upstreams := reflect.TypeFor[model.Upstream]()
	for i := range upstreams.NumField() {
		key := upstreams.Field(i).Tag.Get("yaml")
		if !slices.Contains(besideSplit, key) && r.loaded.Has("upstreams", name, key) {
			r.problem("exclusive_keys", key+" and split exclude each other: a split has no targets of its own; write "+key+
				" into the upstreams of its variants", "upstreams", name, key)
		}
	}
}

// sticky puts a cookie in front of a service.
func (r *releases) sticky(name string, m *model.Upstream, s release.Service, raw bool) release.Service {
	at := func(keys ...string) []string { return append([]string{"upstreams", name, "sticky"}, keys...) }
	found := len(r.problems)
	other, taken := r.cookies[m.Sticky.Cookie]
	r.cookies[m.Sticky.Cookie] = name
	key := m.Sticky.Key.Reveal()
	switch {
	case raw:
		r.problem("invalid_value", "cookies are a matter of HTTP, and the targets carry bytes; balance by consistent-hash keeps a client "+
			"at its target", at()...)
	case taken:
		r.problem("duplicate_name", fmt.Sprintf("upstream %q pins its clients by the cookie %q, too, and each would undo the other's; "+
			"write another name, such as cookie: %s-%s", other, m.Sticky.Cookie, m.Sticky.Cookie, cookieName(name)), at("cookie")...)
	case m.Split != nil && m.Split.Cookie == m.Sticky.Cookie:
		r.problem("duplicate_name", fmt.Sprintf("the cookie %q pins clients, and cannot name a variant as well; write another name",
			m.Split.Cookie), "upstreams", name, "split", "cookie")
	}
	if !m.Sticky.Key.Empty() && len(key) < sticky.MinKey {
		r.problem("invalid_value", fmt.Sprintf("the key has %d characters; at least %d are needed, such as those of openssl rand -hex 32",
			len(key), sticky.MinKey), at("key")...)
	}
	if s == nil || len(r.problems) > found {
		return nil
	}
	c := sticky.New(name, m.Sticky)
	r.live = append(r.live, func() { r.compiler.lendKey(c, name, []byte(key)) })
	return release.NewPinned(c, s, r.env)
}

// cookieName is an upstream's name as far as it may stand in a cookie's.
func cookieName(upstream string) string {
	b := []byte(upstream)
	for i, c := range b {
		if !exchange.IsToken(c) {
			b[i] = '-'
		}
	}
	return string(b)
}

// lendKey gives a cookie its key once the document is live: one that is only checked makes none.
func (c *Compiler) lendKey(cookie *sticky.Cookie, name string, key []byte) {
	if len(key) == 0 {
		var err error
		if key, err = c.options.Sticky.Key(); err != nil {
			c.options.Log.Warn("sticky cookies are signed by a key that no other node and no restart knows; "+
				"set sticky.key, or HEADGATE_STATE to a folder", "upstream", name, "error", err)
		}
	}
	if len(key) > 0 {
		cookie.Use(key)
	}
}

// front is what a route that names the upstream asks in its place; nil: the upstream itself, or nobody.
func (r *releases) front(name string) engine.Service {
	s := r.done[name]
	if _, plain := s.(*upstream.Upstream); s == nil || plain {
		return nil
	}
	return s
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
