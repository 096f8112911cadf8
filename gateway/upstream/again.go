package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/balance"
	"headgate/gateway/upstream/retry"
	"headgate/internal/metric"
	"headgate/internal/text"
)

// retries is when requests are sent again.
type retries struct {
	rules   *retry.Rules
	budget  *retry.Budget
	backoff retry.Backoff
	body    int64 // longest that is kept to be sent again
	made    *metric.Counter
	refused *metric.Counter
}

func newRetries(name string, m *model.Retry, metrics *metric.Registry) (retries, error) {
	o := retry.Options{Statuses: m.Statuses, Anyhow: m.NonIdempotent, Attempts: m.Attempts, Longest: m.MaxAfter}
	if o.Longest == 0 {
		o.Longest = -1 // the document's 0 is none
	}
	var errs []error
	for _, on := range m.On {
		o.On = append(o.On, retry.FailureNamed(on))
	}
	for i, s := range m.Statuses {
		if s < 400 || s > 599 {
			errs = append(errs, decode.At(fmt.Sprintf("retry.statuses.%d", i), "%d is no failure; write statuses from 400 to 599", s))
		}
	}
	for i, name := range m.GRPC {
		code := slices.Index(retry.GRPCCodes(), name)
		if code < 0 {
			errs = append(errs, decode.At(fmt.Sprintf("retry.grpc.%d", i), "%q is no code of gRPC; write %s%s", name,
				text.List(retry.GRPCCodes()), text.DidYouMean(name, retry.GRPCCodes())))
		}
		o.GRPC = append(o.GRPC, code+1)
	}
	label := metric.Label{Name: "upstream", Value: name}
	return retries{
		rules: retry.NewRules(o), budget: retry.NewBudget(float64(m.Budget) / 100),
		backoff: retry.Backoff{Base: m.Backoff, Most: m.MaxBackoff}, body: int64(m.Body),
		made: metrics.Counter("headgate_upstream_retries_total", "Requests that were sent to a target again.", label),
		refused: metrics.Counter("headgate_upstream_retries_refused_total",
			"Requests that were not sent again because the budget of retries was spent.", label),
	}, errors.Join(errs...)
}

// RetryStatus is what operators see of the retries of an upstream.
type RetryStatus struct {
	Attempts int    `json:"attempts"`          // at most, for one request
	Left     int64  `json:"budget_left"`       // retries that could be made now
	Made     uint64 `json:"made_total"`        // since the start
	Refused  uint64 `json:"over_budget_total"` // that were not made because the budget was spent
}

func (r *retries) status(now time.Duration) RetryStatus {
	return RetryStatus{r.rules.Most(), r.budget.Left(now), r.made.Value(), r.refused.Value()}
}

// failed reports whether the reply that has come is taken for a failure.
func (r *retries) failed(x *exchange.Exchange) bool {
	s := x.Reply.Status
	return s >= 400 && r.rules.Failed(s, -1) || s == 200 && x.Reply.Body.None() && r.rules.Failed(0, grpcStatus(x))
}

// grpcStatus is the code of a gRPC reply that has no message; -1: it is no such reply.
func grpcStatus(x *exchange.Exchange) int {
	s, ok := x.Reply.Header.Lookup("Grpc-Status")
	if !ok || len(s) == 0 || len(s) > 2 {
		return -1
	}
	code := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return -1
		}
		code = 10*code + int(c-'0')
	}
	return code
}

// again prepares another attempt after one that has failed with err or, without an error, with a reply that is taken for a
// failure. It returns false where another one is not right, cannot be made, or would be one too many.
func (a *attempt) again(err error) bool {
	x, u := a.x, a.upstream
	if a.tried == nil {
		a.tried = new(balance.Tried)
	}
	a.tried.Add(a.target.load)
	f := a.failure(err)
	was := retry.Attempt{Failure: f, Method: x.Request.Method, Key: hasKey(x), Whole: a.sendable(), Number: a.number, GRPC: -1}
	if err == nil {
		was.Status, was.RetryAfter = x.Reply.Status, x.Reply.Header.Get("Retry-After")
		if was.Status == 200 {
			was.GRPC = grpcStatus(x)
		}
	}
	now := u.env.Clock.Now()
	right, wait := u.retries.rules.Again(&was, now)
	if !right {
		return false
	}
	if err == nil && u.gate.Limiting() { // it has too much to do, and its answer said so
		return false
	}
	if f != retry.Connect && !u.retries.budget.Take(x.Shard, u.env.Sweeper.Coarse()) {
		u.retries.refused.Inc(x.Shard)
		return false
	}
	others := u.set.Load().others(a.tried)
	if !others && f == retry.Connect { // nobody else, and asking the same once more tells nothing new
		return false
	}
	if wait > 0 || err == nil || !others || f == retry.Timeout {
		if u.config.Retry.Backoff > 0 {
			wait = u.retries.backoff.Pause(a.number, rand.Uint64(), wait)
		}
		if !a.rest(now, wait) {
			return false
		}
	}
	next, _ := u.pick(x, a.tried)
	if next == nil && f != retry.Connect {
		next, _ = u.pick(x, nil)
	}
	if next == nil {
		return false
	}
	u.retries.made.Inc(x.Shard)
	a.number++
	a.target = next
	a.rewind(err == nil)
	return true
}

