package health

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"headgate/config/model"
	"headgate/gateway/upstream/balance"
	"headgate/gateway/upstream/pool"
	"headgate/gateway/wire/h1"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// fake is how a target of which only the answers matter is asked.
type fake func(ctx context.Context) error

func (f fake) ask(ctx context.Context) error { return f(ctx) }
func (f fake) close()                        {}

// probing returns a live group in the time of a synctest bubble, and how a target joins it that answers as f says.
func probing(t *testing.T, h model.Health) (g *Group, join func(f fake) *Record) {
	t.Helper()
	began := time.Now()
	random := rand.New(rand.NewPCG(3, 4))
	var mu sync.Mutex
	g, err := New(&h, rules(nil), Env{
		Upstream: "shop", Now: func() time.Duration { return time.Since(began) }, Clock: clock.System{},
		Random:  func() uint64 { mu.Lock(); defer mu.Unlock(); return random.Uint64() },
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
		Metrics: metric.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Live()
	n := 0
	return g, func(f fake) *Record {
		n++
		address := fmt.Sprintf("10.0.%d.%d:80", n/256, n%256)
		r := g.Join(address, address, func() *balance.Load { return balance.NewLoad(nil) })
		w := &Watch{group: g, record: r, reach: func() *pool.Pool { return nil }, place: -1, how: f}
		g.prober.add(w)
		return r
	}
}

func every(interval time.Duration) model.Health {
	return model.Health{TCP: true, Interval: interval, Sick: interval / 5, Timeout: time.Second, Unhealthy: 3, Healthy: 2}
}

func TestProbesHaveTwoPacesAndAJitterOfATenth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, join := probing(t, every(10*time.Second))
		var at []time.Time
		r := join(func(context.Context) error { // well for ten probes, sick for ten, well again
			at = append(at, time.Now())
			if len(at) > 10 && len(at) <= 20 {
				return &unwell{probeStatus, "answered 500"}
			}
			return nil
		})
		time.Sleep(10 * time.Minute)
		g.Close()
		for i := 1; i < len(at); i++ {
			pause, want := at[i].Sub(at[i-1]), 10*time.Second
			if i > 10 && i <= 21 { // until two of them have succeeded
				want = 2 * time.Second
			}
			if pause < want*9/10 || pause > want*11/10+2*maxGrain {
				t.Errorf("%v between probe %d and the next one, want about %v", pause, i, want)
			}
		}
		if slices.IsSortedFunc(at[:9], func(a, b time.Time) int {
			return int(a.Sub(at[0])%(10*time.Second)) - int(b.Sub(at[0])%(10*time.Second))
		}) {
			t.Error("no jitter shows")
		}
		s := r.Status()
		if s.State != available || len(s.History) != 2 || s.History[0].Why != "3 probes in a row failed: answered 500" ||
			s.History[1].Why != "2 probes in a row succeeded" || s.History[0].Cause != "probe_status" {
			t.Errorf("%+v", s)
		}
	})
}

func TestFiveThousandTargetsAreNotProbedInStepNorAllAtOneTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, join := probing(t, every(5*time.Second))
		var now, most, sum atomic.Int64
		var mu sync.Mutex
		first := map[time.Duration]int{}
		began := time.Now()
		for range 5000 {
			join(func(context.Context) error {
				if age := time.Since(began); age < 5*time.Second+maxGrain {
					mu.Lock()
					first[age.Truncate(maxGrain)]++
					mu.Unlock()
				}
				n := now.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				time.Sleep(10 * time.Millisecond)
				now.Add(-1)
				sum.Add(1)
				return nil
			})
		}
		time.Sleep(time.Minute)
		g.Close()
		if n := most.Load(); n > maxProbes {
			t.Errorf("%d probes at one time", n)
		}
		if n := sum.Load(); n < 5000*11 || n > 5000*14 {
			t.Errorf("%d probes in a minute", n)
		}
		for at, n := range first {
			if n > 5000/50*3 {
				t.Errorf("%d first probes in the tenth of a second at %v", n, at)
			}
		}
	})
}

func TestManyTargetsThatDoNotAnswerTakeABoundedNumberOfProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, join := probing(t, every(5*time.Second))
		var now, most atomic.Int64
		var all []*Record
		for range 2000 {
			all = append(all, join(func(ctx context.Context) error {
				n := now.Add(1)
				defer now.Add(-1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				<-ctx.Done()
				return ctx.Err()
			}))
		}
		time.Sleep(time.Minute)
		for _, r := range all {
			if s := r.Status(); s.State != unhealthy || s.Cause != "probe_timeout" {
				t.Fatalf("%+v", s)
			}
		}
		g.Close()
		if n := most.Load(); n != maxProbes {
			t.Errorf("%d probes at one time, want all of %d", n, maxProbes)
		}
	})
}

