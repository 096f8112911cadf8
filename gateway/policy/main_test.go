package policy_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	missing = exchange.Code{Name: "key_missing", Status: 401, Title: "No key."}
	wrong   = exchange.Code{Name: "key_wrong", Status: 401, Title: "Wrong key."}
	errDown = errors.New("the store is down")
)

// bench is where policies are put together for a test, with what they did and what was logged and counted.
type bench struct {
	calls   []string
	log     strings.Builder
	metrics *metric.Registry
	x       *exchange.Exchange
}

func newBench() *bench {
	b := &bench{metrics: metric.NewRegistry(), x: &exchange.Exchange{ID: "id-1"}}
	b.x.MakeSlots(8)
	return b
}

// instance returns a policy of that name whose request step does what f does.
func (b *bench) instance(name string, stage policy.Stage, f func(*exchange.Exchange) policy.Verdict) *policy.Instance {
	i := &policy.Instance{
		Kind: name, Name: name, Stage: stage, Log: slog.New(slog.NewTextHandler(&b.log, nil)), Metrics: b.metrics,
		Labels: []metric.Label{{Name: "api", Value: "shop"}, {Name: "policy", Value: name}},
	}
	if f != nil {
		i.Hooks.Request.Now = func(x *exchange.Exchange) policy.Verdict {
			b.calls = append(b.calls, name)
			return f(x)
		}
	}
	return i
}

// waiting is instance for a policy that asks to wait.
func (b *bench) waiting(name string, f func(*exchange.Exchange) policy.Verdict) *policy.Instance {
	i := b.instance(name, policy.Identify, func(*exchange.Exchange) policy.Verdict { return policy.Wait })
	i.Hooks.Request.Later = func(_ context.Context, x *exchange.Exchange) policy.Verdict {
		b.calls = append(b.calls, name+" later")
		return f(x)
	}
	return i
}

// called returns what was called since the last time, and forgets it.
func (b *bench) called() string {
	s := strings.Join(b.calls, ", ")
	b.calls = nil
	return s
}

// decisions returns how often a policy's decision was counted.
func (b *bench) decisions(name, outcome string) uint64 {
	return b.metrics.Counter("headgate_policy_decisions_total", "", metric.Label{Name: "outcome", Value: outcome},
		metric.Label{Name: "api", Value: "shop"}, metric.Label{Name: "policy", Value: name}).Value()
}

func pass(*exchange.Exchange) policy.Verdict { return policy.Continue }

func down(*exchange.Exchange) policy.Verdict { return policy.Fail(errDown) }

// refuse refuses with a code and a way to log in.
func refuse(code exchange.Code, challenge string) func(*exchange.Exchange) policy.Verdict {
	return func(x *exchange.Exchange) policy.Verdict {
		v := policy.Refuse(x, code, "")
		x.Reply.Header.Add("WWW-Authenticate", challenge)
		return v
	}
}

func expectCalls(t *testing.T, b *bench, want string) {
	t.Helper()
	if got := b.called(); got != want {
		t.Errorf("called %q, want %q", got, want)
	}
}
