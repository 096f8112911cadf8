package gate

import (
	"errors"
	"io"
	"math"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/adapt"
	"headgate/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func document(change func(*model.Upstream)) *model.Upstream {
	var m model.Upstream
	m.SetDefaults()
	if change != nil {
		change(&m)
	}
	return &m
}

func fixed(limit, queue int) func(*model.Upstream) {
	return func(m *model.Upstream) {
		m.Concurrency.Mode, m.Concurrency.Limit, m.Concurrency.Queue = "fixed", limit, queue
	}
}

func asking(code string, status int) (*exchange.Exchange, error) {
	x := &exchange.Exchange{}
	x.Reply.Status = status
	if code == "" {
		return x, nil
	}
	for _, c := range exchange.Codes() {
		if c.Name == code {
			e := &exchange.Error{Code: c, Source: exchange.FromUpstream}
			if c == exchange.NoTarget || c == exchange.UpstreamBusy {
				e.Source = exchange.FromGateway
			}
			if c == exchange.ClientGone {
				e.Source = exchange.FromClient
			}
			return x, e
		}
	}
	return x, errors.New(code)
}

func TestWhatAnOutcomeTeaches(t *testing.T) {
	g := New(document(nil), clock.System{})
	for _, c := range []struct {
		code    string
		status  int
		grpc    string
		limiter adapt.Outcome
		breaker health
	}{
		{"", 200, "", adapt.Served, good},
		{"", 404, "", adapt.Served, good},
		{"", 101, "", adapt.Served, good},
		{"", 429, "", adapt.Refused, good},
		{"", 500, "", adapt.Ignored, bad},
		{"", 501, "", adapt.Ignored, good},
		{"", 502, "", adapt.Ignored, bad},
		{"", 503, "", adapt.Refused, bad},
		{"", 504, "", adapt.TimedOut, bad},
		{"", 200, "0", adapt.Served, good},
		{"", 200, "5", adapt.Served, good},
		{"", 200, "8", adapt.Refused, good},
		{"", 200, "14", adapt.Refused, bad},
		{"", 200, "13", adapt.Ignored, bad},
		{"upstream_timeout", 0, "", adapt.TimedOut, bad},
		{"upstream_busy", 0, "", adapt.Refused, unknown},
		{"upstream_unreachable", 0, "", adapt.Ignored, bad},
		{"upstream_closed", 0, "", adapt.Ignored, bad},
		{"upstream_invalid", 0, "", adapt.Ignored, bad},
		{"no_target", 0, "", adapt.Ignored, unknown},
		{"client_gone", 0, "", adapt.Ignored, unknown},
		{"something else", 0, "", adapt.Ignored, unknown},
	} {
		x, err := asking(c.code, c.status)
		if c.grpc != "" {
			x.Reply.Header.Add("grpc-status", c.grpc)
		}
		if l, b := g.judge(x, time.Second, err); l != c.limiter || b != c.breaker {
			t.Errorf("%s %d grpc %q: %v and %v, want %v and %v", c.code, c.status, c.grpc, l, b, c.limiter, c.breaker)
		}
	}
}

// A client that allows little time must not be able to make the limit shrink: only the document's own time counts.
func TestAClientsDeadlineTeachesNothing(t *testing.T) {
	for _, c := range []struct {
		total, took time.Duration
		want        adapt.Outcome
	}{{0, time.Minute, adapt.Ignored}, {time.Second, time.Millisecond, adapt.Ignored}, {time.Second, time.Second, adapt.TimedOut}} {
		g := New(document(func(m *model.Upstream) { m.Timeouts.Total = c.total }), clock.System{})
		x, err := asking("client_gone", 0)
		x.Cancel = new(exchange.Canceler)
		now := clock.System{}.Now()
		x.Cancel.Expire(now, now)
		if got, _ := g.judge(x, c.took, err); got != c.want {
			t.Errorf("of %v allowed %v had passed: %v, want %v", c.total, c.took, got, c.want)
		}
	}
}

