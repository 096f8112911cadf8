// Package policytest runs policies without a network: in a world with a clock that stands still, the real chain, real
// expressions, metrics and counters, and consumers that a test names.
//
// A policy's own tests build it from its options as a document has them, and send it exchanges:
//
//	w := policytest.New(t)
//	w.Consumers.Add(&exchange.Consumer{Name: "ada"}, policytest.Key("k1"))
//	p := w.Build(apikey.Kind, `{required: true}`)
//	out := p.Run(policytest.Request("GET /orders", "X-Api-Key: k1"), policytest.Reply(200, "text/plain", "hello"))
//
// Contract holds every policy of the catalogue to what policy.Hooks promises.
package policytest

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/gateway/expr"
	"headgate/gateway/policy"
	"headgate/internal/clock"
	"headgate/internal/counter"
	"headgate/internal/metric"
)

// Start is where the clock of a new world stands.
var Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// World is everything that a policy is given. Its parts may be replaced before Build.
type World struct {
	T         testing.TB
	Clock     *clock.Manual
	Metrics   *metric.Registry
	Counters  *counter.Local
	Consumers *Consumers
	HTTP      *http.Client // fails every request unless the test sets it
	Keeper    *policy.Keeper
	Log       *strings.Builder // what the policy logged
	Random    func() uint64    // the same numbers in every run

	log  *slog.Logger
	expr *expr.Compiler
}

// New returns a world for one test.
func New(t testing.TB) *World {
	metrics, log := metric.NewRegistry(), new(strings.Builder)
	return &World{
		T: t, Random: even(), Clock: clock.NewManual(Start), Metrics: metrics, Counters: counter.NewLocal(), Consumers: NewConsumers(),
		HTTP: &http.Client{Transport: unreachable{}}, Keeper: policy.NewKeeper(),
		Log:  log,
		log:  slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		expr: expr.New(metrics),
	}
}

// Env returns the Env of one instance of a kind, and the count of the slots that it takes.
func (w *World) Env(kind policy.Kind) policy.Env {
	return policy.Env{
		Instance: "apis/shop/policies/" + kind.Name, Log: w.log, Clock: w.Clock, Metrics: w.Metrics,
		Labels:   []metric.Label{{Name: "api", Value: "shop"}, {Name: "policy", Value: kind.Name}},
		Counters: w.Counters, Consumers: w.Consumers, HTTP: w.HTTP, Expr: w.expr, Keep: w.Keeper.Lease(), Slots: new(policy.Slots),
		Random: w.Random,
	}
}

// even returns a source of even numbers that is safe for concurrent use.
func even() func() uint64 {
	var mu sync.Mutex
	source := rand.NewPCG(1, 2)
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Uint64()
	}
}

// Policy is one built policy, alone in a chain.
type Policy struct {
	Hooks policy.Hooks
	Chain *policy.Chain

	world *World
	slots int
	lease *policy.Lease
}

// Build builds a policy from its options in YAML; "" is the defaults. Problems fail the test.
func (w *World) Build(kind policy.Kind, options string) *Policy {
	w.T.Helper()
	node, err := parse(options)
	if err != nil {
		w.T.Fatalf("options of %s: %v", kind.Name, err)
	}
	p, problems := w.build(kind, node)
	if len(problems) > 0 {
		w.T.Fatalf("options of %s:\n%v", kind.Name, problems)
	}
	return p
}

// Problems returns what is wrong with a policy's options.
func (w *World) Problems(kind policy.Kind, options string) decode.Problems {
	w.T.Helper()
	node, err := parse(options)
	if err != nil {
		w.T.Fatalf("options of %s: %v", kind.Name, err)
	}
	p, problems := w.build(kind, node)
	if p != nil {
		p.Close()
	}
	return problems
}

func parse(options string) (*yaml.Node, error) {
	if strings.TrimSpace(options) == "" {
		return nil, nil
	}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(options), &document); err != nil {
		return nil, err
	}
	return document.Content[0], nil
}

func (w *World) build(kind policy.Kind, options *yaml.Node) (*Policy, decode.Problems) {
	env := w.Env(kind)
	hooks, problems := kind.Build(options, env)
	if len(problems) > 0 {
		if err := env.Keep.Release(); err != nil {
			w.T.Errorf("releasing what %s kept: %v", kind.Name, err)
		}
		return nil, problems
	}
	p := &Policy{Hooks: hooks, world: w, slots: env.Slots.Len(), lease: env.Keep}
	p.Chain = policy.NewChain([]*policy.Instance{w.instance(kind, hooks)})
	return p, nil
}

func (w *World) instance(kind policy.Kind, hooks policy.Hooks) *policy.Instance {
	return &policy.Instance{
		Kind: kind.Name, Name: kind.Name, Stage: kind.Stage, Hooks: hooks, Log: w.log, Metrics: w.Metrics,
		Labels: []metric.Label{{Name: "api", Value: "shop"}, {Name: "policy", Value: kind.Name}},
	}
}

// Close closes the policy as a snapshot that has drained does.
func (p *Policy) Close() {
	p.world.T.Helper()
	if err := p.Chain.Close(); err != nil {
		p.world.T.Errorf("closing: %v", err)
	}
	if err := p.lease.Release(); err != nil {
		p.world.T.Errorf("releasing what was kept: %v", err)
	}
}

// unreachable is a network without anybody in it.
type unreachable struct{}

// RoundTrip implements http.RoundTripper.
func (unreachable) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, errors.New("no route to " + r.URL.Host)
}
