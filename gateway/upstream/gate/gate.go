// Package gate stands between an upstream and those who want to ask it: a breaker that keeps all away while too much fails,
// and behind it a limiter of how many are asked at one time. A request enters before its first attempt and leaves with the
// head of its answer, so that a long answer, a stream or a tunnel holds no place. Nor does a request whose body is still on its
// way, where the limit is one that adapts: how long that takes is up to the client, nothing is learned about the service, and a
// few that send nothing more would keep everybody else out.
package gate

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"net/netip"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/adapt"
	"headgate/gateway/upstream/retry"
	"headgate/internal/clock"
)

// Gate is the gate of one upstream. A nil Gate lets everybody through.
type Gate struct {
	limiter  *adapt.Limiter // nil: there is no limit
	breaker  *retry.Breaker // nil: there is none
	mode     string
	turns    map[string]model.PlanTurn // by the consumer's label plan
	usual    model.PlanTurn            // of everybody else
	total    time.Duration             // that the document allows for an exchange; 0: any
	clock    clock.Clock
	base     time.Time
	seed     maphash.Seed // secret, so that nobody chooses with whom to share a queue
	settings settings
}

// settings are what of a document makes a gate another one.
type settings struct {
	mode               string
	limit, least, most int
	queue              int
	breaker            model.Breaker
	broken             bool
}

// planLabel is the label of a consumer that names its plan.
const planLabel = "plan"

// New returns the gate that an upstream's document asks for; nil: none.
func New(m *model.Upstream, clk clock.Clock) *Gate { return build(m, clk, m.Concurrency.Limit) }

func build(m *model.Upstream, clk clock.Clock, start int) *Gate {
	c := &m.Concurrency
	if c.Mode == "off" && m.Breaker == nil {
		return nil
	}
	g := &Gate{
		mode: c.Mode, turns: c.Plans, total: m.Timeouts.Total, clock: clk, base: clk.Now(), seed: maphash.MakeSeed(), settings: settingsOf(m),
	}
	g.usual.SetDefaults()
	queue := c.Queue
	if queue == 0 {
		queue = -1 // which is the limiter's word for none
	}
	switch c.Mode {
	case "auto":
		g.limiter = adapt.New(adapt.Config{Floor: c.Min, Cap: c.Max, Start: start, Queue: queue}, clk)
	case "fixed":
		g.limiter = adapt.New(adapt.Config{Floor: c.Limit, Cap: c.Limit, Start: c.Limit, Queue: queue}, clk)
	}
	if b := m.Breaker; b != nil {
		g.breaker = retry.NewBreaker(retry.BreakerConfig{
			Share: float64(b.Share) / 100, Least: int64(b.Least), Span: b.Window, Pause: b.Open, Probes: int64(b.Probes),
		})
	}
	return g
}

func settingsOf(m *model.Upstream) settings {
	c := &m.Concurrency
	s := settings{mode: c.Mode, limit: c.Limit, least: c.Min, most: c.Max, queue: c.Queue}
	if m.Breaker != nil {
		s.breaker, s.broken = *m.Breaker, true
	}
	return s
}

// After returns the gate of an upstream that takes the place of one whose gate was old: the same service under the same name,
// so what was found out about it stays true.
func After(old *Gate, m *model.Upstream, clk clock.Clock) *Gate {
	if old == nil {
		return New(m, clk)
	}
	if old.settings == settingsOf(m) {
		g := *old // requests of both documents share the limit
		g.turns, g.total = m.Concurrency.Plans, m.Timeouts.Total
		return &g
	}
	start := m.Concurrency.Limit
	if old.limiter != nil && m.Concurrency.Mode == "auto" {
		if s := old.limiter.Status(); !s.Free {
			start = min(max(s.Limit, m.Concurrency.Min), m.Concurrency.Max)
		}
	}
	return build(m, clk, start)
}

// Pass is the leave to ask the upstream. The zero value is that of a nil Gate.
type Pass struct {
	Retried bool // it took more than one attempt, whose pauses are no latency

	gate   *Gate
	place  adapt.Ticket
	placed bool
	probe  retry.Pass
	began  time.Time
}

// Began is when the upstream may be asked: now, or later when the request had to wait.
func (p *Pass) Began() time.Time { return p.began }

