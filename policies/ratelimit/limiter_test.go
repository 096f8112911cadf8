package ratelimit

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/policy/policytest"
	"headgate/internal/counter"
)

// send runs one request through the policy's hooks, as the engine does, and returns the exchange.
func send(b *policytest.Bench, x *exchange.Exchange) *exchange.Exchange {
	if b.Hooks.Request.Now(x).Continues() {
		x.Reply.Status = 200
	}
	if b.Hooks.Response.Now != nil {
		b.Hooks.Response.Now(x)
		b.Hooks.Done(x)
	}
	return x
}

func TestTheLimitIsSpentToldRefusedAndComesBack(t *testing.T) {
	b := policytest.Open(t, Kind, `{limit: 3, per: 1m}`)
	for i, c := range []struct {
		after     time.Duration
		status    int
		rateLimit string
		retry     string
	}{
		{0, 200, `"default";r=2;t=40`, ""},
		{0, 200, `"default";r=1;t=20`, ""},
		{0, 200, `"default";r=0;t=20`, ""},
		{5 * time.Second, 429, `"default";r=0;t=15`, "15"},
		{14500 * time.Millisecond, 429, `"default";r=0;t=1`, "1"},
		{500 * time.Millisecond, 200, `"default";r=0;t=20`, ""},
		{time.Hour, 200, `"default";r=2;t=40`, ""},
	} {
		b.Clock.Advance(c.after)
		x := send(b, b.Exchange("GET /"))
		h := &x.Reply.Header
		if x.Reply.Status != c.status || h.Get("RateLimit") != c.rateLimit || h.Get("Retry-After") != c.retry {
			t.Errorf("request %d: %d %q, want %d %q Retry-After %q", i, x.Reply.Status, policytest.Lines(h), c.status, c.rateLimit, c.retry)
		}
		if got := h.Get("RateLimit-Policy"); got != `"default";q=3;w=60` {
			t.Errorf("request %d: RateLimit-Policy %s", i, got)
		}
	}
}

func TestWhoIsCountedApart(t *testing.T) {
	alice, bob := &exchange.Consumer{Name: "alice"}, &exchange.Consumer{Name: "192.0.2.1"}
	type caller struct {
		consumer *exchange.Consumer
		ip       string
		tenant   string
	}
	for _, c := range []struct {
		name, key     string
		first, second caller
		same          bool
	}{
		{"one consumer from two places", "", caller{alice, "192.0.2.1", ""}, caller{alice, "192.0.2.2", ""}, true},
		{"two consumers from one place", "", caller{alice, "192.0.2.1", ""}, caller{bob, "192.0.2.1", ""}, false},
		{"nobody from one place", "", caller{nil, "192.0.2.1", ""}, caller{nil, "192.0.2.1", ""}, true},
		{"nobody from two places", "", caller{nil, "192.0.2.1", ""}, caller{nil, "192.0.2.2", ""}, false},
		{"a consumer called like an address", "consumer", caller{bob, "192.0.2.9", ""}, caller{nil, "192.0.2.1", ""}, false},
		{"addresses of one IPv6 subscriber", "client.ip", caller{alice, "2001:db8::1", ""}, caller{bob, "2001:db8::2", ""}, true},
		{"two IPv6 subscribers", "client.ip", caller{alice, "2001:db8::1", ""}, caller{alice, "2001:db8:0:1::1", ""}, false},
		{"one tenant", "header.x-tenant", caller{alice, "192.0.2.1", "a"}, caller{nil, "192.0.2.2", "a"}, true},
		{"two tenants", "header.x-tenant", caller{alice, "192.0.2.1", "a"}, caller{alice, "192.0.2.1", "b"}, false},
		{"no tenant falls back to the address", "header.x-tenant", caller{alice, "192.0.2.1", ""}, caller{bob, "192.0.2.1", ""}, true},
		{"a tenant called like an address", "header.x-tenant", caller{nil, "192.0.2.1", ""}, caller{nil, "192.0.2.2", "192.0.2.1"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := policytest.Open(t, Kind, fmt.Sprintf("{limit: 1, per: 1h, key: %q}", c.key))
			ask := func(who caller) int {
				x := b.Exchange("GET /")
				x.Consumer, x.Client.IP = who.consumer, netip.MustParseAddr(who.ip)
				if who.tenant != "" {
					x.Request.Header.Add("X-Tenant", who.tenant)
				}
				return send(b, x).Reply.Status
			}
			if got := ask(c.first); got != 200 {
				t.Fatalf("the first request: %d", got)
			}
			if got := ask(c.second) == 429; got != c.same {
				t.Errorf("counted together: %v, want %v", got, c.same)
			}
		})
	}
}

