package upstream

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/balance"
	"headgate/gateway/upstream/retry"
	"headgate/internal/metric"
)

// hedging is when a second target is asked before the first one has answered.
type hedging struct {
	hedge *retry.Hedge
	after time.Duration // 0: what is observed
	sent  *metric.Counter
	won   *metric.Counter
}

func newHedging(name string, m *model.Hedge, metrics *metric.Registry) *hedging {
	if m == nil {
		return nil
	}
	label := metric.Label{Name: "upstream", Value: name}
	return &hedging{
		hedge: retry.NewHedge(float64(m.Extra) / 100), after: m.After,
		sent: metrics.Counter("headgate_upstream_hedges_total",
			"Requests for which a second target was asked before the first one had answered.", label),
		won: metrics.Counter("headgate_upstream_hedges_won_total", "Requests that were answered by the second target first.", label),
	}
}

// HedgeStatus is what operators see of the hedging of an upstream.
type HedgeStatus struct {
	AfterMS float64 `json:"after_ms"` // without an answer; 0: nobody is asked a second time yet
	Why     string  `json:"why"`
	Left    int64   `json:"budget_left"` // second requests that could be made now
	Sent    uint64  `json:"sent_total"`
	Won     uint64  `json:"won_total"`
}

func (h *hedging) status(now time.Duration) *HedgeStatus {
	if h == nil {
		return nil
	}
	s := &HedgeStatus{
		AfterMS: h.hedge.Delay().Seconds() * 1000, Why: "95 % of the answers came within two thirds of it lately",
		Left: h.hedge.Left(now), Sent: h.sent.Value(), Won: h.won.Value(),
	}
	switch {
	case h.after > 0:
		s.AfterMS, s.Why = h.after.Seconds()*1000, "the document says so"
	case s.AfterMS == 0:
		s.Why = "too few answers are known"
	}
	return s
}

// delay counts a request and returns after which time a second target is asked; ok is false while too little is known.
func (h *hedging) delay(shard uint32, now time.Duration) (delay time.Duration, ok bool) {
	delay, ok = h.hedge.Request(shard, now)
	if h.after > 0 {
		return h.after, true
	}
	return delay, ok
}

// hedgeable reports whether two targets may be asked the same: the request may be repeated and all of it is at hand.
func (a *attempt) hedgeable() bool {
	x := a.x
	return a.upstream.hedging != nil && x.Request.Upgrade == "" && (x.Request.Body.None() || a.held != nil) &&
		a.upstream.retries.rules.Repeats(x.Request.Method, hasKey(x)) && len(a.upstream.set.Load().targets) > 1
}

// race is an exchange for which one or two targets are asked. Each has a copy of the exchange, so that their replies do not
// meet, and can be ended without the other one.
type race struct {
	runs  [2]run
	ended chan *run // one message of each that was begun
}

// run is one of them.
type run struct {
	attempt
	copy   exchange.Exchange
	cancel exchange.Canceler
	at     atomic.Pointer[target] // where it is, for the other one to go elsewhere
	call   Call
	err    error
}

// Interrupt implements exchange.Interrupter: the client is gone, or its time has passed.
func (r *race) Interrupt() {
	for i := range r.runs {
		r.runs[i].cancel.Cancel()
	}
}

// raced is tries, with a second target if the first one takes longer than nearly all do.
func (a *attempt) raced() (Call, error) {
	x, u := a.x, a.upstream
	delay, ok := u.hedging.delay(x.Shard, u.coarse())
	r := &race{ended: make(chan *run, 2)}
	if x.Cancel != nil && !x.Cancel.Guard(r) {
		return nil, &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient}
	}
	r.begin(0, a)
	begun := 1
	var late <-chan time.Time
	if ok {
		t := time.NewTimer(delay)
		defer t.Stop()
		late = t.C
	}
	var best *run
	for over := 0; over < begun; {
		select {
		case <-late:
			late = nil
			if u.gate.Limiting() || !u.hedging.hedge.Take(x.Shard, u.coarse()) {
				continue
			}
			u.hedging.sent.Inc(x.Shard)
			r.begin(1, a)
			begun = 2
			continue
		case one := <-r.ended:
			over++
			good := one.err == nil && !u.retries.failed(&one.copy)
			if best == nil || good {
				if best, one = one, best; one != nil {
					one.discard()
				}
			} else {
				one.discard()
			}
			if good {
				return r.finish(a, best, begun-over)
			}
			late = nil // it has failed with all its attempts: another one is no better
		}
	}
	return r.finish(a, best, 0)
}

