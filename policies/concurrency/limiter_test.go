package concurrency

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/gateway/policy/policytest"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// arrive runs the request step as the engine does and reports whether the exchange may go on.
func arrive(b *policytest.Bench, ctx context.Context, x *exchange.Exchange) bool {
	v := b.Hooks.Request.Now(x)
	if v.Waits() {
		v = b.Hooks.Request.Later(ctx, x)
	}
	return v.Continues()
}

func by(b *policytest.Bench, tenant string) *exchange.Exchange {
	return b.Exchange("GET /", "X-Tenant: "+tenant)
}

func TestWithoutAQueueTheOneTooManyIsRefusedAtOnce(t *testing.T) {
	for _, c := range []struct {
		options string
		status  int
		code    string
	}{
		{`{limit: 2, key: header.x-tenant}`, 503, "concurrency_full"},
		{`{total: 2}`, 503, "concurrency_full"},
		{`{limit: 2, status: 429, retry_after: 90s}`, 429, "concurrency_exceeded"},
	} {
		b := policytest.Open(t, Kind, c.options)
		first, second, third := by(b, "a"), by(b, "a"), by(b, "a")
		if !arrive(b, t.Context(), first) || !arrive(b, t.Context(), second) {
			t.Fatalf("%s: one of two was refused", c.options)
		}
		if arrive(b, t.Context(), third) {
			t.Fatalf("%s: a third runs beside two", c.options)
		}
		if third.Reply.Status != c.status || third.Err.Code.Name != c.code || !third.Reply.Header.Has("Retry-After") {
			t.Errorf("%s: %d %s %q", c.options, third.Reply.Status, third.Err.Code.Name, policytest.Lines(&third.Reply.Header))
		}
		b.Hooks.Done(third) // refused: holds nothing
		if arrive(b, t.Context(), by(b, "a")) {
			t.Errorf("%s: a refused exchange gave a place back", c.options)
		}
		b.Hooks.Done(first)
		b.Hooks.Done(first)
		if !arrive(b, t.Context(), by(b, "a")) {
			t.Errorf("%s: the place of one that ended was not free", c.options)
		}
		if arrive(b, t.Context(), by(b, "a")) {
			t.Errorf("%s: one exchange gave two places back", c.options)
		}
	}
}

func TestEachKeyHasPlacesOfItsOwn(t *testing.T) {
	b := policytest.Open(t, Kind, `{limit: 1, key: header.x-tenant}`)
	nobody := b.Exchange("GET /")
	elsewhere := b.Exchange("GET /")
	elsewhere.Client.IP = netip.MustParseAddr("192.0.2.2")
	for _, x := range []*exchange.Exchange{by(b, "a"), by(b, "b"), nobody, elsewhere, by(b, "192.0.2.1")} {
		if !arrive(b, t.Context(), x) {
			t.Errorf("%q from %v was refused beside others", x.Request.Header.Get("X-Tenant"), x.Client.IP)
		}
	}
	if arrive(b, t.Context(), b.Exchange("GET /")) {
		t.Error("a second request of nobody from the same address runs")
	}
}

func TestAWaiterIsLetInWhenAPlaceIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := policytest.Open(t, Kind, `{limit: 1, queue: 1, wait: 10s}`)
		first, second, third := by(b, "a"), by(b, "a"), by(b, "a")
		arrive(b, t.Context(), first)
		let := make(chan bool)
		go func() { let <- arrive(b, t.Context(), second) }()
		synctest.Wait()
		if arrive(b, t.Context(), third) {
			t.Error("a third was let in while a second waits")
		}
		if got := b.Metrics.Gauge("headgate_concurrency_waiting", "", labels...).Value(); got != 1 {
			t.Errorf("%d wait, want 1", got)
		}
		b.Hooks.Done(first)
		if !<-let {
			t.Error("the waiter was refused although the place is free")
		}
		b.Hooks.Done(second)
		if !arrive(b, t.Context(), by(b, "a")) {
			t.Error("the place is not free after both have ended")
		}
		if got := b.Count("headgate_concurrency_waited_total"); got != 1 {
			t.Errorf("%d have waited, want 1", got)
		}
	})
}

var labels = []metric.Label{{Name: "api", Value: "shop"}, {Name: "policy", Value: "concurrency"}}

func TestAWaiterIsRefusedAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := policytest.Open(t, Kind, `{limit: 1, queue: 5, wait: 3s}`)
		first := by(b, "a")
		arrive(b, t.Context(), first)
		late, began := by(b, "a"), time.Now()
		if arrive(b, t.Context(), late) {
			t.Fatal("let in although the place was never free")
		}
		if waited := time.Since(began); waited != 3*time.Second || late.Reply.Status != 503 {
			t.Errorf("refused with %d after %v, want 503 after 3s", late.Reply.Status, waited)
		}
		b.Hooks.Done(first)
		if !arrive(b, t.Context(), by(b, "a")) {
			t.Error("one who had given up took the place")
		}
	})
}

func TestAClientThatGoesAwayLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := policytest.Open(t, Kind, `{limit: 1, queue: 1, wait: 5m}`)
		first := by(b, "a")
		arrive(b, t.Context(), first)
		ctx, hangUp := context.WithCancel(t.Context())
		gone, left := by(b, "a"), make(chan bool)
		go func() { left <- arrive(b, ctx, gone) }()
		synctest.Wait()
		hangUp()
		if <-left || gone.Err.Code.Name != "client_gone" {
			t.Fatalf("the one who went away: %v", gone.Err)
		}
		b.Hooks.Done(gone)
		next := make(chan bool)
		go func() { next <- arrive(b, t.Context(), by(b, "a")) }()
		synctest.Wait()
		b.Hooks.Done(first)
		if !<-next {
			t.Error("the queue still has the one who went away")
		}
	})
}

func TestWithATotalThePlacesGoRoundTheKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := policytest.Open(t, Kind, `{total: 1, queue: 10, wait: 5m, key: header.x-tenant}`)
		first := by(b, "busy")
		arrive(b, t.Context(), first)
		order := make(chan *exchange.Exchange)
		for _, tenant := range []string{"busy", "busy", "busy", "quiet", "calm"} {
			x := by(b, tenant)
			go func() {
				if arrive(b, t.Context(), x) {
					order <- x
				}
			}()
			synctest.Wait() // so that they arrive in this order
		}
		b.Hooks.Done(first)
		var got []string
		for range 5 {
			x := <-order
			got = append(got, x.Request.Header.Get("X-Tenant"))
			b.Hooks.Done(x)
		}
		if want := []string{"busy", "quiet", "calm", "busy", "busy"}; !slices.Equal(got, want) {
			t.Errorf("let in %v, want %v", got, want)
		}
	})
}

func TestAReloadKeepsWhatRunsAndWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := policytest.Open(t, Kind, `{limit: 2, queue: 5, wait: 1m}`)
		old := b.Hooks
		first, second := by(b, "a"), by(b, "a")
		arrive(b, t.Context(), first)
		arrive(b, t.Context(), second)
		let := make(chan bool)
		go func() { let <- arrive(b, t.Context(), by(b, "a")) }()
		synctest.Wait()
		b.Reload(`{limit: 1}`)
		if arrive(b, t.Context(), by(b, "a")) {
			t.Error("after the reload two that run are forgotten")
		}
		old.Done(first)
		if !<-let {
			t.Error("who waited before the reload was not let in after it")
		}
		old.Done(second)
	})
}

func TestUnderLoadNeverTooManyRunAndEverybodyGetsIn(t *testing.T) {
	const keys, each, rounds = 5, 6, 40
	for _, options := range []string{`{limit: 2, `, `{total: 3, `, `{limit: 2, total: 3, `} {
		b := policytest.Open(t, Kind, options+`queue: 100, wait: 5m, key: header.x-tenant}`)
		var running [keys]atomic.Int32
		var all, refused atomic.Int32
		var work sync.WaitGroup
		for n := range keys * each {
			key := n % keys
			work.Go(func() {
				for range rounds {
					x := by(b, fmt.Sprint(key))
					if !arrive(b, t.Context(), x) {
						refused.Add(1)
						continue
					}
					own, total := running[key].Add(1), all.Add(1)
					if strings.Contains(options, "limit") && own > 2 || strings.Contains(options, "total") && total > 3 {
						t.Errorf("%s %d of one key and %d in all run at one time", options, own, total)
					}
					running[key].Add(-1)
					all.Add(-1)
					b.Hooks.Done(x)
				}
			})
		}
		work.Wait()
		if n := refused.Load(); n > 0 {
			t.Errorf("%s %d were refused although all could wait", options, n)
		}
	}
}

func TestAFreePlaceCostsNoAllocation(t *testing.T) {
	for _, options := range []string{`{limit: 5}`, `{limit: 5, total: 100, queue: 10}`} {
		b := policytest.Open(t, Kind, options)
		x := by(b, "a")
		if n := testing.AllocsPerRun(200, func() {
			b.Hooks.Request.Now(x)
			b.Hooks.Done(x)
		}); n != 0 {
			t.Errorf("%s: %v allocations", options, n)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{`{}`, "neither limit nor total is given"},
		{`{limit: 1, status: 500}`, "status"},
		{`{limit: 1, key: "("}`, "key: "},
		{`{limit: 1, queue: 1000000}`, "queue"},
	} {
		if got := policytest.Wrong(t, Kind, c.options); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want something with %q", c.options, got, c.want)
		}
	}
}

func BenchmarkConcurrency(b *testing.B) {
	bench := policytest.Open(b, Kind, `{limit: 5, queue: 10}`)
	x := by(bench, "a")
	b.ReportAllocs()
	for b.Loop() {
		bench.Hooks.Request.Now(x)
		bench.Hooks.Done(x)
	}
}
