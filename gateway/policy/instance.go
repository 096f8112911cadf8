package policy

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
)

// Instance is one policy of a chain: its hooks and the envelope that every policy has.
type Instance struct {
	Kind, Name   string
	Stage        Stage
	Hooks        Hooks
	When         func(*exchange.Exchange) (bool, error) // nil: always
	Shadow       bool                                   // evaluate and record, but let pass
	AllowOnError bool                                   // what follows a Fail: go on, or refuse
	Log          *slog.Logger
	Metrics      *metric.Registry
	Labels       []metric.Label // api, policy
	Origin       string         // where it is written, such as apis.shop.policies[0]
	Condition    string         // When as it is written

	decisions [decisions]atomic.Pointer[metric.Counter]
}

type decision uint8

const (
	decidedAnswer decision = iota
	decidedFailure
	decidedShadowAnswer
	decidedShadowFailure
	decisions
)

var decisionNames = [decisions]string{"answered", "failed", "shadow_answered", "shadow_failed"}

// applies reports whether the policy is in force for the exchange. Where its condition has no answer, what guards does
// guard, and what only shapes or remembers replies leaves them alone.
func (i *Instance) applies(x *exchange.Exchange) bool {
	if i.When == nil {
		return true
	}
	yes, err := i.When(x)
	if err != nil {
		return i.Stage < Shape
	}
	return yes
}

// run asks Now and, only if that cannot tell without waiting, Later.
func (s *Step) run(x *exchange.Exchange) Verdict {
	v := Wait
	if s.Now != nil {
		v = s.Now(x)
	}
	if v.outcome == wait && s.Later != nil {
		v = s.Later(x.Context(), x)
	}
	return v
}

// settle turns a verdict into whether the exchange goes on.
func (i *Instance) settle(x *exchange.Exchange, v Verdict) bool {
	switch v.outcome {
	case goOn:
		return true
	case answered:
		i.count(decidedAnswer, x.Shard)
		return false
	}
	i.count(decidedFailure, x.Shard)
	i.Log.Warn("a policy failed", "id", x.ID, "allowed", i.AllowOnError, "error", v.err)
	if i.AllowOnError {
		return true
	}
	code := exchange.PolicyUnavailable
	if own, ok := errors.AsType[*exchange.Error](v.err); ok { // the policy knows better what is not available
		code = own.Code
	}
	x.Problem(code, "")
	x.Err = &exchange.Error{Code: code, Source: exchange.FromGateway, Cause: fmt.Errorf("%s: %w", i.Name, v.err)}
	return false
}

// rehearse evaluates a policy in shadow mode: what it would have done is counted, what it changed is put back, and a panic
// is only a failure that it would have had.
func (i *Instance) rehearse(x *exchange.Exchange) {
	if !i.applies(x) {
		return
	}
	request, consumer, claims := x.Request, x.Consumer, x.Claims
	var header exchange.Header
	header.CopyFrom(&x.Request.Header)
	v := i.tryRequest(x)
	x.Request, x.Consumer, x.Claims = request, consumer, claims
	x.Request.Header.CopyFrom(&header)
	unanswer(x)
	switch v.outcome {
	case answered:
		i.count(decidedShadowAnswer, x.Shard)
	case failed:
		i.count(decidedShadowFailure, x.Shard)
	}
}

func (i *Instance) tryRequest(x *exchange.Exchange) (v Verdict) {
	defer func() {
		if r := recover(); r != nil {
			i.Log.Error("a policy in shadow mode panicked", "id", x.ID, "panic", r, "stack", string(debug.Stack()))
			v = Fail(fmt.Errorf("panic: %v", r))
		}
	}()
	return i.Hooks.Request.run(x)
}

// finish runs the Done hook and reports whether it returned without a panic, which is logged.
func (i *Instance) finish(x *exchange.Exchange) (returned bool) {
	defer func() {
		if returned {
			return
		}
		if r := recover(); r != nil {
			i.Log.Error("a policy panicked when an exchange was done", "id", x.ID, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	i.Hooks.Done(x)
	return true
}

// count makes the counter when there is something to count: most policies of most routes never refuse anybody.
func (i *Instance) count(d decision, shard uint32) {
	c := i.decisions[d].Load()
	if c == nil {
		labels := append([]metric.Label{{Name: "outcome", Value: decisionNames[d]}}, i.Labels...)
		c = i.Metrics.Counter("headgate_policy_decisions_total", "Exchanges that a policy answered or failed on.", labels...)
		i.decisions[d].Store(c)
	}
	c.Inc(shard)
}