// begin sends a copy of the request on its way.
func (r *race) begin(i int, a *attempt) {
	one := &r.runs[i]
	one.copy = *a.x
	one.copy.Cancel, one.copy.Wire = &one.cancel, alone{a.x.Wire}
	one.copy.Usage.Attempts = 0
	if a.held != nil {
		one.copy.Request.Body.Reader = a.body()
	}
	one.attempt = attempt{upstream: a.upstream, x: &one.copy, began: a.upstream.env.Clock.Now(), held: a.held, run: one}
	if i > 0 {
		one.once = true
		if first := r.runs[0].at.Load(); first != nil {
			one.tried = new(balance.Tried)
			one.tried.Add(first.load)
		}
	}
	go func() {
		defer func() { r.ended <- one }()
		defer one.contain()
		one.call, one.err = one.tries()
	}()
}

// contain turns a panic into an error: what is wrong with one exchange must not end the gateway.
func (one *run) contain() {
	if fault := recover(); fault != nil {
		one.upstream.env.Log.Error("an exchange panicked", "id", one.x.ID, "panic", fault, "stack", string(debug.Stack()))
		one.call = nil
		one.err = &exchange.Error{Code: exchange.Internal, Source: exchange.FromGateway, Cause: fmt.Errorf("panic: %v", fault)}
	}
}

// discard ends what the run has led to.
func (one *run) discard() {
	if one.call != nil {
		one.call.Close()
	}
	one.cancel.Rest()
}

// finish makes the best run's reply that of the exchange, and ends the one that is still under way, if there is one.
func (r *race) finish(a *attempt, best *run, running int) (Call, error) {
	x, u := a.x, a.upstream
	a.target, a.took = best.target, best.took
	x.Usage.RequestBytes = best.copy.Usage.RequestBytes
	x.Usage.Attempts = r.runs[0].attempts(best) + r.runs[1].attempts(best)
	first := &r.runs[0]
	took := u.env.Clock.Now().Sub(first.began)
	u.hedging.hedge.Observe(x.Shard, took)
	if best != first {
		u.hedging.won.Inc(x.Shard)
	}
	h := &hedged{race: r, best: best, running: running, guarded: x.Cancel}
	if running > 0 {
		other := first
		if best == first {
			other = &r.runs[1]
		}
		if t := other.at.Load(); t != nil {
			t.load.Learn(u.coarse(), took, false) // that it is slow, which it will not say itself
		}
		other.cancel.Cancel()
	}
	if best.err != nil {
		h.Close()
		return nil, best.err
	}
	x.Reply = best.copy.Reply
	best.call.(interface{ Move(*exchange.Exchange) }).Move(x)
	return h, nil
}

// attempts are those of a run that was begun. Of one that is still under way at least one is known.
func (one *run) attempts(best *run) int {
	switch {
	case one == best:
		return one.copy.Usage.Attempts
	case one.at.Load() != nil:
		return 1
	}
	return 0
}

// hedged is the call of a race.
type hedged struct {
	race    *race
	best    *run
	running int
	guarded *exchange.Canceler // whose interruptions reach the race; nil: nobody's
}

// Close implements Call. It waits for the run that was ended, since that may still look at the request.
func (h *hedged) Close() {
	if c := h.guarded; c != nil {
		c.Guard(nil)
	}
	h.best.discard()
	for ; h.running > 0; h.running-- {
		(<-h.race.ended).discard()
	}
}

// alone is a client's wire as a copy of its exchange sees it: nobody is told of what comes before a reply that may not be the
// one.
type alone struct{ exchange.Wire }

// Inform implements exchange.Wire.
func (alone) Inform(*exchange.Exchange, int, *exchange.Header) error { return nil }
