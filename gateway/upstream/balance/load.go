package balance

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// latencyMemory is how long a slow answer is remembered: the moving average forgets with this time constant.
	latencyMemory = 10 * time.Second
	// failureCost is what an endpoint of which every request fails counts as, besides the time that they take, so that one
	// that fails fast does not look like a fast one.
	failureCost = 2.0 // seconds
	// failureStep is how much of the share of failures one request decides.
	failureStep = 0.1
	// failureMemory is how long failures are remembered without news: one that fails is asked less and less, and would
	// otherwise have no chance to show that it is well again.
	failureMemory = 3 * time.Second
	// peakStep is how much of a difference one answer decides that took longer than the average: a target that has become slow
	// is known after a few, and one pause of a program does not cost a target its share.
	peakStep = 0.3
	// firstGuess is what an endpoint that has not answered yet counts as once it has been asked: without it one that never
	// answers would look like the fastest and get every request.
	firstGuess = 1.0 // seconds
	// forgiveAfter is how long an endpoint is not asked before it is forgiven step by step.
	forgiveAfter = time.Second
)

// Load is what is known about one endpoint. It is written by every request, so it belongs to a target and not to a set. All
// methods are safe for concurrent use; updates of averages that race lose one of each other, which does no harm.
type Load struct {
	inFlight atomic.Int64
	latency  atomic.Uint64 // bits of a float64: seconds, moving average that rises with every answer and falls with time
	failing  atomic.Uint64 // bits of a float64: share of requests that fail, moving average
	updated  atomic.Int64  // when
	until    atomic.Int64  // ejected until
	down     atomic.Bool   // its probes say so
	joined   atomic.Int64  // when it came, or came back: slow start counts from then
	total    *Total
}

// longAgo is when those came that are in no need of a slow start.
const longAgo = math.MinInt64 / 2

// NewLoad returns what is known about an endpoint that was never asked and takes its full share at once. total may be nil.
func NewLoad(total *Total) *Load {
	l := &Load{total: total}
	l.joined.Store(longAgo)
	return l
}

// CountIn makes total the one that requests are counted in. It must be called before the first of them.
func (l *Load) CountIn(total *Total) { l.total = total }

// Join begins a slow start, on the clock of Query.Now.
func (l *Load) Join(now time.Duration) { l.joined.Store(int64(now)) }

// since is when the endpoint joined, or came back from its last ejection.
func (l *Load) since(now time.Duration) time.Duration {
	joined, until := l.joined.Load(), l.until.Load()
	if until > joined && until <= int64(now) && until != 0 {
		joined = until
	}
	return time.Duration(joined)
}

// Begin counts a request that is sent. It returns false, and counts nothing, when limit (0: none) are under way already.
func (l *Load) Begin(shard uint32, limit int64) bool {
	if n := l.inFlight.Add(1); limit > 0 && n > limit {
		l.inFlight.Add(-1)
		return false
	}
	l.total.add(shard, 1)
	return true
}

// Done ends what Begin counted.
func (l *Load) Done(shard uint32) {
	l.inFlight.Add(-1)
	l.total.add(shard, -1)
}

// InFlight is how many requests are under way.
func (l *Load) InFlight() int64 { return l.inFlight.Load() }

// Learn feeds the averages with how a request went.
func (l *Load) Learn(now, took time.Duration, failed bool) {
	share, failure := math.Float64frombits(l.failing.Load()), 0.0
	if failed {
		failure = 1
	}
	age := max(float64(int64(now)-l.updated.Load()), 0)
	if share != failure {
		share *= math.Exp(-age / float64(failureMemory))
		if share += (failure - share) * failureStep; share < 1e-3 {
			share = 0
		}
		l.failing.Store(math.Float64bits(share))
	}
	seconds, average := took.Seconds(), math.Float64frombits(l.latency.Load())
	switch {
	case average == 0:
	case seconds > average:
		seconds = average + (seconds-average)*peakStep
	default:
		keep := math.Exp(-(age + float64(time.Millisecond)) / float64(latencyMemory))
		seconds = average*keep + seconds*(1-keep)
	}
	l.latency.Store(math.Float64bits(seconds))
	l.updated.Store(int64(now))
}

// Latency is the moving average, and Failing the share of failures; both for people to look at.
func (l *Load) Latency() time.Duration {
	return time.Duration(math.Float64frombits(l.latency.Load()) * float64(time.Second))
}

// Failing is the share of requests that fail lately, 0 to 1.
func (l *Load) Failing() float64 { return math.Float64frombits(l.failing.Load()) }

// Eject leaves the endpoint out until a time on the clock of Query.Now.
func (l *Load) Eject(until time.Duration) { l.until.Store(int64(until)) }

// EjectedUntil is the end of the last ejection.
func (l *Load) EjectedUntil() time.Duration { return time.Duration(l.until.Load()) }

// SetDown leaves the endpoint out until it is called with false; then it has a slow start.
func (l *Load) SetDown(now time.Duration, down bool) {
	if l.down.Swap(down) && !down {
		l.Join(now)
	}
}

// Down reports what SetDown was called with last.
func (l *Load) Down() bool { return l.down.Load() }

// Available reports whether the endpoint is neither ejected nor down.
func (l *Load) Available(now time.Duration) bool {
	return !l.down.Load() && int64(now) >= l.until.Load()
}

// Cost is what one more request would meet, as the balancer sees it: latency and failures, for those under way and itself.
func (l *Load) Cost(now time.Duration) time.Duration {
	return time.Duration(l.cost(now, l.InFlight()) * float64(time.Second))
}

// cost is what one more request would meet, in seconds. An endpoint that was not asked for a while is forgiven step by step,
// until it is asked again.
func (l *Load) cost(now time.Duration, waiting int64) float64 {
	latency, failing := math.Float64frombits(l.latency.Load()), math.Float64frombits(l.failing.Load())
	idle := float64(int64(now) - l.updated.Load())
	switch {
	case waiting > 0 && latency == 0:
		latency = firstGuess
	case waiting == 0 && idle > float64(forgiveAfter):
		latency *= math.Exp(-idle / float64(latencyMemory))
		failing *= math.Exp(-idle / float64(failureMemory))
	}
	return (latency + failing*failureCost + 1e-6) * float64(waiting+1)
}

// totalShards is how many places a total is spread over.
const totalShards = 8

// Total counts the requests under way at all endpoints of an upstream, spread over shards.
type Total struct {
	cells [totalShards]struct {
		n atomic.Int64
		_ [56]byte
	}
}

func (t *Total) add(shard uint32, n int64) {
	if t != nil {
		t.cells[shard%totalShards].n.Add(n)
	}
}

// Value is the sum over the shards.
func (t *Total) Value() (sum int64) {
	for i := range t.cells {
		sum += t.cells[i].n.Load()
	}
	return sum
}