func problem(t *testing.T, err error) *exchange.Error {
	t.Helper()
	var e *exchange.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no problem", err)
	}
	return e
}

func TestAFullGateRefusesWithRetryAfter(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	g := New(document(fixed(1, 0)), clk)
	x := &exchange.Exchange{}
	first, err := g.Enter(x, clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Enter(x, clk.Now())
	if e := problem(t, err); e.Code != exchange.UpstreamBusy || e.RetryAfter < time.Second || !errors.Is(err, adapt.ErrFull) {
		t.Errorf("%+v", e)
	}
	x.Reply.Status = 200
	first.Leave(x, time.Millisecond, nil)
	first.Leave(x, time.Millisecond, nil)
	first.Abandon()
	if s := g.Status(clk.Now()).Concurrency; s.InFlight != 0 || s.Limit != 1 || s.Full != 1 || s.Mode != "fixed" {
		t.Errorf("a place is given back once: %+v", s)
	}
}

func TestABreakerRefusesUntilItsTimeHasPassed(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	g := New(document(func(m *model.Upstream) {
		m.Concurrency.Mode, m.Breaker = "off", new(model.Breaker)
		m.Breaker.SetDefaults()
	}), clk)
	for range 20 {
		x, err := asking("upstream_closed", 0)
		p, refused := g.Enter(x, clk.Now())
		if refused != nil {
			t.Fatal(refused)
		}
		p.Leave(x, time.Millisecond, err)
	}
	clk.Advance(1500 * time.Millisecond)
	x := &exchange.Exchange{}
	_, err := g.Enter(x, clk.Now())
	if e := problem(t, err); e.Code != exchange.BreakerOpen || e.RetryAfter.Round(time.Second) != 4*time.Second {
		t.Errorf("%+v", e)
	}
	if s := g.Status(clk.Now()).Breaker; s.State != "open" || s.Openings != 1 || s.Next.Sub(*s.Since) != 5*time.Second {
		t.Errorf("%+v", s)
	}
	clk.Advance(4 * time.Second)
	lost, err := g.Enter(x, clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	lost.Abandon() // its client went away: another probe has its place
	x.Reply.Status = 200
	for range 3 {
		p, err := g.Enter(x, clk.Now())
		if err != nil {
			t.Fatal(err)
		}
		p.Leave(x, time.Millisecond, nil)
	}
	if s := g.Status(clk.Now()).Breaker; s.State != "closed" || s.Next != nil {
		t.Errorf("%+v", s)
	}
}

func TestAClientThatGoesAwayLeavesTheQueue(t *testing.T) {
	g := New(document(fixed(1, 10)), clock.System{})
	held, err := g.Enter(&exchange.Exchange{}, clock.System{}.Now())
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange.Exchange{Cancel: new(exchange.Canceler)}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		_, err = g.Enter(x, clock.System{}.Now())
	})
	for !g.Limiting() {
		time.Sleep(time.Microsecond)
	}
	x.Cancel.Cancel()
	waiting.Wait()
	if e := problem(t, err); e.Code != exchange.ClientGone || e.Source != exchange.FromClient || g.Limiting() {
		t.Errorf("%+v", e)
	}
	held.Abandon()
	x.Cancel.Rest()
}

func TestWhoSharesAPlaceInTheQueue(t *testing.T) {
	g := New(document(nil), clock.System{})
	from := func(address string) uint64 {
		return g.flow(&exchange.Exchange{Client: exchange.Client{IP: netip.MustParseAddr(address)}})
	}
	if from("10.0.0.1") == from("10.0.0.2") || from("2001:db8::1") == from("2001:db8:0:1::1") {
		t.Error("other networks stand for themselves")
	}
	if from("10.0.0.1") != from("::ffff:10.0.0.1") || from("2001:db8::1") != from("2001:db8::ffff:1") {
		t.Error("one owner has one place")
	}
	of := func(name string) uint64 { return g.flow(&exchange.Exchange{Consumer: &exchange.Consumer{Name: name}}) }
	if again := of("ann"); of("ann") != again || of("bob") == again {
		t.Error("consumers stand for themselves")
	}
}