func TestAStoppedWatchAsksNothingMoreAndIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, join := probing(t, every(time.Second))
		var running atomic.Bool
		r := join(func(ctx context.Context) error {
			running.Store(true)
			<-ctx.Done()
			time.Sleep(time.Second)
			running.Store(false)
			return ctx.Err()
		})
		for !running.Load() {
			time.Sleep(100 * time.Millisecond)
		}
		for w := range g.prober.watch {
			w.Stop()
		}
		if running.Load() {
			t.Error("the probe still runs")
		}
		if s := r.Status(); s.LastProbe != nil {
			t.Errorf("a probe that was cut off counts: %+v", s)
		}
		time.Sleep(time.Minute)
		if running.Load() {
			t.Error("it is asked again")
		}
		g.Close()
	})
}

func TestProbesThatSucceedDoNotShortenAnEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, join := probing(t, every(time.Second))
		r, other := join(func(context.Context) error { return nil }), join(func(context.Context) error { return nil })
		g.Members([]*Record{r, other})
		time.Sleep(10 * time.Second)
		for range 5 {
			r.Failed(0, g.env.Now(), Status503)
		}
		time.Sleep(9 * time.Second)
		if s := r.Status(); s.State != ejected || s.NextProbe == nil || !strings.Contains(s.Why, "next probe") {
			t.Errorf("the health endpoint lies, and is believed: %+v", s)
		}
		time.Sleep(2 * time.Second)
		if s := r.Status(); s.State != available {
			t.Errorf("%+v", s)
		}
		g.Close()
	})
}

func TestProbesThatFailKeepATargetOutBeyondItsEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, join := probing(t, every(time.Second))
		var sick atomic.Bool
		answer := func(context.Context) error {
			if sick.Load() {
				return &unwell{probeBody, "answered \"no\""}
			}
			return nil
		}
		r, other := join(answer), join(answer)
		g.Members([]*Record{r, other})
		time.Sleep(5 * time.Second)
		sick.Store(true)
		for range 5 {
			r.Failed(0, g.env.Now(), Status503)
		}
		time.Sleep(5 * time.Second)
		s := r.Status()
		if s.State != unhealthy || !strings.Contains(s.Why, "answered \"no\"; ejected as well until") {
			t.Errorf("%+v", s)
		}
		time.Sleep(20 * time.Second)
		if s := r.Status(); s.State != unhealthy || strings.Contains(s.Why, "ejected as well") {
			t.Errorf("%+v", s)
		}
		g.Close()
	})
}