// others reports whether there are targets that have not been tried.
func (s *set) others(not *balance.Tried) bool {
	for i, t := range s.targets {
		if s.wanted[i].weight > 0 && !not.Has(t.load) {
			return true
		}
	}
	return false
}

// failure says what is known about the last try.
func (a *attempt) failure(err error) retry.Failure {
	if err == nil {
		return retry.None
	}
	var e *exchange.Error
	switch {
	case !errors.As(err, &e):
		return retry.OwnFault
	case e.Code == exchange.UpstreamBusy:
		return retry.Connect
	case e.Source != exchange.FromUpstream:
		return retry.OwnFault
	}
	switch e.Code {
	case exchange.UpstreamUnreachable, exchange.UpstreamUnresolved, exchange.UpstreamUntrusted:
		return retry.Connect
	case exchange.UpstreamTimeout:
		return retry.Timeout
	case exchange.UpstreamClosed:
		if a.unprocessed() {
			return retry.Refused
		}
		return retry.Reset
	}
	return retry.OwnFault
}

// hasKey reports whether the client says that the request may be repeated (draft-ietf-httpapi-idempotency-key-header).
func hasKey(x *exchange.Exchange) bool { return x.Request.Header.Has("Idempotency-Key") }

// hold reads a request's body that may have to be sent again, if it is short enough: the target that fails while it is being
// sent is not the last chance then.
func (a *attempt) hold() error {
	x, r := a.x, &a.upstream.retries
	b := &x.Request.Body
	if b.Reader == nil || b.Length <= 0 || b.Length > r.body || r.rules.Most() == 1 || x.Request.Upgrade != "" ||
		!r.rules.Repeats(x.Request.Method, hasKey(x)) {
		return nil
	}
	if whole, ok := b.Reader.(*bytes.Reader); ok { // in memory: a policy, or the fallback, has read it
		a.held = whole
		b.Reader = a.body()
		return nil
	}
	if x.Request.Expect {
		x.Request.Expect = false
		var none exchange.Header
		if err := x.Wire.Inform(x, 100, &none); err != nil {
			return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
		}
	}
	if x.Cancel != nil {
		x.Cancel.Guard(x.Wire) // a client that does not send must not outlast the exchange's time
		defer x.Cancel.Guard(nil)
	}
	whole := make([]byte, b.Length)
	if _, err := io.ReadFull(b.Reader, whole); err != nil {
		return err
	}
	if err := end(b.Reader); err != nil {
		return err
	}
	a.held = bytes.NewReader(whole)
	b.Reader = a.body()
	return nil
}

// body returns the body that is held, from its beginning.
func (a *attempt) body() *bytes.Reader {
	r := *a.held // which shares the bytes and not the place
	return &r
}

// end reads the end of a body of which every byte was read, and with it its trailer section.
func end(r io.Reader) error {
	var none [1]byte
	switch _, err := io.ReadFull(r, none[:]); err {
	case io.EOF:
		return nil
	case nil:
		return errMore
	default:
		return err
	}
}

var errMore = errors.New("the body is longer than its Content-Length")

// sendable reports whether the request can be sent to another target as it was.
func (a *attempt) sendable() bool {
	switch {
	case a.call == nil && a.shared == nil, a.x.Request.Body.None(), a.held != nil:
		return true
	case !a.suitsAll():
		return false
	case a.overH2:
		return a.shared.Repeatable()
	}
	return a.whole
}

// rewind makes the request as it was before the first attempt; replied: its reply is given up.
func (a *attempt) rewind(replied bool) {
	x := a.x
	if replied {
		if a.overH2 {
			a.shared.Discard()
		} else {
			a.call.Discard()
		}
		x.Reply.Header.Reset("")
		x.Reply.Trailer.Reset("")
		x.Reply.Status, x.Reply.Body, x.Reply.Switched = 0, exchange.Body{}, nil
		x.Request.Streaming = false
	}
	if a.suitsAll() && (a.held == nil || a.whole && !a.overH2) {
		return // the prepared calls can be made again
	}
	a.drop()
	a.call, a.shared, a.overH2, a.whole = nil, nil, false, false
	x.Usage.RequestBytes = 0 // counted again as it is sent
	if a.held != nil {
		x.Request.Body.Reader = a.body()
	}
}

// rest waits before the next attempt. It returns false when there is no use in it: the client is gone, or its time will be.
func (a *attempt) rest(now time.Time, pause time.Duration) bool {
	if pause <= 0 {
		return true
	}
	var canceled <-chan struct{}
	if c := a.x.Cancel; c != nil {
		if at, ok := c.Until(); ok && now.Add(pause).After(at) {
			return false
		}
		canceled = c.Context().Done()
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-canceled:
		return false
	}
}
