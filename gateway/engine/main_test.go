package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/record"
	"headgate/gateway/route"
	"headgate/gateway/upstream"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is a client's side that keeps what it is sent.
type wire struct {
	status      int
	header      string
	body        string
	informed    []int
	replies     int
	interrupted bool
	broken      error  // of Reply
	before      func() // Reply
}

func (w *wire) Inform(_ *exchange.Exchange, status int, _ *exchange.Header) error {
	w.informed = append(w.informed, status)
	return w.broken
}

func (w *wire) Reply(x *exchange.Exchange) error {
	w.replies++
	if w.before != nil {
		w.before()
	}
	w.status, w.header, w.body = x.Reply.Status, string(x.Reply.Header.AppendTo(nil)), ""
	if w.broken != nil || x.Reply.Body.Reader == nil {
		return w.broken
	}
	b, err := io.ReadAll(x.Reply.Body.Reader)
	w.body = string(b)
	return err
}

func (w *wire) Interrupt() { w.interrupted = true }

// house is an engine with everything around it, and what happened in it, in order.
type house struct {
	t        *testing.T
	engine   *Engine
	entrance *Entrance
	metrics  *metric.Registry
	sweeper  *sock.Sweeper
	log      *bytes.Buffer
	mu       sync.Mutex
	events   []string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, metrics: metric.NewRegistry(), sweeper: sock.NewSweeper(), log: new(bytes.Buffer)}
	log := slog.New(slog.NewTextHandler(h.log, nil))
	recorder := record.New(record.Config{Clock: clock.System{}, Metrics: h.metrics, Log: log})
	h.engine = &Engine{Record: recorder, Log: log}
	h.entrance = &Entrance{Engine: h.engine}
	h.entrance.Door.Store(NewDoor("main", model.Listener{Forwarded: "none"}, nil))
	ctx, stop := context.WithCancel(context.Background())
	swept := make(chan error, 1)
	go func() { swept <- h.sweeper.Run(ctx) }()
	t.Cleanup(func() {
		if err := h.engine.Close(); err != nil {
			t.Error(err)
		}
		stop()
		<-swept
	})
	return h
}

func (h *house) note(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, what)
}

func (h *house) noted() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := strings.Join(h.events, " ")
	h.events = nil
	return s
}

// policy returns an instance that notes every hook of its own, changed by change.
func (h *house) policy(name string, stage policy.Stage, change func(*policy.Hooks)) *policy.Instance {
	i := &policy.Instance{Kind: name, Name: name, Stage: stage, Log: h.engine.Log, Metrics: h.metrics, Hooks: policy.Hooks{
		Request:  policy.Step{Now: func(*exchange.Exchange) policy.Verdict { h.note(name); return policy.Continue }},
		Response: policy.Step{Now: func(*exchange.Exchange) policy.Verdict { h.note("<" + name); return policy.Continue }},
		Done:     func(*exchange.Exchange) { h.note("." + name) },
	}}
	if change != nil {
		change(&i.Hooks)
	}
	return i
}

// rule is a route of a test's snapshot.
type rule struct {
	methods  []string
	path     string
	policies []*policy.Instance
	answer   func(*exchange.Exchange) // nil: the upstream
	upstream *upstream.Upstream
}

func (h *house) serve(rules ...rule) *Snapshot {
	h.t.Helper()
	s := NewSnapshot()
	var table []route.Rule[*Route]
	for _, r := range rules {
		info := &exchange.Route{API: "shop", Name: r.path}
		compiled := &Route{Info: info, Name: r.path, Chain: policy.NewChain(r.policies), Answer: r.answer, Upstream: r.upstream}
		compiled.Meter = h.engine.Record.Route(info)
		s.OnClose = append(s.OnClose, compiled.Chain.Close)
		s.Routes = append(s.Routes, compiled)
		table = append(table, route.Rule[*Route]{Path: r.path, Methods: r.methods, Name: r.path, Value: compiled})
	}
	var conflicts []route.Conflict
	if s.Table, conflicts = route.Build(table); len(conflicts) > 0 {
		h.t.Fatal(conflicts)
	}
	s.NotFound = &Route{
		Info: &exchange.Route{Name: "(none)"}, Chain: policy.NewChain([]*policy.Instance{h.policy("global", policy.Admit, nil)}),
		Answer: func(x *exchange.Exchange) { x.Problem(exchange.RouteNotFound, "") },
	}
	h.engine.Swap(s)
	return s
}

// upstream returns an upstream of one target.
func (h *house) upstream(url string) *upstream.Upstream {
	h.t.Helper()
	var m model.Upstream
	m.SetDefaults()
	m.Targets = []model.Target{{URL: url, Weight: 1}}
	u, err := upstream.New("shop", m, upstream.Env{Sweeper: h.sweeper, Clock: clock.System{}, Log: h.engine.Log, Metrics: h.metrics})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := u.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return u
}

// request returns an exchange for a request such as "GET /orders", with header lines.
func request(line string, fields ...string) (*exchange.Exchange, *wire) {
	w := new(wire)
	x := &exchange.Exchange{Wire: w, Cancel: new(exchange.Canceler), Start: time.Now()}
	method, target, _ := strings.Cut(line, " ")
	path, query, has := strings.Cut(target, "?")
	x.Request = exchange.Request{
		Method: method, Path: path, Query: query, HasQuery: has, Host: "shop.example", Scheme: "http", Proto: "HTTP/1.1",
	}
	x.Client.Peer, x.Client.Addr = netip.MustParseAddrPort("203.0.113.9:4711"), "203.0.113.9"
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		x.Request.Header.Add(name, value)
	}
	return x, w
}

// ask sends a request through the house.
func (h *house) ask(line string, fields ...string) (*exchange.Exchange, *wire) {
	x, w := request(line, fields...)
	h.entrance.Serve(x)
	return x, w
}

func fixed(status int, body string) func(*exchange.Exchange) {
	return func(x *exchange.Exchange) { x.Answer(status, "text/plain", body) }
}

var errBroken = errors.New("broken")