func TestWhenTheClockIsSetProbesGoOn(t *testing.T) {
	c := clock.NewManual(noon)
	g, err := New(&model.Health{TCP: true, Interval: time.Second, Timeout: time.Second, Unhealthy: 1, Healthy: 1}, rules(nil), Env{
		Now: func() time.Duration { return 0 }, Clock: c, Random: rand.Uint64, Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &g.prober
	for i, jump := range []time.Duration{0, time.Second, -24 * time.Hour, time.Minute, 365 * 24 * time.Hour, -365 * 24 * time.Hour} {
		before := p.now()
		c.Advance(jump)
		if after := p.now(); after < before || jump < 0 && after != before {
			t.Errorf("jump %d of %v: from %v to %v", i, jump, before, after)
		}
	}
}

// reach returns the pool of a target at an address.
func reach(t *testing.T, address string) *pool.Pool {
	t.Helper()
	id, err := pool.ReadIdentity(nil)
	if err != nil {
		t.Fatal(err)
	}
	var m model.Pool
	m.SetDefaults()
	group := pool.NewGroup(pool.Settings{
		Upstream: "shop", Sweeper: sock.NewSweeper(), Clock: clock.System{}, Metrics: metric.NewRegistry(), Connect: 5 * time.Second, Pool: m,
	})
	return group.New(pool.At("http", address, ""), &h1.Plan{}, id, func() bool { return true })
}

func TestWhatAnAnswerIsExpectedToBe(t *testing.T) {
	for _, test := range []struct {
		name   string
		expect *model.HealthExpect
		status int
		body   string
		want   string // "": it is well
		cause  string
	}{
		{"nothing is expected", nil, 200, "", "", ""},
		{"a redirect is well", nil, 302, "", "", ""},
		{"an error", nil, 500, "", "answered 500", probeStatus},
		{"one of the statuses", &model.HealthExpect{Status: []int{204, 503}}, 503, "", "", ""},
		{"none of the statuses", &model.HealthExpect{Status: []int{204, 503}}, 200, "", "answered 200; 204 or 503 is expected", probeStatus},
		{"a body", &model.HealthExpect{Body: "^all (is )?well$"}, 200, "all well", "", ""},
		{"another body", &model.HealthExpect{Body: "^all well$"}, 200, "all lost", `answered "all lost", which does not match ^all well$`, probeBody},
		{"a body within 64 KiB", &model.HealthExpect{Body: "well$"}, 200, strings.Repeat("x", maxProbeBody-4) + "well" + "lost", "", ""},
		{"a body beyond 64 KiB", &model.HealthExpect{Body: "well"}, 200, strings.Repeat("x", maxProbeBody) + "well",
			"which does not match", probeBody},
		{"JSON", &model.HealthExpect{JSON: `json.status == "UP"`}, 200, `{"status": "UP"}`, "", ""},
		{"JSON that says no", &model.HealthExpect{JSON: `json.status == "UP"`}, 200, `{"status": "DOWN"}`,
			`of which json.status == "UP" is not true`, probeJSON},
		{"a way down", &model.HealthExpect{JSON: `json.checks.db.lag < 5 && json.free > 0.1`}, 200,
			`{"checks": {"db": {"lag": 4}}, "free": 0.5}`, "", ""},
		{"a list", &model.HealthExpect{JSON: `json.parts.all(p, p.ok)`}, 200, `{"parts": [{"ok": true}, {"ok": false}]}`, "is not true", probeJSON},
		{"what is not there is not true", &model.HealthExpect{JSON: `json.status == "UP"`}, 200, `{}`, "is not true", probeJSON},
		{"of another type", &model.HealthExpect{JSON: `json.lag < 5`}, 200, `{"lag": "much"}`, "cannot be said", probeJSON},
		{"no JSON", &model.HealthExpect{JSON: `json.status == "UP"`}, 200, `UP`, `answered "UP", which is no object of JSON`, probeJSON},
		{"too much JSON", &model.HealthExpect{JSON: `json.status == "UP"`}, 200,
			`{"status": "UP", "x": "` + strings.Repeat("x", maxProbeBody) + `"}`, "not looked at", probeJSON},
		{"all of it", &model.HealthExpect{Status: []int{200}, Body: "UP", JSON: `json.n == 1`}, 200, `{"status": "UP", "n": 1}`, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body) // the probe may have read enough
			}))
			defer s.Close()
			e, err := compile(test.expect)
			if err != nil {
				t.Fatal(err)
			}
			ask := newWeb("/healthz", "", e, reach(t, s.Listener.Addr().String()), true)
			defer ask.close()
			err = ask.ask(t.Context())
			if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || probeCause(err) != test.cause) {
				t.Errorf("%v, want %q and cause %q", err, test.want, test.cause)
			}
		})
	}
}

func TestWhatCannotBeExpected(t *testing.T) {
	for _, test := range []struct {
		health model.Health
		want   string
	}{
		{model.Health{TCP: true, Expect: &model.HealthExpect{Body: "x"}}, "write path: /healthz"},
		{model.Health{Path: "/", Expect: &model.HealthExpect{Body: "("}}, "missing closing )"},
		{model.Health{Path: "/", Expect: &model.HealthExpect{Status: []int{200, 99}}}, "99 is not a status"},
		{model.Health{Path: "/", Expect: &model.HealthExpect{JSON: "json.status =="}}, "cannot be read"},
		{model.Health{Path: "/", Expect: &model.HealthExpect{JSON: "status == 1"}}, "status"},
		{model.Health{Path: "/", Expect: &model.HealthExpect{JSON: "1 + 1"}}, "true or false is needed"},
	} {
		if err := Check(&test.health); err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(test.want)) {
			t.Errorf("%+v: %v, want %q", test.health.Expect, err, test.want)
		}
	}
}

func TestTheCausesOfFailedProbes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closes := make(chan struct{})
	go func() {
		defer close(closes)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close() // at once
		}
	}()
	e, _ := compile(nil)
	ask := newWeb("/", "", e, reach(t, l.Addr().String()), false)
	if err := ask.ask(t.Context()); probeCause(err) != probeClosed {
		t.Errorf("%v: %s", err, probeCause(err))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-closes
	if err := ask.ask(t.Context()); probeCause(err) != probeConnect {
		t.Errorf("%v: %s", err, probeCause(err))
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	if err := ask.ask(ctx); probeCause(err) != probeTimeout {
		t.Errorf("%v: %s", err, probeCause(err))
	}
}