func TestWhatARequestCosts(t *testing.T) {
	for _, c := range []struct {
		cost   string
		status int
		left   string
	}{
		{"", 200, "r=9"}, {"4", 200, "r=6"}, {"0", 200, "r=10"}, {"10", 200, "r=0"},
		{"11", 429, "r=10"}, {"-5", 200, "r=9"}, {"lots", 200, "r=9"}, {"99999999999999999999", 200, "r=9"},
	} {
		b := policytest.Open(t, Kind, `{limit: 10, per: 1m, cost: header.x-cost}`)
		x := send(b, b.Exchange("GET /", "X-Cost: "+c.cost))
		if got := x.Reply.Header.Get("RateLimit"); x.Reply.Status != c.status || !strings.Contains(got, ";"+c.left+";") {
			t.Errorf("cost %q: %d %s, want %d %s", c.cost, x.Reply.Status, got, c.status, c.left)
		}
		if c.status == 429 && x.Reply.Header.Has("Retry-After") {
			t.Errorf("cost %q: Retry-After for a request that will never be allowed", c.cost)
		}
	}
}

func TestSeveralLimitsTellAllInTheDocumentsOrder(t *testing.T) {
	first := newFields("burst", counter.Rate{Limit: 10, Per: time.Second, Burst: 10})
	second := newFields("daily", counter.Rate{Limit: 1000, Per: 24 * time.Hour, Burst: 1000})
	for _, c := range []struct {
		name            string
		upstream        []string
		policies, limit string
	}{
		{"nothing from the upstream", nil, `"burst";q=10;w=1, "daily";q=1000;w=86400`, `"burst";r=9;t=1, "daily";r=500;t=43200`},
		{"the upstream's own limit stays",
			[]string{`RateLimit-Policy: "u";q=5`, `RateLimit: "u";r=1`},
			`"burst";q=10;w=1, "daily";q=1000;w=86400, "u";q=5`, `"burst";r=9;t=1, "daily";r=500;t=43200, "u";r=1`},
		{"an older draft's syntax would spoil the list",
			[]string{`RateLimit: limit=5, remaining=1`},
			`"burst";q=10;w=1, "daily";q=1000;w=86400`, `"burst";r=9;t=1, "daily";r=500;t=43200`},
	} {
		var h exchange.Header
		policytest.Fill(&h, c.upstream...)
		second.add(&h, counter.Result{Allowed: true, Remaining: 500, Reset: 12 * time.Hour})
		first.add(&h, counter.Result{Allowed: true, Remaining: 9, Reset: time.Second / 10})
		if got := slices.Collect(h.Values("RateLimit-Policy")); !slices.Equal(got, []string{c.policies}) {
			t.Errorf("%s: RateLimit-Policy %q, want %q", c.name, got, c.policies)
		}
		if got := slices.Collect(h.Values("RateLimit")); !slices.Equal(got, []string{c.limit}) {
			t.Errorf("%s: RateLimit %q, want %q", c.name, got, c.limit)
		}
	}
}

func TestNamesAndWindowsThatFieldsCannotCarryAreWrittenSoThatTheyCan(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"rate-limit", `"default";q=5`}, {`my "own" \ limit`, `"my \"own\" \\ limit";q=5`}, {"größe", `"gr--e";q=5`},
	} {
		f := newFields(c.name, counter.Rate{Limit: 5, Per: 1500 * time.Millisecond, Burst: 5})
		if f.policy != c.want {
			t.Errorf("%s: %s, want %s", c.name, f.policy, c.want)
		}
	}
}

