package upstream

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/internal/metric"
)

func probed(m *model.Upstream) {
	m.Host = "shop.example"
	m.Health = &model.Health{Path: "/healthz", Interval: 10 * time.Millisecond, Timeout: 5 * time.Second, Unhealthy: 3, Healthy: 2}
}

func TestProbesTakeATargetOutAndBringItBack(t *testing.T) {
	var status, asked atomic.Int64
	status.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path != "/healthz" || r.Host != "shop.example" || r.Method != "GET" {
			t.Errorf("asked %s %s of %s", r.Method, r.URL, r.Host)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(status.Load()))
	}))
	defer s.Close()
	log := new(buffer)
	u := build(t, env(log), config(probed, s.Listener.Addr().String(), "127.0.0.1:1"))
	u.Start()
	u.Start() // a second document uses it: nothing is doubled
	state := func() string { return u.Status().Targets[0].State }
	until(t, "two probes", func() bool { return asked.Load() >= 2 })
	if state() != "available" {
		t.Errorf("%s", state())
	}
	status.Store(500)
	until(t, "it is out", func() bool { return state() == "unhealthy" })
	if why := u.Status().Targets[0].Why; !strings.Contains(why, "answered 500") {
		t.Errorf("why: %s", why)
	}
	status.Store(302) // not followed
	until(t, "it is back", func() bool { return state() == "available" })
	for _, want := range []string{"a target is unhealthy", "a target is available again"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say that %s", want)
		}
	}
	until(t, "the one that nobody serves is out", func() bool { return u.Status().Targets[1].State == "unhealthy" })
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	n := asked.Load()
	s.Close() // waits for what runs
	if asked.Load() != n {
		t.Error("probed after it was closed")
	}
}

func TestProbesCanBeStartedAgain(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer s.Close()
	u := build(t, env(new(buffer)), config(probed, s.Listener.Addr().String()))
	for range 5 {
		n := asked.Load()
		u.Start()
		until(t, "a probe", func() bool { return asked.Load() > n })
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatOperatorsSeeOfAnUpstream(t *testing.T) {
	o := serve(t, answers(ok, 0))
	e := env(new(buffer))
	u := build(t, e, config(nil, o.address(), "127.0.0.1:1"))
	u.set.Load().wanted[1].weight = 0
	u.Start()
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Fatal(code)
	}
	s := u.Status()
	if s.Name != "shop" || s.Balance != "least-latency" || len(s.Targets) != 2 {
		t.Fatalf("%+v", s)
	}
	if a := s.Targets[0]; a.Address != o.address() || a.State != "available" || a.Idle != 1 || a.Weight != 1 || a.LatencyMS <= 0 {
		t.Errorf("%+v", a)
	}
	if b := s.Targets[1]; b.State != "off" || b.Why != "" {
		t.Errorf("%+v", b)
	}
	var text strings.Builder
	w := metric.NewText(&text)
	e.Metrics.Expose(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`headgate_target_available{upstream="shop",target="` + o.address() + `"} 1`,
		`headgate_target_available{upstream="shop",target="127.0.0.1:1"} 0`,
		`headgate_target_idle_connections{upstream="shop",target="` + o.address() + `"} 1`,
		`headgate_target_in_flight{upstream="shop",target="` + o.address() + `"} 0`,
	} {
		if !strings.Contains(text.String(), want+"\n") {
			t.Errorf("the metrics lack %s:\n%s", want, text.String())
		}
	}
}
