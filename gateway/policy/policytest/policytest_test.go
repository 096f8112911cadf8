package policytest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config is the options of the policies that are tested here.
type config struct {
	Limit int `yaml:"limit" doc:"A limit."`
}

type hooks = func(config, policy.Env) (policy.Hooks, error)

func now(f func(*exchange.Exchange) policy.Verdict) policy.Hooks {
	return policy.Hooks{Request: policy.Step{Now: f}}
}

// bad are policies that break a promise each, and what the contract must say about them.
var bad = map[string]struct {
	build hooks
	want  string
}{
	"sleeps": {func(config, policy.Env) (policy.Hooks, error) {
		return now(func(*exchange.Exchange) policy.Verdict { time.Sleep(time.Millisecond); return policy.Continue }), nil
	}, "Request.Now waited for 1ms"},
	"dials": {func(_ config, e policy.Env) (policy.Hooks, error) {
		return now(func(*exchange.Exchange) policy.Verdict {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			r, _ := http.NewRequestWithContext(ctx, "GET", "http://keys.example.com", nil)
			if answer, err := e.HTTP.Do(r); err == nil {
				answer.Body.Close()
			}
			return policy.Continue
		}), nil
	}, "Now asked http://keys.example.com"},
	"asks for a Later that it has not": {func(config, policy.Env) (policy.Hooks, error) {
		return now(func(*exchange.Exchange) policy.Verdict { return policy.Wait }), nil
	}, "asks for Later, which there is none of"},
	"ignores its context": {func(config, policy.Env) (policy.Hooks, error) {
		return policy.Hooks{Request: policy.Step{Later: func(ctx context.Context, _ *exchange.Exchange) policy.Verdict {
			if _, bubble := ctx.Deadline(); bubble {
				time.Sleep(time.Minute) // in the bubble only, where a minute is over at once
			}
			return policy.Continue
		}}}, nil
	}, "Request.Later went on for 50s after its context had ended"},
	"does not give back": {func(config, policy.Env) (policy.Hooks, error) {
		var running atomic.Int64
		h := now(func(x *exchange.Exchange) policy.Verdict {
			if running.Add(1) > 20 {
				return policy.Refuse(x, exchange.TooManyConnections, "")
			}
			return policy.Continue
		})
		h.Response.Now = func(*exchange.Exchange) policy.Verdict { running.Add(-1); return policy.Continue }
		return h, nil
	}, "after a panic behind, 25 times"},
	"leaves a goroutine": {func(config, policy.Env) (policy.Hooks, error) {
		stop := make(chan struct{})
		go func() { <-stop }()
		return policy.Hooks{}, nil
	}, "found unexpected goroutines"},
	"starts afresh": {func(_ config, e policy.Env) (policy.Hooks, error) {
		policy.Keep(e, fmt.Sprint(time.Now().UnixNano()), func() *int { return new(int) })
		return policy.Hooks{}, nil
	}, "something was started afresh"},
	"answers with an undeclared code": {func(config, policy.Env) (policy.Hooks, error) {
		return now(func(x *exchange.Exchange) policy.Verdict {
			return policy.Refuse(x, exchange.Code{Name: "surprise", Status: 400, Title: "Surprise."}, "")
		}), nil
	}, `answers with "surprise"`},
	"names its metrics badly": {func(_ config, e policy.Env) (policy.Hooks, error) {
		e.Metrics.Counter("headgate_things", "Things.", append(e.Labels, metric.Label{Name: "x", Value: "y"})...)
		return policy.Hooks{}, nil
	}, "headgate_things"},
}

const goodReadme = `# kind
## Name
a
## Description
a
## Options
<!-- options -->
<!-- /options -->
## Examples
` + "```yaml\nupstreams: {u: 'http://127.0.0.1:1'}\napis: {a: {upstream: u, policies: [kind]}}\n```" + `
## Metrics
None.
## Cost
a
## See also
a
`

// run holds one kind to the contract.
func run(t *testing.T, build hooks) {
	kind := policy.New(policy.Spec[config]{Name: "kind", Summary: "A kind.", Stage: policy.Limit, Build: build})
	hold(&contract{kind: kind, readme: parseReadme("README.md", goodReadme)}, t)
}

func TestTheContractAcceptsAPolicyThatKeepsIt(t *testing.T) {
	run(t, func(config, policy.Env) (policy.Hooks, error) {
		return now(func(*exchange.Exchange) policy.Verdict { return policy.Continue }), nil
	})
}

// TestTheContractRefusesWhatBreaksIt runs itself as another process for each broken policy, since a failing test cannot
// be looked at from inside.
func TestTheContractRefusesWhatBreaksIt(t *testing.T) {
	if name := os.Getenv("BROKEN_POLICY"); name != "" {
		run(t, bad[name].build)
		return
	}
	for name, b := range bad {
		t.Run(name, func(t *testing.T) {
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.timeout=1m", "-test.run=^TestTheContractRefusesWhatBreaksIt$")
			child.Env = append(os.Environ(), "BROKEN_POLICY="+name)
			out, err := child.CombinedOutput()
			if err == nil || !strings.Contains(string(out), b.want) {
				t.Errorf("the contract ends with %v and does not say %q:\n%s", err, b.want, out)
			}
		})
	}
}

func TestAReadmeWithoutItsSectionsIsRefused(t *testing.T) {
	r := parseReadme("README.md", strings.Replace(goodReadme, "## Cost\na\n", "", 1))
	if strings.Join(r.Order, ",") != "Name,Description,Options,Examples,Metrics,See also" || len(r.Examples) != 1 {
		t.Errorf("read %q and %d examples", r.Order, len(r.Examples))
	}
}

func TestAChainOfNilHooksAllocatesNothing(t *testing.T) {
	w := New(t)
	kind := policy.New(policy.Spec[config]{Name: "kind", Build: func(config, policy.Env) (policy.Hooks, error) { return policy.Hooks{}, nil }})
	var instances []*policy.Instance
	for range 10 {
		instances = append(instances, w.instance(kind, policy.Hooks{}))
	}
	chain, x := policy.NewChain(instances), Request("GET /")
	body := strings.NewReader("")
	n := testing.AllocsPerRun(100, func() {
		chain.Request(x)
		chain.RequestBody(x, body)
		chain.Response(x)
		chain.ResponseBody(x, body)
		chain.Done(x)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRunHoldsABodyThatThePolicyAsksFor(t *testing.T) {
	w := New(t)
	kind := policy.New(policy.Spec[config]{Name: "kind", Build: func(config, policy.Env) (policy.Hooks, error) {
		h := now(func(x *exchange.Exchange) policy.Verdict {
			if x.Request.Body.Length != 4 {
				return policy.Refuse(x, exchange.BadRequest, "")
			}
			return policy.Continue
		})
		h.BufferLimit = 8
		return h, nil
	}})
	p := w.Build(kind, "")
	defer p.Close()
	for body, want := range map[string]int{"four": 200, "more than eight": 413} {
		x := WithBody(Request("POST /"), "text/plain", body)
		x.Request.Body.Length = -1
		if out := p.Run(x, Reply(200, "text/plain", "ok")); out.Status != want || out.Asked != (want == 200) {
			t.Errorf("%q is answered %d", body, out.Status)
		}
	}
}
