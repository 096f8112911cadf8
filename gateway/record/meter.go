package record

import (
	"sync"
	"sync/atomic"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
)

// maxRoutes bounds the routes and upstreams with numbers of their own; those beyond share one.
const maxRoutes = 100_000

// bounds are the upper bounds of the duration histograms, in seconds: fine where a gateway lives, coarse where it waits.
var bounds = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

const buckets = 14 // len(bounds)+1

// classes are the status classes by their first digit; the first is for exchanges without a reply.
var classes = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// The numbers of one route: together three cache lines.
const (
	routeClass   = 0
	routeBucket  = routeClass + len(classes)
	routeNanos   = routeBucket + buckets
	routeIn      = routeNanos + 1
	routeOut     = routeIn + 1
	routeAborted = routeOut + 1
	routeWords   = routeAborted + 1
)

// The numbers of one upstream.
const (
	upstreamClass  = 0
	upstreamBucket = upstreamClass + len(classes)
	upstreamNanos  = upstreamBucket + buckets
	upstreamRetry  = upstreamNanos + 1
	upstreamError  = upstreamRetry + 1
	upstreamWords  = upstreamError + len(upstreamErrors)
)

// upstreamErrors are the kinds of failures of an upstream, by the name of their problem; the last is for all others.
var upstreamErrors = [...]string{
	exchange.UpstreamUnreachable.Name, exchange.UpstreamUnresolved.Name, exchange.UpstreamInvalid.Name, exchange.UpstreamClosed.Name,
	exchange.UpstreamTimeout.Name, exchange.NoTarget.Name, "other",
}

// grpcStatuses are the status codes of gRPC by number.
var grpcStatuses = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
	"UNAUTHENTICATED",
}

// series is the numbers of one route or upstream. They take memory when the first exchange ends.
type series struct {
	key     seriesKey
	uses    int // by meters, under meters.mu
	numbers atomic.Pointer[metric.Pack]
	calls   atomic.Pointer[metric.Pack] // of gRPC, by status; takes memory with the first call
}

// seriesKey is an API and a route, or an upstream's name alone.
type seriesKey struct{ api, name string }

func (s *series) at(shard uint32, words int) []atomic.Uint64 { return packAt(&s.numbers, shard, words) }

func packAt(at *atomic.Pointer[metric.Pack], shard uint32, words int) []atomic.Uint64 {
	p := at.Load()
	if p == nil {
		at.CompareAndSwap(nil, metric.NewPack(words))
		p = at.Load()
	}
	return p.At(shard)
}

// RouteMeter counts the exchanges of one compiled route. The engine keeps it with the route, hands it to End and releases
// it with the snapshot.
type RouteMeter struct {
	meters   *meters
	route    *series
	upstream *series // nil: the route answers without one
	released atomic.Bool
}

// meters holds the numbers of all routes and upstreams, across reloads.
type meters struct {
	mu        sync.Mutex
	routes    map[seriesKey]*series
	upstreams map[seriesKey]*series
}

func newMeters() *meters {
	return &meters{routes: map[seriesKey]*series{}, upstreams: map[seriesKey]*series{}}
}

// meter returns a meter of the route with these names. A route that was there before goes on with its numbers.
func (m *meters) meter(route *exchange.Route) *RouteMeter {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &RouteMeter{meters: m, route: acquire(m.routes, seriesKey{route.API, route.Name})}
	if route.Upstream != "" {
		r.upstream = acquire(m.upstreams, seriesKey{name: route.Upstream})
	}
	return r
}

func acquire(all map[seriesKey]*series, key seriesKey) *series {
	s := all[key]
	if s == nil && len(all) >= maxRoutes {
		key = seriesKey{"(other)", "(other)"}
		s = all[key]
	}
	if s == nil {
		s = &series{key: key}
		all[key] = s
	}
	s.uses++
	return s
}

func release(all map[seriesKey]*series, s *series) {
	if s.uses--; s.uses == 0 {
		delete(all, s.key)
	}
}

// Release says that the snapshot of this meter has drained. The numbers of a route that no snapshot has any more are forgotten.
// Further calls do nothing.
func (r *RouteMeter) Release() {
	if r.released.Swap(true) {
		return
	}
	r.meters.mu.Lock()
	defer r.meters.mu.Unlock()
	release(r.meters.routes, r.route)
	if r.upstream != nil {
		release(r.meters.upstreams, r.upstream)
	}
}

// count counts one exchange that has ended.
func (r *RouteMeter) count(x *exchange.Exchange, d time.Duration) {
	n := r.route.at(x.Shard, routeWords)
	n[routeClass+class(status(x))].Add(1)
	n[routeBucket+bucket(d)].Add(1)
	n[routeNanos].Add(uint64(d))
	if x.Usage.RequestBytes > 0 {
		n[routeIn].Add(uint64(x.Usage.RequestBytes))
	}
	if x.Usage.ReplyBytes > 0 {
		n[routeOut].Add(uint64(x.Usage.ReplyBytes))
	}
	if x.Usage.Aborted {
		n[routeAborted].Add(1)
	}
	if code, ok := x.Usage.GRPC.Code(); ok && code < len(grpcStatuses) {
		packAt(&r.route.calls, x.Shard, len(grpcStatuses))[code].Add(1)
	}
	// That no target is left is found by the gateway, but it is the upstream's failure.
	failed := x.Err != nil && (x.Err.Source == exchange.FromUpstream || x.Err.Code.Name == exchange.NoTarget.Name)
	if r.upstream != nil && (x.Usage.Attempts > 0 || failed) {
		r.countUpstream(x, failed)
	}
}

func (r *RouteMeter) countUpstream(x *exchange.Exchange, failed bool) {
	n := r.upstream.at(x.Shard, upstreamWords)
	answer := 0
	if x.Reply.Source == exchange.FromUpstream {
		answer = class(x.Reply.Status)
	}
	n[upstreamClass+answer].Add(1)
	if answer > 0 {
		n[upstreamBucket+bucket(x.Usage.UpstreamTime)].Add(1)
		n[upstreamNanos].Add(uint64(max(0, x.Usage.UpstreamTime)))
	}
	if x.Usage.Attempts > 1 {
		n[upstreamRetry].Add(uint64(x.Usage.Attempts - 1))
	}
	if failed {
		kind := 0
		for kind < len(upstreamErrors)-1 && upstreamErrors[kind] != x.Err.Code.Name {
			kind++
		}
		n[upstreamError+kind].Add(1)
	}
}

func class(status int) int {
	if c := status / 100; c > 0 && c < len(classes) {
		return c
	}
	return 0
}

// bucketNanos are bounds in nanoseconds.
var bucketNanos = func() (n [buckets - 1]time.Duration) {
	for i, b := range bounds {
		n[i] = time.Duration(b * float64(time.Second))
	}
	return n
}()

func bucket(d time.Duration) int {
	i := 0
	for i < len(bucketNanos) && d > bucketNanos[i] {
		i++
	}
	return i
}
