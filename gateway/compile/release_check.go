package compile

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/release"
	"headgate/gateway/release/sticky"
	"headgate/gateway/upstream"
)

// check finds what is wrong with a front beside others, and with what it stands in front of. It is done for each document
// anew, also when the front is taken over.
func (r *releases) check(name string, m *model.Upstream, to release.Service) {
	plain, ok := to.(*upstream.Upstream)
	raw := ok && plain.Raw()
	if m.Split != nil {
		r.checkSplit(name, m)
	}
	if m.Sticky != nil {
		r.checkSticky(name, m, raw)
	}
	if m.Mirror != nil && raw {
		r.problem("invalid_value", "requests are copied, and the targets carry bytes and no HTTP", "upstreams", name, "mirror")
	}
}

// besideSplit are the keys of an upstream that go together with a split. What else an upstream can be told is for those
// with targets.
var besideSplit = []string{"split", "sticky", "mirror"}

func (r *releases) checkSplit(name string, m *model.Upstream) {
	upstreams := reflect.TypeFor[model.Upstream]()
	for i := range upstreams.NumField() {
		key := upstreams.Field(i).Tag.Get("yaml")
		if !slices.Contains(besideSplit, key) && r.loaded.Has("upstreams", name, key) {
			r.problem("exclusive_keys", key+" and split exclude each other: a split has no targets of its own; write "+key+
				" into the upstreams of its variants", "upstreams", name, key)
		}
	}
	for _, n := range upstream.Mentions(&model.Upstream{Split: m.Split}) {
		if s := r.next.upstreams[n.Name]; s != nil && s.upstream.Raw() {
			r.problem("invalid_value", fmt.Sprintf("the targets of %q carry bytes and no HTTP, and a split is for requests", n.Name),
				slices.Concat([]string{"upstreams", name}, n.Path)...)
		}
	}
}

func (r *releases) checkSticky(name string, m *model.Upstream, raw bool) {
	at := func(keys ...string) []string { return append([]string{"upstreams", name, "sticky"}, keys...) }
	other, taken := r.cookies[m.Sticky.Cookie]
	r.cookies[m.Sticky.Cookie] = name
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
	r.checkKeys(m.Sticky, at)
}

func (r *releases) checkKeys(m *model.Sticky, at func(...string) []string) {
	if !m.Key.Empty() && len(m.Keys) > 0 {
		r.problem("invalid_value", "key and keys exclude each other; of keys the first one signs and all are believed", at("keys")...)
	}
	seen := map[string]int{}
	for i, key := range keysOf(m) {
		place := at("key")
		if m.Key.Empty() {
			place = at("keys", strconv.Itoa(i))
		}
		if n := len(key.Reveal()); n < sticky.MinKey {
			r.problem("invalid_value", fmt.Sprintf("the key has %d characters; at least %d are needed, such as those of openssl rand -hex 32",
				n, sticky.MinKey), place...)
		} else if first, twice := seen[key.Reveal()]; twice {
			r.problem("duplicate_name", fmt.Sprintf("the key is the same as number %d; leave one out, or name the one that is to take its place",
				first+1), place...)
		} else {
			seen[key.Reveal()] = i
		}
	}
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
