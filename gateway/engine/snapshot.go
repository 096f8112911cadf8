package engine

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/grpc"
	"headgate/gateway/policy"
	"headgate/gateway/record"
	"headgate/gateway/release"
	"headgate/gateway/route"
	"headgate/gateway/upstream"
	"headgate/gateway/wire/tunnel"
)

// Snapshot is a compiled document: immutable, pinned by every exchange for its whole life, closed when the last exchange
// of an outdated one has ended.
type Snapshot struct {
	Version  string    // of the document: a short hash of its content
	Compiled time.Time // when
	Table    *route.Table[*Route]
	NotFound *Route   // carries the policies of every request, and answers 404
	Routes   []*Route // all of them, for status and explain
	Doors    map[string]*Door
	Behind   []*upstream.Upstream // that are reached through other upstreams: variants, mirrors, fallbacks
	Fronts   []release.Front      // that are asked in place of upstreams
	OnSwap   []func()             // run when the snapshot becomes the current one
	OnClose  []func() error       // run when the last exchange has ended

	pins    [pinShards]pin
	retired atomic.Bool
	once    sync.Once
	drained chan struct{} // closed when nobody holds the retired snapshot
}

// NewSnapshot returns an empty snapshot to be filled before it is swapped in.
func NewSnapshot() *Snapshot {
	return &Snapshot{Doors: map[string]*Door{}, drained: make(chan struct{})}
}

// Service answers exchanges in place of an upstream or in front of one: a split, a sticky cookie, a mirror. It does what
// upstream.Upstream does.
type Service interface {
	Send(x *exchange.Exchange) (upstream.Call, error)
}

// Route is what one kind of request leads to. Exactly one of Upstream, Release and Answer is asked for the reply.
type Route struct {
	Info     *exchange.Route
	Name     string // where it stands in the document, such as apis.shop.routes["list orders"]
	Match    string // METHOD /path, for people
	Chain    *policy.Chain
	Slots    int                           // of the chain's policies
	Rewrite  func(*exchange.Exchange) bool // nil: the path goes on byte for byte; false: it would come out ambiguous
	Upstream *upstream.Upstream            // asked, unless there is a Release; nil with a split, which has none of its own
	Release  Service                       // asked in place of Upstream; nil: nothing stands in front of it
	Answer   func(*exchange.Exchange)      // fills the reply: fixed answers, redirects
	Meter    *record.RouteMeter
	GRPC     *grpc.Settings // of calls; nil: they are not limited and not translated
	Upgrades *tunnel.Plan   // of requests to switch to another protocol; nil: there are none
}

// pinShards spreads the pins so that cores do not write to one cache line; a power of two.
const pinShards = 16

type pin struct {
	n atomic.Int64
	_ [56]byte
}

// pinned returns how many exchanges hold the snapshot.
func (s *Snapshot) pinned() int64 {
	var sum int64
	for i := range s.pins {
		sum += s.pins[i].n.Load()
	}
	return sum
}

// send asks what the route leads to. Most often that is an upstream, which is called without a detour.
func (r *Route) send(x *exchange.Exchange) (upstream.Call, error) {
	if r.Release != nil {
		return r.Release.Send(x)
	}
	return r.Upstream.Send(x)
}

// Upstreams returns every upstream that a route or a TCP listener leads to, at once or through another one, each once.
func (s *Snapshot) Upstreams() []*upstream.Upstream {
	var list []*upstream.Upstream
	seen := map[*upstream.Upstream]bool{}
	add := func(u *upstream.Upstream) {
		if u != nil && !seen[u] {
			seen[u] = true
			list = append(list, u)
		}
	}
	for _, r := range s.Routes {
		add(r.Upstream)
	}
	for _, u := range s.Behind {
		add(u)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Doors)) {
		for _, w := range s.Doors[name].TCP.all() {
			add(w.Upstream)
		}
	}
	return list
}
