package metric

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestASeriesCountsExactlyWhileItSpreadsOverTheShards(t *testing.T) {
	var c Counter
	h := NewHistogram([]float64{1, 2})
	p := NewPack(3)
	var wg sync.WaitGroup
	const each = 2 * spreadAfter
	for shard := range uint32(Shards) {
		wg.Go(func() {
			for range each {
				c.Inc(shard)
				h.Observe(shard, 1.5)
				p.At(shard)[2].Add(2)
			}
		})
	}
	wg.Wait()
	const total = each * Shards
	if c.hot.Load() == nil || p.hot.Load() == nil {
		t.Error("a busy series did not spread")
	}
	if c.Value() != total {
		t.Errorf("counter %d, want %d", c.Value(), total)
	}
	cumulative, sum := h.Snapshot()
	if diff := cmp.Diff([]uint64{0, total, total}, cumulative); diff != "" || sum != total*1.5 {
		t.Errorf("histogram %s sum %v", diff, sum)
	}
	if diff := cmp.Diff([]uint64{7, 0, 0, 2 * total}, p.Sum([]uint64{7})); diff != "" {
		t.Error(diff)
	}
}

func TestABusySeriesHasCacheLinesOfItsOwn(t *testing.T) {
	p := NewPack(13)
	p.spread()
	for _, words := range p.hot.Load() {
		if len(words) != 13 || cap(words)%wordsPerLine != 0 {
			t.Errorf("%d words in a place of %d", len(words), cap(words))
		}
	}
}

func TestAValueOnABoundBelongsToItsBucket(t *testing.T) {
	h := NewHistogram([]float64{1, 2})
	for _, v := range []float64{0, 1, 1.001, 2, 3, math.Inf(1)} {
		h.Observe(0, v)
	}
	cumulative, _ := h.Snapshot()
	if diff := cmp.Diff([]uint64{2, 4, 6}, cumulative); diff != "" {
		t.Error(diff)
	}
}

func TestExpositionGolden(t *testing.T) {
	r := NewRegistry()
	r.Counter("headgate_berries_total", "Second.", Label{"api", "shop"}).Add(1, 3)
	r.Counter("headgate_berries_total", "Second.", Label{"api", "quote \" slash \\ line \n bad \xff"}).Inc(0)
	r.Gauge("headgate_a", "First\nline \\.").Set(-2)
	r.Float("headgate_ratio", "A fraction.").Set(0.25)
	h := r.Histogram("headgate_c_seconds", "Third.", []float64{0.1, 1}, Label{"api", "shop"})
	h.Observe(0, 0.05)
	h.Observe(1, 5)
	r.Collect("x", func(emit Emit) {
		emit("headgate_berries_total", "Second.", TypeCounter, 1e18, Label{"api", "other"}) // joins the family
		emit("headgate_dates", "Fourth.", TypeGauge, math.Inf(1))
	})
	r.Collect("y", func(emit Emit) { t.Error("a removed function was asked") })
	r.Collect("y", nil)
	r.Source("z", func(w *Text) {
		if w.Family("headgate_a", "Again.", TypeGauge) {
			t.Error("a family was begun twice")
		}
		w.Family("headgate_z", "Last.", TypeGauge)
		w.Sample(math.Inf(-1))
		w.Sample(math.NaN(), Label{"a", "1"}, Label{"b", "2"})
	})
	want := `# HELP headgate_a First\nline \\.
# TYPE headgate_a gauge
headgate_a -2
# HELP headgate_berries_total Second.
# TYPE headgate_berries_total counter
headgate_berries_total{api="quote \" slash \\ line \n bad ` + "\uFFFD" + `"} 1
headgate_berries_total{api="shop"} 3
headgate_berries_total{api="other"} 1e+18
# HELP headgate_c_seconds Third.
# TYPE headgate_c_seconds histogram
headgate_c_seconds_bucket{api="shop",le="0.1"} 1
headgate_c_seconds_bucket{api="shop",le="1"} 1
headgate_c_seconds_bucket{api="shop",le="+Inf"} 2
headgate_c_seconds_sum{api="shop"} 5.05
headgate_c_seconds_count{api="shop"} 2
# HELP headgate_dates Fourth.
# TYPE headgate_dates gauge
headgate_dates +Inf
# HELP headgate_metric_series_refused_total Series that were not kept because their family has too many.
# TYPE headgate_metric_series_refused_total counter
headgate_metric_series_refused_total 0
# HELP headgate_ratio A fraction.
# TYPE headgate_ratio gauge
headgate_ratio 0.25
# HELP headgate_z Last.
# TYPE headgate_z gauge
headgate_z -Inf
headgate_z{a="1",b="2"} NaN
`
	got := expose(t, r)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	problems, err := promlint.New(strings.NewReader(got)).Lint() // parses it with Prometheus' own parser
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

func TestTheSameSeriesIsReturnedAgainAndForgotten(t *testing.T) {
	r := NewRegistry()
	a := r.Counter("x_total", "X.", Label{"api", "shop"}, Label{"policy", "p"})
	if b := r.Counter("x_total", "X.", Label{"api", "shop"}, Label{"policy", "p"}); a != b {
		t.Error("a reload would start counting anew")
	}
	r.Forget(Label{"api", "shop"})
	if b := r.Counter("x_total", "X.", Label{"api", "shop"}, Label{"policy", "p"}); a == b {
		t.Error("a forgotten series came back")
	}
}

func TestANameTakenByAnotherTypeDoesNotCrash(t *testing.T) {
	r := NewRegistry()
	r.Counter("x", "X.").Inc(0)
	r.Gauge("x", "X.").Set(5)
	r.Float("x", "X.").Set(5)
	r.Histogram("x", "X.", []float64{1}).Observe(0, 1)
	if got := expose(t, r); !strings.Contains(got, "\nx 1\n") {
		t.Error(got)
	}
}

func TestAFamilyIsBounded(t *testing.T) {
	r := NewRegistry()
	for i := range maxSeries + 2 {
		r.Gauge("x", "X.", Label{"n", strings.Repeat("a", i%300) + string(rune('A'+i/300))})
	}
	if n := len(r.families["x"].series); n != maxSeries {
		t.Errorf("%d series", n)
	}
	if got := expose(t, r); !strings.Contains(got, "headgate_metric_series_refused_total 2\n") {
		t.Error("what was refused is not told")
	}
}

func TestCloseTellsTheFirstErrorOfWriting(t *testing.T) {
	broken := errors.New("broken")
	w := NewText(writerFunc(func([]byte) (int, error) { return 0, broken }))
	w.Family("x", "X.", TypeGauge)
	w.Sample(1)
	if err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestCountingDoesNotAllocate(t *testing.T) {
	var c Counter
	h, p := NewHistogram([]float64{1}), NewPack(20)
	for range spreadAfter + 1 {
		c.Inc(0)
		h.Observe(0, 1)
		p.At(0)
	}
	if n := testing.AllocsPerRun(100, func() { c.Inc(9); h.Observe(9, 2); p.At(9)[3].Add(1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func expose(t *testing.T, r *Registry) string {
	t.Helper()
	var b bytes.Buffer
	w := NewText(&b)
	r.Expose(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
