package pool

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/gateway/wire/h1"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// Settings are what the pools of an upstream's targets have in common.
type Settings struct {
	Upstream string // its name, for metrics
	Sweeper  *sock.Sweeper
	Clock    clock.Clock
	Metrics  *metric.Registry

	Protocol string        // as in the document, as is Proxy
	Proxy    string        // the version of the PROXY protocol
	Connect  time.Duration // for everything that comes before the first byte of HTTP
	Pool     model.Pool
	HTTP2    model.HTTP2Out

	Random func() float64 // in [0, 1); nil: the machine's
	Lookup Lookup         // nil: the machine's resolver
	Dial   Dial           // nil: TCP
}

// Group is the pools of an upstream's targets: what they share is the number of idle connections, over either version of HTTP.
type Group struct {
	settings Settings
	idle     budget
	mu       sync.Mutex
	muxes    map[*mux]struct{} // of all targets over HTTP/2
	// Observed when a connection is opened. They are made with the first one, since most upstreams have no handshakes.
	connects, handshakes func() *metric.Histogram
}

// NewGroup returns the group of an upstream whose targets have no pools yet.
func NewGroup(s Settings) *Group {
	g := &Group{settings: s, muxes: map[*mux]struct{}{}}
	if s.Random == nil {
		g.settings.Random = rand.Float64
	}
	if s.Lookup == nil {
		g.settings.Lookup = lookup
	}
	if s.Dial == nil {
		g.settings.Dial = dialer(s.Pool.KeepAlive)
	}
	g.idle.limit = int64(s.Pool.IdleTotal)
	label := metric.Label{Name: "upstream", Value: s.Upstream}
	g.connects = sync.OnceValue(func() *metric.Histogram {
		return s.Metrics.Histogram("headgate_upstream_connect_duration_seconds",
			"How long it took to open TCP connections to targets, without those that failed.", durations[:], label)
	})
	g.handshakes = sync.OnceValue(func() *metric.Histogram {
		return s.Metrics.Histogram("headgate_upstream_handshake_duration_seconds",
			"How long TLS handshakes with targets took, without those that failed.", durations[:], label)
	})
	return g
}

// durations are the bounds of the histograms, in seconds: a network of one room, of one continent, and lost packets, which
// are sent again after 1 and 3 seconds.
var durations = [...]float64{.0002, .0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2, 4, 10}

// New returns the empty pool of a target. plan says how calls to it are made, and ready whether it takes requests: to one
// that does not, no connection is opened ahead.
func (g *Group) New(e Endpoint, plan *h1.Plan, id *Identity, ready func() bool) *Pool {
	return g.pool(e, plan, id, &record{ready: ready, idle: idleTime{most: g.settings.Pool.IdleTimeout}})
}

// age returns when a connection that is opened at now is not to be used again; 0: there is no such time. Ages differ by a
// tenth either way, so that connections that were opened together do not end together.
func (s *Settings) age(now time.Duration) time.Duration {
	if s.Pool.MaxAge == 0 {
		return 0
	}
	return now + time.Duration(float64(s.Pool.MaxAge)*(0.9+0.2*s.Random()))
}

// budget holds the idle connections of all targets together to the document's number. Places in it are taken when a stack of
// idle connections grows higher than it was, and given back by Tidy: a connection that comes and goes touches nothing that
// all cores share.
type budget struct {
	limit int64
	taken atomic.Int64
	tight atomic.Bool // a place was refused, and there has been no slack since
}

// take takes a place; false: there is none.
func (b *budget) take() bool {
	if b.taken.Add(1) <= b.limit {
		return true
	}
	b.taken.Add(-1)
	b.tight.Store(true)
	return false
}

// give gives places back. With a quarter of them free there is slack again.
func (b *budget) give(n int) {
	if b.taken.Add(-int64(n)) < b.limit*3/4 && b.tight.Load() {
		b.tight.Store(false)
	}
}
