package release

import (
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/expr"
	"headgate/gateway/upstream"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// fixed answers everything at once, in the place of an upstream.
type fixed struct {
	status int
	asked  *int
}

type noCall struct{}

func (noCall) Close() {}

func (f fixed) Send(x *exchange.Exchange) (upstream.Call, error) {
	if f.asked != nil {
		*f.asked++
	}
	if f.status == 0 {
		return nil, &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream}
	}
	x.Reply.Status, x.Reply.Source = f.status, exchange.FromUpstream
	return noCall{}, nil
}

func newEnv() (Env, *metric.Registry) {
	r := metric.NewRegistry()
	return Env{Expr: expr.New(r), Metrics: r, Random: rand.Uint64}, r
}

// variants reads "v1=9 v2=1".
func variants(list string) map[string]model.Variant {
	all := map[string]model.Variant{}
	for _, one := range strings.Fields(list) {
		name, weight, _ := strings.Cut(one, "=")
		w, err := strconv.ParseFloat(weight, 64)
		if err != nil {
			panic(err)
		}
		all[name] = model.Variant{Upstream: name, Weight: w}
	}
	return all
}

func newSplit(t testing.TB, name string, m model.Split) *Split {
	t.Helper()
	e, _ := newEnv()
	to := map[string]Service{}
	for _, v := range m.Variants {
		to[v.Upstream] = fixed{status: 200}
	}
	s, err := NewSplit(name, &m, to, e)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// of returns the variant of a request with a header field X-Key.
func of(s *Split, key string, at time.Time) string {
	x := &exchange.Exchange{Start: at}
	x.Request.Header.Add("X-Key", key)
	v, _ := s.choose(x, 0)
	return v.name
}

const byHeader = "header.x-key"

func TestSharesAreThoseOfTheWeights(t *testing.T) {
	const n = 20_000
	for _, weights := range []string{"a=1 b=1", "a=9 b=1", "a=90 b=9.5 c=0.5", "a=1 b=2 c=3 d=4", "a=1 b=0", "a=1000 b=1"} {
		m := model.Split{Variants: variants(weights), By: byHeader}
		keyed, chance := newSplit(t, "shop", m), newSplit(t, "shop", model.Split{Variants: m.Variants})
		random := rand.New(rand.NewPCG(1, 2))
		byKey, byChance, total := map[string]int{}, map[string]int{}, 0.0
		for i := range n {
			byKey[of(keyed, "user-"+strconv.Itoa(i), noon)]++
			v, _ := chance.choose(&exchange.Exchange{}, random.Uint64())
			byChance[v.name]++
		}
		for _, v := range m.Variants {
			total += v.Weight
		}
		for name, v := range m.Variants {
			p := v.Weight / total
			want, off := p*n, 5*math.Sqrt(n*p*(1-p)) // five standard deviations
			if got := float64(byKey[name]); math.Abs(got-want) > off {
				t.Errorf("%s: %s gets %v of %d keys, want %v, give or take %v", weights, name, got, n, want, off)
			}
			if got := float64(byChance[name]); math.Abs(got-want) > off {
				t.Errorf("%s: %s gets %v of %d by chance, want %v, give or take %v", weights, name, got, n, want, off)
			}
		}
	}
}

func TestOnlyThoseWhoMustMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d", "e"}[:rapid.IntRange(2, 5).Draw(t, "variants")]
		before, after := map[string]model.Variant{}, map[string]model.Variant{}
		for _, n := range names {
			before[n] = model.Variant{Upstream: n, Weight: rapid.Float64Range(0.1, 100).Draw(t, n)}
			after[n] = before[n]
		}
		grown := rapid.SampledFrom(names).Draw(t, "grown")
		after[grown] = model.Variant{Upstream: grown, Weight: before[grown].Weight * rapid.Float64Range(1, 50).Draw(t, "by")}
		one := quick("shop", before)
		two := quick("shop", after)
		for i := range 300 {
			key := "key" + strconv.Itoa(i)
			was, is := of(one, key, noon), of(two, key, noon)
			if was != is && is != grown {
				t.Fatalf("%s moved from %s to %s, and only %s has grown", key, was, is, grown)
			}
			if again := of(one, key, noon.Add(time.Hour)); again != was {
				t.Fatalf("%s was %s and is %s, and nothing has changed", key, was, again)
			}
		}
	})
}

