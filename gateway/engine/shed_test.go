package engine

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/guard"
	"headgate/gateway/policy"
	"headgate/internal/clock"
)

// memory is a machine with as much in use as a test says, of 10,000 bytes.
type memory struct{ used atomic.Int64 }

func (m *memory) Budget() (guard.Budget, error) {
	return guard.Budget{Bytes: 10_000, Source: "test"}, nil
}
func (m *memory) Read(guard.Budget) guard.Reading {
	return guard.Reading{Used: m.used.Load()}
}

func (h *house) guard(m guard.Machine) {
	g := guard.New(guard.Options{
		Clock: clock.System{}, Log: h.engine.Log, Metrics: h.metrics, Machine: m, SetLimit: func(int64) int64 { return 0 }, Collect: func() {},
	})
	g.Configure(model.Limits{})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	h.t.Cleanup(func() { stop(); <-ended })
	h.engine.Guard = g
}

// sheds waits until new exchanges are refused, or are taken.
func (h *house) sheds(want bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); h.engine.Guard.Sheds() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("not within 30 s: %+v", h.engine.Guard.Status())
		}
	}
}

func TestWhenMemoryIsShortNewExchangesAreRefusedBeforeAnythingIsDoneForThem(t *testing.T) {
	h := newHouse(t)
	h.serve(rule{path: "/orders", answer: fixed(200, "hello"), policies: []*policy.Instance{h.policy("shape", policy.Shape, nil)}})
	m := new(memory)
	h.guard(m)
	if _, w := h.ask("GET /orders"); w.status != 200 || h.noted() != "shape <shape .shape" {
		t.Fatalf("%d", w.status)
	}
	m.used.Store(9200)
	h.sheds(true)
	x, w := h.ask("GET /orders")
	if w.status != 503 || !strings.Contains(w.header, "Retry-After: 2\r\n") || !strings.Contains(w.body, `"code":"overloaded"`) {
		t.Errorf("%d %s\n%s", w.status, w.header, w.body)
	}
	if x.Route.Name != "/orders" || x.Err.Code != exchange.Overloaded || x.Err.Source != exchange.FromGateway || x.ID == "" {
		t.Errorf("recorded as %+v of %s", x.Err, x.Route.Name)
	}
	if got := h.noted(); got != "" {
		t.Errorf("policies were asked: %s", got)
	}
	if _, w := h.ask("GET /nothing"); w.status != 503 {
		t.Errorf("%d where nothing is", w.status)
	}
	if s := h.engine.Guard.Status(); s.Shed != 2 {
		t.Errorf("%d are counted", s.Shed)
	}
	m.used.Store(5000)
	h.sheds(false)
	if _, w := h.ask("GET /orders"); w.status != 200 || w.body != "hello" {
		t.Errorf("%d %s", w.status, w.body)
	}
}

func TestWhenMemoryIsShortConnectionsAreTurnedAwayToo(t *testing.T) {
	h := newHouse(t)
	h.serve()
	m := new(memory)
	m.used.Store(9200)
	h.guard(m)
	h.sheds(true)
	x, _ := request("")
	x.Request.Proto = "TCP"
	_, _, err := h.entrance.Connect(x)
	var e *exchange.Error
	if !errors.As(err, &e) || e.Code != exchange.Overloaded {
		t.Errorf("%v", err)
	}
}
