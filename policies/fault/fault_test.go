package fault

import (
	"context"
	"errors"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/policy/policytest"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/size"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var hello = policytest.Reply(200, "text/plain", "hello")

func TestWhatIsDoneIsToldInTheReply(t *testing.T) {
	for _, c := range []struct {
		options string
		status  int
		field   string
		asked   bool
		body    string // what the client gets of it
	}{
		{`{abort: {}}`, 503, "abort", false, ""},
		{`{abort: {status: 429}}`, 429, "abort", false, ""},
		{`{abort: {percent: 0}}`, 200, "", true, "hello"},
		{`{delay: {for: 1ms}}`, 200, "delay=1", true, "hello"},
		{`{delay: {for: 2ms}, abort: {status: 500}}`, 500, "delay=2, abort", false, ""},
		{`{cut: {after: 2}}`, 200, "cut", true, "he"},
		{`{cut: {after: 0}}`, 200, "cut", true, ""},
		{`{cut: {after: 5}}`, 200, "", true, "hello"},
		{`{cut: {after: 0}, abort: {}}`, 503, "abort", false, ""},
		{`{bandwidth: {reply: 1MiB}}`, 200, "bandwidth", true, "hello"},
		{`{bandwidth: {request: 1MiB}, cut: {after: 4}}`, 200, "cut, bandwidth", true, "hell"},
	} {
		t.Run(c.options, func(t *testing.T) {
			b := policytest.Open(t, Kind, c.options)
			x := policytest.Request("GET /")
			out := b.Run(x, hello)
			if out.Status != c.status || x.Reply.Header.Get(field) != c.field || out.Asked != c.asked {
				t.Errorf("%d, %s: %q, upstream asked: %v", out.Status, field, x.Reply.Header.Get(field), out.Asked)
			}
			if c.status == 200 && out.Body != c.body {
				t.Errorf("the client reads %q, want %q", out.Body, c.body)
			}
			if broken := c.status == 200 && c.body != "hello"; broken != (out.BodyErr != nil) {
				t.Errorf("the body ends with %v", out.BodyErr)
			}
			for _, kind := range []string{"delay", "abort", "cut", "bandwidth"} {
				want := uint64(strings.Count(c.field, kind))
				if n := b.Count("headgate_faults_injected_total", metric.Label{Name: "fault", Value: kind}); n != want {
					t.Errorf("%d exchanges are counted for %s, want %d", n, kind, want)
				}
			}
		})
	}
}

func TestAnAbortIsAProblemWithItsOwnCodeAndStatus(t *testing.T) {
	b := policytest.Open(t, Kind, `{abort: {status: 504}}`)
	x := policytest.Request("GET /")
	out := b.Run(x, hello)
	if !strings.Contains(out.Body, `"status":504`) || !strings.Contains(out.Body, `"code":"fault_injected"`) {
		t.Errorf("%s", out.Body)
	}
	if x.Err == nil || x.Err.Code != injected || x.Err.Source != exchange.FromGateway {
		t.Errorf("recorded as %+v", x.Err)
	}
}

func TestACutIsAnErrorOfTheGatewaysAndNotTheServices(t *testing.T) {
	out := policytest.Open(t, Kind, `{cut: {}}`).Run(policytest.Request("GET /"), hello)
	if e, ok := errors.AsType[*exchange.Error](out.BodyErr); !ok || e.Code != injected || e.Source != exchange.FromGateway {
		t.Errorf("%v", out.BodyErr)
	}
}

func TestAReplyWithoutABodyIsNotCut(t *testing.T) {
	b := policytest.Open(t, Kind, `{cut: {}}`)
	x := policytest.Request("GET /")
	if out := b.Run(x, policytest.Reply(204, "", "")); out.BodyErr != nil || x.Reply.Header.Has(field) {
		t.Errorf("%v, %s", out.BodyErr, x.Reply.Header.Get(field))
	}
}

func TestTheShareIsWhatPercentSays(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		percent := rapid.SampledFrom([]float64{0, 0.5, 1, 10, 33.3, 50, 99, 100}).Draw(rt, "percent")
		keyed := rapid.Bool().Draw(rt, "keyed")
		options := `{abort: {percent: ` + strconv.FormatFloat(percent, 'f', -1, 64) + `}`
		if keyed {
			options += `, key: header.x-user`
		}
		b := policytest.Open(t, Kind, options+"}")
		const n = 20_000
		hits := 0
		x := b.Exchange("GET /")
		for i := range n {
			x.Request.Header.Set("X-User", strconv.Itoa(i))
			if b.Hooks.Request.Now(x).Answers() {
				hits++
			}
		}
		want := n * percent / 100
		if bound := 5*math.Sqrt(want*(1-percent/100)) + 1e-9; math.Abs(float64(hits)-want) > bound {
			rt.Errorf("%d of %d are hit, want %.0f ± %.0f", hits, n, want, bound)
		}
	})
}