func TestWhatIsKnownOutlivesAReload(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	old := New(document(nil), clk)
	held, err := old.Enter(&exchange.Exchange{}, clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	same := After(old, document(func(m *model.Upstream) { m.Timeouts.Total = time.Second }), clk)
	if s := same.Status(clk.Now()).Concurrency; s.InFlight != 1 {
		t.Errorf("requests of both documents count: %+v", s)
	}
	held.Abandon()
	other := After(same, document(func(m *model.Upstream) { m.Concurrency.Limit, m.Concurrency.Max = 4, 16 }), clk)
	if s := other.Status(clk.Now()).Concurrency; s.Limit != 4 || !s.Limited {
		t.Errorf("the limit of the document, where there was none: %+v", s)
	}
	other = After(other, document(func(m *model.Upstream) { m.Concurrency.Min = 8 }), clk)
	if s := other.Status(clk.Now()).Concurrency; s.Limit != 8 || !s.Limited {
		t.Errorf("the limit that was found, within the new bounds: %+v", s)
	}
	if After(old, document(func(m *model.Upstream) { m.Concurrency.Mode = "off" }), clk) != nil || After(nil, document(nil), clk) == nil {
		t.Error("a gate is there when the document says so")
	}
}

func TestPassingCostsNoMemory(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	g := New(document(func(m *model.Upstream) { m.Breaker = new(model.Breaker); m.Breaker.SetDefaults() }), clk)
	x := &exchange.Exchange{}
	x.Reply.Status = 200
	now := clk.Now()
	if n := testing.AllocsPerRun(1000, func() {
		p, err := g.Enter(x, now)
		if err != nil {
			t.Fatal(err)
		}
		p.Leave(x, time.Millisecond, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPassing(b *testing.B) {
	g := New(document(nil), clock.System{})
	x := &exchange.Exchange{}
	x.Reply.Status = 200
	now := clock.System{}.Now()
	for b.Loop() {
		p, _ := g.Enter(x, now)
		p.Leave(x, time.Millisecond, nil)
	}
}

// comes is a body that comes, or stays out, as its client likes.
type comes struct{ io.Reader }

// length is a body that says how much of it is here, or that it has not come whole.
type length int

// Len returns it.
func (l length) Len() int { return int(l) }

// Read implements io.Reader.
func (l length) Read([]byte) (int, error) { return 0, io.EOF }

// What is still being sent holds no place of a limit that adapts, whatever comes of it; of one that the document fixes it does.
func TestUploadsThatStopKeepNobodyOut(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*model.Upstream)
		body   io.Reader
		out    bool
	}{
		{"still coming", nil, comes{}, false},
		{"still coming over HTTP/2", nil, length(0), false},
		{"still coming over HTTP/3", nil, length(math.MaxInt), false},
		{"all of it here", nil, strings.NewReader("x"), true},
		{"none", nil, nil, true},
		{"still coming, the limit is fixed", fixed(10, 0), comes{}, true},
	} {
		g := New(document(func(m *model.Upstream) {
			m.Concurrency.Max, m.Concurrency.Queue = 40, 0
			if c.change != nil {
				c.change(m)
			}
		}), clock.System{})
		x, _ := asking("", 200)
		x.Request.Body.Reader = c.body
		var passes []Pass
		now := time.Now()
		for range 100 {
			if p, err := g.Enter(x, now); err == nil {
				passes = append(passes, p)
			}
		}
		if out := len(passes) < 100; out != c.out {
			t.Errorf("%s: %d of 100 passed", c.name, len(passes))
		}
		get, _ := asking("", 200)
		p, err := g.Enter(get, now)
		if out := err != nil; out != c.out {
			t.Errorf("%s: somebody else: %v", c.name, err)
		}
		p.Abandon()
		for _, p := range passes {
			p.Abandon()
		}
	}
}