// quick is newSplit without a test.
func quick(name string, v map[string]model.Variant) *Split {
	e, _ := newEnv()
	s, err := NewSplit(name, &model.Split{Variants: v, By: byHeader}, nil, e)
	if err != nil {
		panic(err)
	}
	return s
}

func TestTwoSplitsAreIndependent(t *testing.T) {
	const n = 10_000
	m := model.Split{Variants: variants("a=1 b=1"), By: byHeader}
	shop, stock := newSplit(t, "shop", m), newSplit(t, "stock", m)
	alike := 0
	for i := range n {
		if key := strconv.Itoa(i); of(shop, key, noon) == of(stock, key, noon) {
			alike++
		}
	}
	if math.Abs(float64(alike)-n/2) > 5*math.Sqrt(n)/2 {
		t.Errorf("%d of %d keys get the same in both, want half of them", alike, n)
	}
}

func TestARampMovesKeysOneWayOnly(t *testing.T) {
	start := noon
	v := variants("old=100 new=0")
	v["new"] = model.Variant{Upstream: "new", Ramp: &model.Ramp{To: 100, Start: start, Over: time.Hour}}
	s := newSplit(t, "shop", model.Split{Variants: v, By: byHeader})
	const n = 2000
	moved := map[string]bool{}
	for _, step := range []struct {
		at    time.Duration
		share float64
	}{
		{-time.Hour, 0}, {0, 0}, {6 * time.Minute, 10. / 110}, {30 * time.Minute, 50. / 150}, {time.Hour, .5}, {1000 * time.Hour, .5},
	} {
		got := 0
		for i := range n {
			key := strconv.Itoa(i)
			switch isNew := of(s, key, start.Add(step.at)) == "new"; {
			case isNew:
				got++
				moved[key] = true
			case moved[key]:
				t.Fatalf("%s has moved back after %v", key, step.at)
			}
		}
		if off := 5 * math.Sqrt(n*step.share*(1-step.share)); math.Abs(float64(got)-step.share*n) > off {
			t.Errorf("after %v %d of %d are moved, want %v, give or take %v", step.at, got, n, step.share*n, off)
		}
	}
}

func TestARampGoesEvenlyBothWays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := rapid.Float64Range(0, 1000).Draw(t, "from"), rapid.Float64Range(0, 1000).Draw(t, "to")
		over := 10 * time.Duration(rapid.Int64Range(int64(100*time.Millisecond), int64(876*time.Hour)).Draw(t, "a tenth"))
		v := variant{weight: from, ramp: &ramp{to, noon, over}}
		last := from
		for i := range 11 {
			w := v.at(noon.Add(over / 10 * time.Duration(i)))
			if (to > from) != (w > last) && w != last {
				t.Fatalf("from %v to %v: %v comes after %v", from, to, w, last)
			}
			if want := from + (to-from)*float64(i)/10; math.Abs(w-want) > 1e-6*(1+want) {
				t.Fatalf("from %v to %v: %v after %d tenths, want %v", from, to, w, i, want)
			}
			last = w
		}
		if v.at(noon.Add(-over)) != from || v.at(noon.Add(2*over)) != to {
			t.Fatal("before it is what it was, and after it what it shall be")
		}
	})
}

func TestWhoMayNameAVariantGetsIt(t *testing.T) {
	m := model.Split{Variants: variants("old=1 new=0"), Header: "X-Variant", Cookie: "variant", Allow: `header.x-staff == "yes"`}
	open := m
	open.Allow = ""
	broken := m
	broken.Allow = `claim.level > 3` // without a token there is no answer
	for _, tt := range []struct {
		name   string
		m      model.Split
		fields []string
		want   string
		why    string
	}{
		{"nothing said", m, nil, "old", byNumber},
		{"the field", m, []string{"X-Staff", "yes", "x-variant", "new"}, "new", byOverride},
		{"the cookie", m, []string{"X-Staff", "yes", "Cookie", "a=b; variant=new"}, "new", byOverride},
		{"the field before the cookie", m, []string{"X-Staff", "yes", "X-Variant", "old", "Cookie", "variant=new"}, "old", byOverride},
		{"an unknown name, and a cookie", m, []string{"X-Staff", "yes", "X-Variant", "nwe", "Cookie", "variant=new"}, "new", byOverride},
		{"an unknown name", m, []string{"X-Staff", "yes", "X-Variant", "nwe"}, "old", byNumber},
		{"who may not", m, []string{"X-Variant", "new"}, "old", byNumber},
		{"everybody may", open, []string{"X-Variant", "new"}, "new", byOverride},
		{"nobody knows who may", broken, []string{"X-Variant", "new"}, "old", byNumber},
	} {
		s := newSplit(t, "shop", tt.m)
		x := new(exchange.Exchange)
		for i := 0; i < len(tt.fields); i += 2 {
			x.Request.Header.Add(tt.fields[i], tt.fields[i+1])
		}
		if v, why := s.choose(x, 1); v.name != tt.want || why != tt.why {
			t.Errorf("%s: %s by %s, want %s by %s", tt.name, v.name, why, tt.want, tt.why)
		}
	}
}