func TestAKeyIsHitAlwaysOrNever(t *testing.T) {
	verdicts := func(w *policytest.World, options string) (list []bool) {
		b := w.Build(Kind, options)
		defer b.Close()
		for i := range 2000 {
			x := policytest.Request("GET /", "X-User: "+strconv.Itoa(i))
			out := b.Run(x, hello)
			list = append(list, out.Status != 200)
		}
		return list
	}
	differ := func(a, b []bool) (n int) {
		for i := range a {
			if a[i] != b[i] {
				n++
			}
		}
		return n
	}
	const keyed = `{abort: {percent: 50}, key: header.x-user}`
	one, other := policytest.New(t), policytest.New(t)
	other.Random = func() uint64 { return 0 } // another node, with another luck
	first := verdicts(one, keyed)
	if n := differ(first, verdicts(one, keyed)) + differ(first, verdicts(other, keyed)); n != 0 {
		t.Errorf("%d keys are hit at one time and not at another", n)
	}
	if n := differ(first, verdicts(one, `{abort: {percent: 50}, key: header.x-none}`)); n < 500 {
		t.Errorf("without a key it is not by chance: only %d differ", n)
	}
	grown := verdicts(one, `{abort: {percent: 60}, key: header.x-user}`)
	for i := range first {
		if first[i] && !grown[i] {
			t.Fatalf("key %d was hit at 50 %% and is not at 60 %%", i)
		}
	}
}

func TestOneKeyIsAnotherTossForEachKindOfFault(t *testing.T) {
	aborts := policytest.Open(t, Kind, `{abort: {percent: 50}, key: header.x-user}`)
	cuts := policytest.Open(t, Kind, `{cut: {percent: 50}, key: header.x-user}`)
	seen := map[[2]bool]int{}
	for i := range 400 {
		user := "X-User: " + strconv.Itoa(i)
		a, c := aborts.Run(policytest.Request("GET /", user), hello), cuts.Run(policytest.Request("GET /", user), hello)
		seen[[2]bool{a.Status == 503, c.BodyErr != nil}]++
	}
	for _, combination := range [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
		if n := seen[combination]; n < 50 || n > 150 {
			t.Errorf("aborted and cut %v: %d of 400", combination, n)
		}
	}
}

func TestADelayTakesItsTimeAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := policytest.Open(t, Kind, `{delay: {for: 200ms, jitter: 100ms}}`)
		shortest, longest := time.Hour, time.Duration(0)
		for range 500 {
			x := b.Exchange("GET /")
			if !b.Hooks.Request.Now(x).Waits() {
				t.Fatal("nobody waits")
			}
			start := time.Now()
			if v := b.Hooks.Request.Later(x.Context(), x); !v.Continues() {
				t.Fatalf("%+v", v)
			}
			d := time.Since(start)
			shortest, longest = min(shortest, d), max(longest, d)
			b.Hooks.Response.Now(x)
			if want := "delay=" + strconv.FormatInt(d.Milliseconds(), 10); x.Reply.Header.Get(field) != want {
				t.Fatalf("%s, want %s", x.Reply.Header.Get(field), want)
			}
			x.Cancel.Rest()
		}
		if low, high := shortest.Milliseconds(), longest.Milliseconds(); low < 100 || low > 105 || high > 300 || high < 295 {
			t.Errorf("between %v and %v", shortest, longest)
		}
	})
}

func TestADelayEndsWithItsExchange(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(context.Context) (context.Context, context.CancelFunc)
		code exchange.Code
	}{
		"the client goes": {context.WithCancel, exchange.ClientGone},
		"its deadline passes": {func(c context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(c, time.Second)
		}, exchange.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := policytest.Open(t, Kind, `{delay: {for: 1m}}`)
				x := b.Exchange("GET /")
				b.Hooks.Request.Now(x)
				ctx, cancel := test.end(t.Context())
				defer cancel()
				if test.code == exchange.ClientGone {
					time.AfterFunc(time.Second, cancel)
				}
				start := time.Now()
				if v := b.Hooks.Request.Later(ctx, x); !v.Answers() || x.Err.Code != test.code || time.Since(start) != time.Second {
					t.Errorf("%+v after %v, %v", v, time.Since(start), x.Err)
				}
			})
		})
	}
}

func TestOnlySoManyAreDelayedAtOneTime(t *testing.T) {
	b := policytest.Open(t, Kind, `{delay: {for: 5m}}`)
	b.Metrics.Gauge("headgate_faults_delayed", "", b.Env(Kind).Labels...).Set(maxDelayed)
	x := policytest.Request("GET /")
	if out := b.Run(x, hello); out.Status != 200 || x.Reply.Header.Has(field) {
		t.Errorf("%d, %s", out.Status, x.Reply.Header.Get(field))
	}
}

func TestInShadowNobodyIsMadeToWait(t *testing.T) {
	w := policytest.New(t)
	e := w.Env(Kind)
	e.Shadow = true
	hooks, err := build(Config{Delay: &delay{For: time.Minute, Percent: 100}}, e)
	if err != nil {
		t.Fatal(err)
	}
	x := policytest.Request("GET /")
	x.MakeSlots(e.Slots.Len())
	if !hooks.Request.Now(x).Continues() {
		t.Error("a rehearsal delays")
	}
}

