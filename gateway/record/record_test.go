package record

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/event"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var began = time.Date(2026, 11, 21, 4, 26, 4, 123_456_789, time.UTC)

// bench is a recorder with everything it needs, and what came out of it.
type rig struct {
	*Recorder
	clock  *clock.Manual
	events *event.Log
	own    *syncBuffer // the gateway's own log
	stop   context.CancelFunc
	done   chan error
}

func newRig(t testing.TB) *rig {
	g := &rig{clock: clock.NewManual(began.Add(1234567 * time.Nanosecond)), events: new(event.Log), own: new(syncBuffer)}
	g.Recorder = New(Config{
		Clock: g.clock, Metrics: metric.NewRegistry(), Events: g.events, Version: "1.2.3",
		Log: slog.New(slog.NewTextHandler(g.own, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	g.every = 5 * time.Millisecond
	t.Cleanup(g.finish)
	return g
}

// run starts the recorder; finish, at the end of the test at the latest, stops it and waits.
func (g *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	g.stop, g.done = cancel, make(chan error, 1)
	go func() { g.done <- g.Run(ctx) }()
}

func (g *rig) finish() {
	if g.stop != nil {
		g.stop()
		<-g.done
		g.stop = nil
	}
}

func (g *rig) configure(t testing.TB, s Settings) {
	t.Helper()
	if err := g.Configure(s); err != nil {
		t.Fatal(err)
	}
}

// settings returns the defaults of a document, logging to a file of its own.
func logTo(path string) Settings {
	var s Settings
	s.Access.SetDefaults()
	s.Tracing.SetDefaults()
	s.Access.To, s.Access.Flush = path, 10*time.Millisecond
	return s
}

// shop is an exchange as the engine leaves it behind: proxied, by a known consumer.
func shop() *exchange.Exchange {
	x := &exchange.Exchange{
		Start:  began,
		Client: exchange.Client{IP: netip.MustParseAddr("192.0.2.7"), Peer: netip.MustParseAddrPort("10.0.0.1:5555")},
		Request: exchange.Request{
			Method: "POST", Path: "/shop/orders", Query: "page=2&api_key=hunter2", HasQuery: true,
			Host: "shop.example.com", Scheme: "https", Proto: "HTTP/1.1",
		},
		Route:    &exchange.Route{API: "shop", Version: "v1", Name: "place order", Upstream: "orders"},
		Consumer: &exchange.Consumer{Name: "mobile-app"},
	}
	x.Request.Header.Add("User-Agent", "curl/8.5.0")
	x.Request.Header.Add("Accept", "*/*")
	x.Request.Header.Add("Authorization", "Bearer hunter2")
	return x
}

// answer fills in what the upstream's part leaves behind.
func answer(x *exchange.Exchange) {
	x.Reply.Status, x.Reply.Source = 201, exchange.FromUpstream
	x.Usage = exchange.Usage{
		RequestBytes: 17, ReplyBytes: 230, Target: "10.0.0.4:9000", Attempts: 1,
		UpstreamStart: 100 * time.Microsecond, UpstreamTime: 987 * time.Microsecond,
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// eventually waits until ok, which something that runs will make true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBeginAndEndAllocateTheCorrelationIDOnly(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Settings)
		want   float64
	}{
		{"json log", func(*Settings) {}, 1},
		{"text log", func(s *Settings) { s.Access.Format = "text" }, 1},
		{"no log", func(s *Settings) { s.Access.To = "off" }, 1},
		{"tracing, not sampled", func(s *Settings) { s.Tracing.Endpoint, s.Tracing.Ratio = "http://127.0.0.1:1", 0 }, 1},
		{"tracing, sampled", func(s *Settings) { s.Tracing.Endpoint, s.Tracing.Ratio = "http://127.0.0.1:1", 1 }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t)
			s := logTo(filepath.Join(t.TempDir(), "access.log"))
			c.change(&s)
			g.configure(t, s)
			if _, err := g.events.Subscribe(1000); err != nil {
				t.Fatal(err)
			}
			x := shop()
			meter := g.Route(x.Route)
			if l := g.current.Load().access; l != nil {
				l.shards[0].buf, l.chunk = make([]byte, 0, 512<<10), 512<<10 // no chunk fills up meanwhile
			}
			once := func() {
				g.Begin(x)
				answer(x)
				StampReply(x)
				g.End(x, meter)
			}
			once()
			if n := testing.AllocsPerRun(200, once); n != c.want {
				t.Errorf("%v allocations, want %v", n, c.want)
			}
		})
	}
}

// BenchmarkExchange is Begin and End of a proxied exchange, with the JSON log written to a file that costs nothing, the
// numbers and the usage event that nobody reads.
func BenchmarkExchange(b *testing.B) {
	for _, c := range []struct{ name, to, format string }{{"json", os.DevNull, "json"}, {"text", os.DevNull, "text"}, {"off", "off", "json"}} {
		b.Run(c.name, func(b *testing.B) {
			g := newRig(b)
			g.Recorder.clock = clock.System{}
			s := logTo(c.to)
			s.Access.Format, s.Access.Flush = c.format, 500*time.Millisecond
			g.configure(b, s)
			g.run()
			x := shop()
			x.Start = time.Now()
			meter := g.Route(x.Route)
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				g.Begin(x)
				answer(x)
				g.End(x, meter)
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op") // the background's part included
			b.ReportMetric(float64(g.dropped.Value())/float64(b.N), "dropped/op")
		})
	}
}

// cpu is the processor time that this process has used: on a machine that others use too the clock on the wall says little.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkLine(b *testing.B) {
	for _, format := range []string{"json", "text"} {
		b.Run(format, func(b *testing.B) {
			a := model.AccessLog{Format: format}
			m := newMask(nil)
			y, err := newLayout(&a, m, nil)
			if err != nil {
				b.Fatal(err)
			}
			x := shop()
			answer(x)
			x.ID = "01932a5b-0000-7000-8000-000000000000"
			x.Original = exchange.Original{Method: "POST", Host: "shop.example.com", Path: "/shop/orders"}
			l := &line{x: x, duration: 1234567, mask: m}
			buf := make([]byte, 0, 4096)
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				buf = y.append(buf[:0], l)
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
			b.SetBytes(int64(len(buf)))
		})
	}
}

var _ io.Writer = (*syncBuffer)(nil)
