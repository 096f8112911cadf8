package compile

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/config/decode"
	"headgate/gateway/engine"
	"headgate/gateway/exchange"
	"headgate/gateway/expr"
	"headgate/gateway/policy"
	"headgate/gateway/record"
	"headgate/gateway/upstream"
	"headgate/internal/clock"
	"headgate/internal/counter"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a compiler with everything real around it, and the engine that its snapshots go into.
type world struct {
	testing.TB
	*Compiler
	engine  *engine.Engine
	metrics *metric.Registry
	log     *strings.Builder
	gone    map[*engine.Snapshot]chan struct{}
	closed  atomic.Int64 // hooks of the policy probe
	kept    atomic.Int64 // values that the policy probe keeps
}

// probeConfig is the options of the policy probe.
type probeConfig struct {
	Header string `yaml:"header" doc:"Set on the request."`
	Limit  int    `yaml:"limit" min:"1" max:"10" doc:"A number."`
}

type keptByProbe struct{ w *world }

func (k *keptByProbe) Close() error { k.w.kept.Add(-1); return nil }

// probe writes its name behind a header field, keeps a value and uses a slot.
func (w *world) probe(name string, stage policy.Stage) policy.Kind {
	return policy.New(policy.Spec[probeConfig]{
		Name: name, Summary: "For tests.", Stage: stage,
		Default: func() probeConfig { return probeConfig{Header: "X-Seen", Limit: 1} },
		Check: func(c probeConfig) error {
			if c.Header == "Host" {
				return decode.At("header", "not Host")
			}
			return nil
		},
		Build: func(c probeConfig, e policy.Env) (policy.Hooks, error) {
			policy.Keep(e, "value", func() *keptByProbe { w.kept.Add(1); return &keptByProbe{w} })
			slot := policy.Slot[string](e)
			run := func(x *exchange.Exchange) policy.Verdict {
				if _, used := slot.Get(x); used {
					return policy.Fail(fmt.Errorf("the slot of %s is somebody else's", e.Instance))
				}
				slot.Set(x, e.Instance)
				x.Request.Header.Set(c.Header, strings.TrimSpace(x.Request.Header.Get(c.Header)+" "+e.Instance))
				return policy.Continue
			}
			return policy.Hooks{Request: policy.Step{Now: run}, Close: func() error { w.closed.Add(1); return nil }}, nil
		},
	})
}

func newWorld(t testing.TB) *world {
	w := &world{TB: t, metrics: metric.NewRegistry(), log: new(strings.Builder), gone: map[*engine.Snapshot]chan struct{}{}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	clk := clock.NewManual(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))
	recorder := record.New(record.Config{Clock: clk, Metrics: w.metrics, Log: log})
	w.Compiler = New(Options{
		Kinds: []policy.Kind{w.probe("probe", policy.Shape), w.probe("guard", policy.Authorize), w.probe("who", policy.Identify)},
		Clock: clk, Log: log, Metrics: w.metrics, Counters: counter.NewLocal(), HTTP: http.DefaultClient, Expr: expr.New(w.metrics),
		Record:   recorder,
		Upstream: upstream.Env{Sweeper: sock.NewSweeper(), Clock: clk, Log: log, Metrics: w.metrics},
	})
	w.engine = &engine.Engine{Record: recorder, Log: log}
	t.Cleanup(func() {
		if err := w.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// load compiles a document and swaps it in.
func (w *world) load(doc string) *engine.Snapshot {
	w.Helper()
	s, _, problems := w.Load([]decode.File{{Name: "gate.yaml", Data: []byte(doc)}})
	if len(problems) > 0 {
		w.Fatalf("%v", problems)
	}
	gone := make(chan struct{})
	w.gone[s] = gone
	s.OnClose = append(s.OnClose, func() error { close(gone); return nil })
	w.engine.Swap(s)
	return s
}

// drained waits until a snapshot that was replaced has been closed.
func (w *world) drained(s *engine.Snapshot) { <-w.gone[s] }

// refuse compiles a document that is wrong and returns its problems.
func (w *world) refuse(doc string) []string {
	w.Helper()
	s, _, problems := w.Load([]decode.File{{Name: "gate.yaml", Data: []byte(doc)}})
	if s != nil {
		w.Fatal("compiled")
	}
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	return lines
}

// ask finds the route of a request and runs its policies and its own answer or rewrite.
func ask(t testing.TB, s *engine.Snapshot, line string, header ...string) (*engine.Route, *exchange.Exchange) {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	x := new(exchange.Exchange)
	path, query, _ := strings.Cut(target[strings.IndexByte(target, '/'):], "?")
	x.Request = exchange.Request{Method: method, Host: target[:strings.IndexByte(target, '/')], Path: path, Query: query, Scheme: "http"}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		x.Request.Header.Add(name, value)
	}
	r, params, _ := s.Table.Match(method, x.Request.Host, path, &x.Request.Header, query, nil)
	if r == nil {
		r = s.NotFound
	}
	x.Route, x.Params = r.Info, params
	x.MakeSlots(r.Slots)
	if !r.Chain.Request(x) {
		return r, x
	}
	if r.Answer != nil {
		r.Answer(x)
	}
	if r.Rewrite != nil {
		r.Rewrite(x)
	}
	return r, x
}

func replace(text string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(text) }
