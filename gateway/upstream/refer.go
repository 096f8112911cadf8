package upstream

import (
	"maps"
	"slices"
	"sync/atomic"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// Mention is a place of an upstream's document that names another upstream.
type Mention struct {
	Path []string // below the upstream
	Name string
}

// Mentions returns whom a document names: the variants of a split, a mirror and a fallback.
func Mentions(m *model.Upstream) []Mention {
	var list []Mention
	if m.Split != nil {
		for _, name := range slices.Sorted(maps.Keys(m.Split.Variants)) {
			list = append(list, Mention{[]string{"split", "variants", name, "upstream"}, m.Split.Variants[name].Upstream})
		}
	}
	if m.Mirror != nil {
		list = append(list, Mention{[]string{"mirror", "upstream"}, m.Mirror.Upstream})
	}
	if m.Fallback != nil && m.Fallback.Upstream != "" {
		list = append(list, Mention{[]string{"fallback", "upstream"}, m.Fallback.Upstream})
	}
	return list
}

// Ref is another upstream by its name. It leads to the one of that name of the document that is live, also when its own
// upstream is older than that and was taken over.
type Ref struct {
	Name string
	to   atomic.Pointer[Place]
}

// Place is where a reference leads to in the document that is live: an upstream with targets, or a split, which chooses one
// for each exchange. The zero value is nowhere.
type Place struct {
	Upstream *Upstream
	Split    Split // nil: it is none
}

// Split chooses an upstream of the same document for an exchange; nil: none. settle, if it is not nil, is told once what became
// of the exchange there.
type Split func(x *exchange.Exchange) (to *Upstream, settle func(error))

// Borrow returns the upstream for an exchange, which will not be closed before Return is called for it with the exchange's
// shard; nil: no document with it is live, or a split chooses nobody. It is for the time of Send or Dial: calls that still run
// when an upstream is closed end by themselves. settle, if it is not nil, is to be called with what came of it.
func (r *Ref) Borrow(x *exchange.Exchange) (u *Upstream, settle func(error)) {
	for {
		p := r.to.Load()
		if p == nil {
			return nil, nil
		}
		if u = p.Upstream; p.Split != nil {
			u, settle = p.Split(x)
		}
		if u == nil {
			return nil, nil
		}
		u.loans.begin(x.Shard)
		if r.to.Load() == p { // who replaces it closes it afterwards, and sees the loan
			return u, settle
		}
		u.Return(x.Shard)
	}
}

// Return ends a loan.
func (u *Upstream) Return(shard uint32) {
	u.loans.end(shard)
	u.shutUnlent()
}

// Ref returns the reference to an upstream that the document mentions; nil: it does not.
func (u *Upstream) Ref(name string) *Ref { return u.refs[name] }

// Bind makes the references lead to places of a document that is about to go live. Every name is in it: compiling has seen to
// that.
func (u *Upstream) Bind(find func(name string) Place) {
	for name, r := range u.refs {
		r.to.Store(new(find(name)))
	}
}

func refsOf(m *model.Upstream) map[string]*Ref {
	refs := map[string]*Ref{}
	for _, n := range Mentions(m) {
		refs[n.Name] = &Ref{Name: n.Name}
	}
	return refs
}

// loanShards is how many places the count of loans is spread over.
const loanShards = 8

// loans counts who uses an upstream by a reference, and so without holding the document that it belongs to.
type loans struct {
	shards [loanShards]struct {
		n atomic.Int64
		_ [56]byte
	}
	over atomic.Bool // the upstream is to be shut with the last loan
}

func (l *loans) begin(shard uint32) { l.shards[shard%loanShards].n.Add(1) }

func (l *loans) end(shard uint32) { l.shards[shard%loanShards].n.Add(-1) }

func (l *loans) none() bool {
	n := int64(0)
	for i := range l.shards {
		n += l.shards[i].n.Load()
	}
	return n == 0
}

// shutUnlent shuts the upstream once it is to be shut and lent to nobody. Shutting it again does nothing.
func (u *Upstream) shutUnlent() {
	if u.loans.over.Load() && u.loans.none() {
		u.shut()
	}
}

// Closed reports whether the upstream has been shut: its probes have ended, and it keeps no connection.
func (u *Upstream) Closed() bool {
	u.changing.Lock()
	defer u.changing.Unlock()
	return u.closed
}