func TestWithoutAnyWeightNobodyIsAsked(t *testing.T) {
	m := model.Split{Variants: variants("old=0"), Header: "X-Variant"}
	asked := 0
	e, _ := newEnv()
	s, err := NewSplit("shop", &m, map[string]Service{"old": fixed{200, &asked}}, e)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Send(&exchange.Exchange{})
	var known *exchange.Error
	if !errors.As(err, &known) || known.Code != exchange.NoTarget || asked != 0 {
		t.Errorf("%v, and %d were asked", err, asked)
	}
}

func TestTheVariantIsCounted(t *testing.T) {
	e, r := newEnv()
	m := model.Split{Variants: variants("a=1 b=0 c=0"), Header: "X-Variant"}
	s, err := NewSplit("shop", &m, map[string]Service{"a": fixed{status: 204}, "b": fixed{status: 503}, "c": fixed{}}, e)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "a", "b", "c"} {
		x := &exchange.Exchange{}
		x.Request.Header.Add("X-Variant", name)
		x.Usage.UpstreamTime = time.Millisecond
		_, err := s.Send(x)
		if (err != nil) != (name == "c") || x.Usage.Variant != name {
			t.Errorf("%s: the record says %q, and %v", name, x.Usage.Variant, err)
		}
	}
	for _, tt := range []struct {
		variant, class string
		want           uint64
	}{{"a", "2xx", 2}, {"b", "5xx", 1}, {"c", "none", 1}, {"a", "none", 0}} {
		c := r.Counter("headgate_variant_requests_total", "", metric.Label{Name: "upstream", Value: "shop"},
			metric.Label{Name: "variant", Value: tt.variant}, metric.Label{Name: "status_class", Value: tt.class})
		if c.Value() != tt.want {
			t.Errorf("%s has %d of %s, want %d", tt.variant, c.Value(), tt.class, tt.want)
		}
	}
}

func TestMistakesOfASplitAreToldAtTheirPlace(t *testing.T) {
	e, _ := newEnv()
	for want, m := range map[string]model.Split{
		"by":             {Variants: variants("a=1"), By: "consumr"},
		"allow_override": {Variants: variants("a=1"), Header: "X-V", Allow: "consumer"},
		"header":         {Variants: variants("a=1"), Header: "X V"},
		"cookie":         {Variants: variants("a=1"), Cookie: "a;b"},
		"variants":       {Variants: variants("a=0 b=0")},
	} {
		_, err := NewSplit("shop", &m, nil, e)
		var at *decode.PathError
		if !errors.As(err, &at) || strings.Join(at.Path, ".") != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	m := model.Split{Variants: variants("a=1"), Allow: "true"}
	if _, err := NewSplit("shop", &m, nil, e); err == nil {
		t.Error("who may override what cannot be overridden?")
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	s := newSplit(t, "shop", model.Split{Variants: variants("a=9 b=1"), By: byHeader, Header: "X-Variant"})
	x := &exchange.Exchange{Start: noon}
	x.Request.Header.Add("X-Key", "somebody")
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.Send(x); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, by := range []string{"", byHeader} {
		b.Run("by="+by, func(b *testing.B) {
			s := newSplit(b, "shop", model.Split{Variants: variants("a=9 b=1"), By: by})
			x := &exchange.Exchange{Start: noon}
			x.Request.Header.Add("X-Key", "somebody")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Send(x); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