// Enter lets an exchange pass, at once or after a wait. The error is an *exchange.Error: breaker_open or upstream_busy, with
// the time after which it is worth to try again, or that the exchange has ended meanwhile. A pass must be left; Leave may be
// called again.
func (g *Gate) Enter(x *exchange.Exchange, now time.Time) (Pass, error) {
	p := Pass{began: now}
	if g == nil {
		return p, nil
	}
	if g.breaker != nil {
		probe, ok := g.breaker.Allow(now.Sub(g.base))
		if !ok {
			return p, g.broken(now)
		}
		p.probe = probe
	}
	if g.limiter != nil && (g.mode == "fixed" || whole(&x.Request.Body)) {
		place, ok := g.limiter.Try(now, x.Shard)
		if !ok {
			var err error
			if place, err = g.wait(x, now); err != nil {
				g.forget(p.probe)
				return p, err
			}
			p.began = place.Began()
		}
		p.place, p.placed = place, true
	}
	p.gate = g
	return p, nil
}

// whole reports whether all of a request's body has arrived.
func whole(b *exchange.Body) bool {
	switch r := b.Reader.(type) {
	case nil:
		return true
	case interface{ Whole() bool }:
		return r.Whole()
	case interface{ Len() int }: // of a body that has not come whole: nothing, or more than anybody has room for
		n := r.Len()
		return n > 0 && n < math.MaxInt
	}
	return false
}

// wait stands in the queue.
func (g *Gate) wait(x *exchange.Exchange, now time.Time) (adapt.Ticket, error) {
	turn, known := g.usual, false
	if x.Consumer != nil {
		turn, known = g.turns[x.Consumer.Labels[planLabel]]
	}
	if !known {
		turn = g.usual
	}
	t, err := g.limiter.Acquire(x.Context(), now, adapt.Claim{
		Flow: g.flow(x), Weight: turn.Weight, Priority: turn.Priority, Shard: x.Shard,
	})
	switch {
	case err == nil:
		return t, nil
	case errors.Is(err, adapt.ErrFull), errors.Is(err, adapt.ErrLate):
		return t, &exchange.Error{
			Code: exchange.UpstreamBusy, Source: exchange.FromGateway, Retry: true, RetryAfter: g.limiter.RetryAfter(), Cause: err,
		}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return t, &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: err}
	}
	return t, err
}

func (g *Gate) broken(now time.Time) error {
	return &exchange.Error{
		Code: exchange.BreakerOpen, Source: exchange.FromGateway, Retry: true, RetryAfter: max(g.breaker.Left(now.Sub(g.base)), time.Second),
	}
}

func (g *Gate) forget(p retry.Pass) {
	if g.breaker != nil {
		g.breaker.Forget(p)
	}
}

// flow is whom the exchange stands in the queue for: its consumer, or the network of its client. One owner of addresses of
// IPv6 has at least a /64 of them (RFC 6177).
func (g *Gate) flow(x *exchange.Exchange) uint64 {
	if x.Consumer != nil {
		return maphash.String(g.seed, x.Consumer.Name)
	}
	a := x.Client.IP.Unmap().WithZone("")
	if a.Is6() {
		if net, err := a.Prefix(64); err == nil {
			a = net.Addr()
		}
	}
	return maphash.Comparable[netip.Addr](g.seed, a)
}

// Leave gives the place back and learns from how the upstream answered, or why not. took is since Began.
func (p *Pass) Leave(x *exchange.Exchange, took time.Duration, err error) {
	g := p.gate
	if g == nil {
		return
	}
	p.gate = nil
	limit, health := g.judge(x, took, err)
	now := p.began.Add(took)
	if p.Retried && limit == adapt.Served {
		limit = adapt.Ignored
	}
	if p.placed {
		p.place.Release(now, limit)
	}
	if g.breaker == nil {
		return
	}
	if health == unknown {
		g.breaker.Forget(p.probe)
		return
	}
	g.breaker.Record(x.Shard, now.Sub(g.base), p.probe, health == bad)
}

// Abandon gives the place back of an exchange that has told nothing, unless it has left.
func (p *Pass) Abandon() {
	g := p.gate
	if g == nil {
		return
	}
	p.gate = nil
	if p.placed {
		p.place.Release(p.began, adapt.Ignored)
	}
	g.forget(p.probe)
}

// Pressure is the share of the requests of the last second that had to wait, or were refused, in percent.
func (g *Gate) Pressure(now time.Time) int {
	if g == nil || g.limiter == nil {
		return 0
	}
	return g.limiter.Pressure(now)
}

// Limiting reports whether requests wait: no time for asking twice.
func (g *Gate) Limiting() bool { return g != nil && g.limiter != nil && g.limiter.Waiting() }