func TestAReloadKeepsWhatWasSpent(t *testing.T) {
	b := policytest.Open(t, Kind, `{limit: 10, per: 1m}`)
	for range 4 {
		send(b, b.Exchange("GET /"))
	}
	b.Reload(`{limit: 20, per: 1m}`)
	if got := send(b, b.Exchange("GET /")).Reply.Header.Get("RateLimit"); got != `"default";r=15;t=45` {
		t.Errorf("after the reload: %s, want 4 units spent before it and 1 since", got)
	}
}

// away is a shared store that needs waiting for, or is down.
type away struct{ err error }

func (a away) Limiter(string, counter.Rate) counter.Limiter { return a }
func (a away) Take(_ string, _ int64, _ time.Time, wait bool) (counter.Result, bool, error) {
	return counter.Result{Allowed: true}, wait, a.err
}

func TestASharedStoreIsWaitedForAndItsFailureIsAFailure(t *testing.T) {
	hooks, err := build(Config{Limit: 1, Per: time.Second}, policy.Env{Counters: away{}})
	if err != nil {
		t.Fatal(err)
	}
	x := new(exchange.Exchange)
	if v := hooks.Request.Now(x); !v.Waits() {
		t.Errorf("Now does not wait: %+v", v)
	}
	if v := hooks.Request.Later(t.Context(), x); !v.Continues() {
		t.Errorf("Later does not let pass: %+v", v)
	}
	down := errors.New("the store is down")
	hooks, err = build(Config{Limit: 1, Per: time.Second}, policy.Env{Counters: away{down}})
	if err != nil {
		t.Fatal(err)
	}
	if v := hooks.Request.Now(x); !errors.Is(v.Err(), down) {
		t.Errorf("a store that is down: %+v", v)
	}
}

func TestTheFastPathAllocatesNothingButTheText(t *testing.T) {
	for _, c := range []struct {
		options string
		want    float64
	}{
		{`{limit: 1000000, per: 1s, headers: false}`, 0},
		{`{limit: 1000000, per: 1s, headers: false, key: header.x-tenant}`, 0},
		{`{limit: 1000000, per: 1s}`, 1},
	} {
		b := policytest.Open(t, Kind, c.options)
		x := b.Exchange("GET /", "X-Tenant: a")
		send(b, x)
		got := testing.AllocsPerRun(200, func() {
			x.Reply.Header.Reset("")
			send(b, x)
		})
		if got != c.want {
			t.Errorf("%s: %v allocations, want %v", c.options, got, c.want)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{`{limit: 1, per: 1s, scope: cluster}`, `"cluster" needs a store that the nodes share, and there is none in this version`},
		{`{limit: 1, per: 1s, scope: galaxy}`, `"galaxy" is not a scope; write node`},
		{`{limit: 100000000, per: 1s}`, `100000000 in 1s is more than 10000000 in a second`},
		{`{limit: 0, per: 1s}`, `limit`},
		{`{limit: 1}`, `per is missing`},
		{`{limit: 1, per: 1s, key: "header."}`, `key: `},
		{`{limit: 1, per: 1s, cost: "1 +"}`, `cost: `},
	} {
		if got := policytest.Wrong(t, Kind, c.options); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want something with %q", c.options, got, c.want)
		}
	}
}

func BenchmarkRateLimit(b *testing.B) {
	for _, headers := range []bool{false, true} {
		b.Run(fmt.Sprint("headers=", headers), func(b *testing.B) {
			bench := policytest.Open(b, Kind, fmt.Sprintf("{limit: 10000000, per: 1s, burst: 1000000000, headers: %v}", headers))
			x := bench.Exchange("GET /")
			x.Consumer = &exchange.Consumer{Name: "alice"}
			b.ReportAllocs()
			for b.Loop() {
				x.Reply.Header.Reset("")
				x.Start = x.Start.Add(time.Microsecond)
				if send(bench, x).Reply.Status != 200 {
					b.Fatal("refused")
				}
			}
		})
	}
}
