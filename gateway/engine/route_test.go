package engine

import (
	"log/slog"
	"testing"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/expr"
	"headgate/gateway/upstream"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// quiet returns an upstream that answers by itself, so that only the way to it is measured.
func quiet(t testing.TB) *upstream.Upstream {
	t.Helper()
	var m model.Upstream
	m.SetDefaults()
	m.Targets = []model.Target{{URL: "http://127.0.0.1:9", Weight: 0}}
	m.Fallback = &model.Fallback{Respond: new(model.Respond)}
	r := metric.NewRegistry()
	u, err := upstream.New("shop", m, upstream.Env{
		Sweeper: sock.NewSweeper(), Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Metrics: r, Expr: expr.New(r),
		Respond: func(x *exchange.Exchange) { x.Reply.Status = 200 },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// inFront is what a release is for a route: something else to ask.
type inFront struct{ to Service }

func (f inFront) Send(x *exchange.Exchange) (upstream.Call, error) { return f.to.Send(x) }

func ways(t testing.TB) map[string]func(*exchange.Exchange) (upstream.Call, error) {
	u := quiet(t)
	plain, released := &Route{Upstream: u}, &Route{Upstream: u, Release: inFront{u}}
	return map[string]func(*exchange.Exchange) (upstream.Call, error){
		"the upstream itself": u.Send, "a plain route": plain.send, "a route with something in front": released.send,
	}
}

func TestTheWayToAnUpstreamAllocatesNothing(t *testing.T) {
	costs := map[string]float64{}
	for name, send := range ways(t) {
		x := &exchange.Exchange{Cancel: new(exchange.Canceler)}
		costs[name] = testing.AllocsPerRun(200, func() {
			if _, err := send(x); err != nil || x.Reply.Status != 200 {
				t.Fatal(x.Reply.Status, err)
			}
		})
	}
	direct := costs["the upstream itself"]
	for name, n := range costs {
		if n != direct {
			t.Errorf("%s allocates %v times, asked directly it is %v", name, n, direct)
		}
	}
}

func BenchmarkWayToUpstream(b *testing.B) {
	for name, send := range ways(b) {
		b.Run(name, func(b *testing.B) {
			x := &exchange.Exchange{Cancel: new(exchange.Canceler)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := send(x); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