// system builds the policy on the machine's clock, which in a bubble moves with its timers.
func system(t *testing.T, c Config) (policy.Hooks, *exchange.Exchange) {
	e := policytest.New(t).Env(Kind)
	e.Clock = clock.System{}
	hooks, err := build(c, e)
	if err != nil {
		t.Fatal(err)
	}
	x := policytest.Request("GET /")
	x.MakeSlots(e.Slots.Len())
	if !hooks.Request.Now(x).Continues() {
		t.Fatal("it waits")
	}
	return hooks, x
}

func TestABodyIsCarriedNoFasterThanTheBandwidth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rate := rapid.IntRange(1, 1<<20).Draw(rt, "rate")
		length := rapid.IntRange(0, min(20*rate, 1<<17)).Draw(rt, "length")
		request := rapid.Bool().Draw(rt, "request")
		synctest.Test(t, func(t *testing.T) {
			c := Config{Bandwidth: &bandwidth{Percent: 100}}
			if request {
				c.Bandwidth.Request = size.Bytes(rate)
			} else {
				c.Bandwidth.Reply = size.Bytes(rate)
			}
			hooks, x := system(t, c)
			wrap := hooks.ResponseBody
			if request {
				wrap = hooks.RequestBody
			}
			start := time.Now()
			got, err := io.ReadAll(wrap(x, strings.NewReader(strings.Repeat("x", length))))
			took, due := time.Since(start), time.Duration(length)*time.Second/time.Duration(rate)
			if err != nil || len(got) != length || took > due || took < due-time.Duration(length+1) {
				rt.Errorf("%d of %d bytes at %d/s in %v, want %v; %v", len(got), length, rate, took, due, err)
			}
		})
	})
}

func TestWhatTheServiceItselfTakesIsNotAddedToTheBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hooks, x := system(t, Config{Bandwidth: &bandwidth{Reply: 1000, Percent: 100}})
		slow := readerFunc(func(b []byte) (int, error) { time.Sleep(time.Millisecond); return copy(b, "x"), nil }) // 1000/s by itself
		start := time.Now()
		if _, err := io.ReadFull(hooks.ResponseBody(x, slow), make([]byte, 2000)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("2000 bytes in %v", d)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestASlowBodyEndsWithItsExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hooks, x := system(t, Config{Bandwidth: &bandwidth{Reply: 1, Percent: 100}})
		body := hooks.ResponseBody(x, strings.NewReader("hello"))
		time.AfterFunc(1500*time.Millisecond, x.Cancel.Cancel)
		got, err := io.ReadAll(body)
		if string(got) != "h" || !errors.Is(err, context.Canceled) {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestABodysOwnErrorIsHandedOn(t *testing.T) {
	broken := errors.New("the service broke off")
	b := policytest.Open(t, Kind, `{cut: {after: 100}}`)
	x := b.Exchange("GET /")
	b.Hooks.Request.Now(x)
	x.Reply.Body = exchange.Body{Reader: io.MultiReader(strings.NewReader("he"), iotest.ErrReader(broken)), Length: -1}
	b.Hooks.Response.Now(x)
	if got, err := io.ReadAll(b.Hooks.ResponseBody(x, x.Reply.Body.Reader)); string(got) != "he" || !errors.Is(err, broken) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAnExchangeThatIsNotHitCostsNoAllocation(t *testing.T) {
	for _, options := range []string{
		`{delay: {for: 1s, percent: 0.000001}, abort: {percent: 0.000001}, cut: {percent: 0.000001},
			bandwidth: {reply: 1, request: 1, percent: 0.000001}}`,
		`{delay: {for: 1s, percent: 0.000001}, abort: {percent: 0.000001}, key: header.x-user}`,
	} {
		b := policytest.Open(t, Kind, options)
		x := b.Exchange("POST /", "X-User: ada")
		body := strings.NewReader("hello")
		x.Reply.Body = exchange.Text("hello")
		if n := testing.AllocsPerRun(200, func() {
			if !b.Hooks.Request.Now(x).Continues() {
				t.Fatal("hit")
			}
			b.Hooks.Response.Now(x)
			if b.Hooks.RequestBody != nil && (b.Hooks.RequestBody(x, body) != body || b.Hooks.ResponseBody(x, body) != body) {
				t.Fatal("a body was wrapped")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", options, n)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{`{}`, "no fault is given; write delay, abort, cut or bandwidth"},
		{`{delay: {}}`, "for is missing"},
		{`{delay: {for: 1s, jitter: 2s}}`, "delay.jitter: 2s is more than the delay of 1s"},
		{`{delay: {for: 10m}}`, `"10m" is out of range; allowed 1ms to 5m`},
		{`{abort: {status: 200}}`, "400 to 599"},
		{`{abort: {percent: 101}}`, "0 to 100"},
		{`{bandwidth: {}}`, "neither request nor reply"},
		{`{abort: {}, key: "header."}`, "key"},
		{`{abort: {}, latency: 1s}`, "latency"},
	} {
		if got := policytest.Wrong(t, Kind, c.options); !regexp.MustCompile(regexp.QuoteMeta(c.want)).MatchString(got) {
			t.Errorf("%s: %q, want something with %q", c.options, got, c.want)
		}
	}
}
