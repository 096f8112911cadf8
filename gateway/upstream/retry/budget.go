package retry

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultShare is how many retries there may be for each request: an upstream of which everything fails gets a fifth more
	// and not three times its load.
	DefaultShare = 0.2
	// budgetSpan is over which time the share is reckoned.
	budgetSpan = 10 * time.Second
	// spare is how many there may be in that time besides, so that a service with few requests has retries too.
	spare = 10
)

// Budget bounds extra attempts to a share of the requests of the last ten seconds.
type Budget struct {
	share  float64
	spare  int64
	window window
	mu     sync.Mutex // for those who take, of whom there are few: the share of them that would not be is refused before
}

// NewBudget returns a budget of a share, 0 to 1.
func NewBudget(share float64) *Budget {
	return &Budget{share: min(max(share, 0), 1), spare: spare, window: window{span: budgetSpan}}
}

// Request counts a request, not its further attempts.
func (b *Budget) Request(shard uint32, now time.Duration) { b.window.add(shard, now, 0, 1) }

// Take returns whether there is one more attempt, and takes it.
func (b *Budget) Take(shard uint32, now time.Duration) bool {
	if b.Left(now) < 1 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Left(now) < 1 {
		return false
	}
	b.window.add(shard, now, 1, 1)
	return true
}

// Left is how many attempts could be taken now.
func (b *Budget) Left(now time.Duration) int64 {
	requests, taken := b.window.sum(now)
	allowed := int64(b.share * float64(requests))
	if b.share > 0 {
		allowed += b.spare
	}
	return max(allowed-taken, 0)
}

// Hedge says when to ask a second target because the first takes longer than nearly all do.
type Hedge struct {
	budget  *Budget
	cells   [shards]latencies
	delay   atomic.Int64 // 0: not known yet
	counted atomic.Int64 // when it was reckoned last
	seen    atomic.Int64 // observed while the delay was not known
	mu      sync.Mutex
	decayed [buckets]float64
}

const (
	// buckets of latencies are eight to each doubling, from 64 µs to 64 s: right to 9 %.
	buckets   = 160
	perDouble = 8
	smallest  = 64 * time.Microsecond
	// hedgeQuantile is the share of requests that is quicker than the delay.
	hedgeQuantile = 0.95
	// hedgeMargin is how much longer than that is waited: what is only just slower comes by itself, and would use up what there
	// is for those that are stuck.
	hedgeMargin = 1.5
	// HedgeShare is how much extra load is usual.
	HedgeShare = 0.05
	// hedgeEvery is how often the delay is reckoned anew, and hedgeKeep how much of what was counted stays each time.
	hedgeEvery = time.Second
	hedgeKeep  = 0.8
	// hedgeSamples are the least for a quantile that deserves the name.
	hedgeSamples = 100
)

type latencies struct {
	n [buckets]atomic.Uint32
	_ [64]byte
}

// NewHedge returns a hedge whose extra load is capped to a share of the requests, 0 to 1; unlike a retry it has no spare
// attempts beside the share.
func NewHedge(share float64) *Hedge {
	return &Hedge{budget: &Budget{share: min(max(share, 0), 1), window: window{span: budgetSpan}}}
}

// Request counts a request that might be hedged, and returns after which time without a reply Take should be asked; ok is false
// while too little is known.
func (h *Hedge) Request(shard uint32, now time.Duration) (delay time.Duration, ok bool) {
	h.budget.Request(shard, now)
	if last := h.counted.Load(); int64(now)-last >= int64(hedgeEvery) && h.counted.CompareAndSwap(last, int64(now)) {
		h.reckon()
	}
	delay = time.Duration(h.delay.Load())
	return delay, delay > 0
}

// Delay is the last that was reckoned, for people to look at; 0: too little is known.
func (h *Hedge) Delay() time.Duration { return time.Duration(h.delay.Load()) }

// Left is how many hedges could be taken now.
func (h *Hedge) Left(now time.Duration) int64 { return h.budget.Left(now) }

// Take returns whether there is one more hedge, and takes it. Do not ask when the upstream is limiting: the cure would be the
// disease.
func (h *Hedge) Take(shard uint32, now time.Duration) bool { return h.budget.Take(shard, now) }

// Observe learns how long a first attempt took, whether or not a hedge answered before it: leaving the slow ones out would
// draw the delay down and down.
func (h *Hedge) Observe(shard uint32, took time.Duration) {
	i := 0
	if took > smallest {
		i = min(int(math.Log2(float64(took)/float64(smallest))*perDouble)+1, buckets-1)
	}
	h.cells[shard%shards].n[i].Add(1)
	if h.delay.Load() == 0 && h.seen.Add(1)%hedgeSamples == 0 { // it need not wait for its time
		h.reckon()
	}
}

func (h *Hedge) reckon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := 0.0
	for i := range h.decayed {
		h.decayed[i] *= hedgeKeep
		for c := range h.cells {
			h.decayed[i] += float64(h.cells[c].n[i].Swap(0))
		}
		sum += h.decayed[i]
	}
	if sum < hedgeSamples {
		h.delay.Store(0)
		return
	}
	below := 0.0
	i := slices.IndexFunc(h.decayed[:], func(n float64) bool { below += n; return below >= hedgeQuantile*sum })
	h.delay.Store(int64(hedgeMargin * float64(smallest) * math.Exp2(float64(max(i, 0))/perDouble)))
}
