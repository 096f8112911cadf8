package pool

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"headgate/gateway/wire/h1"
	"headgate/internal/clock"
	"headgate/internal/metric"
)

// answer is what a simulated address does: after so long it accepts, or fails with err.
type answer struct {
	after time.Duration
	err   error
}

// never is an address that swallows everything.
const never = time.Hour

// simulated is a network of addresses that do as they are told.
func simulated(t *testing.T, does map[string]answer, begun func(ip string)) Dial {
	return func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		ip := to.Addr().String()
		if begun != nil {
			begun(ip)
		}
		select {
		case <-time.After(does[ip].after):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if err := does[ip].err; err != nil {
			return nil, err
		}
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		return named{near, ip}, nil
	}
}

// named is a connection to an address.
type named struct {
	net.Conn
	ip string
}

func ips(list ...string) (all []netip.Addr) {
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

// simulation returns a pool to a host of the addresses.
func simulation(t *testing.T, connect time.Duration, does map[string]answer, list []string, begun func(string)) *Pool {
	s := Settings{Upstream: "shop", Clock: clock.System{}, Metrics: metric.NewRegistry(), Connect: connect, Dial: simulated(t, does, begun)}
	s.Lookup = func(context.Context, string) ([]netip.Addr, error) { return ips(list...), nil }
	id, err := ReadIdentity(nil)
	if err != nil {
		t.Fatal(err)
	}
	return NewGroup(s).New(At("http", "shop.example:80", "shop.example"), &h1.Plan{Limits: &h1.Limits{}}, id, func() bool { return true })
}

// The connection is made to whoever answers first, where each has a head start before the next one: 250 ms, or 50 ms once
// somebody has failed, or none when nobody is left who could answer.
func TestWhichAddressWinsAndWhen(t *testing.T) {
	const ms = time.Millisecond
	refused, hole, quick, both := answer{ms, syscall.ECONNREFUSED}, answer{after: never}, answer{after: ms}, []string{"::1", "192.0.2.1"}
	for name, c := range map[string]struct {
		does map[string]answer
		list []string
		want string // "": nobody
		took time.Duration
	}{
		"the first one answers":         {map[string]answer{"::1": quick}, both, "::1", ms},
		"the first one is a black hole": {map[string]answer{"::1": hole, "192.0.2.1": quick}, both, "192.0.2.1", 251 * ms},
		"the first one is slow, and still best": {map[string]answer{"::1": {after: 300 * ms}, "192.0.2.1": {after: 100 * ms}},
			both, "::1", 300 * ms},
		"the first one refuses": {map[string]answer{"::1": refused, "192.0.2.1": quick}, both, "192.0.2.1", 2 * ms},
		"all of a family are black holes": {map[string]answer{"::1": hole, "::2": hole, "::3": hole, "192.0.2.1": quick},
			[]string{"::1", "::2", "::3", "192.0.2.1"}, "192.0.2.1", 251 * ms},
		"a black hole and one that refuses": {map[string]answer{"::1": hole, "192.0.2.1": refused, "::2": quick},
			[]string{"::1", "192.0.2.1", "::2"}, "::2", 302 * ms},
		"all refuse":          {map[string]answer{"::1": refused, "192.0.2.1": refused}, both, "", 2 * ms},
		"all are black holes": {map[string]answer{"::1": hole, "192.0.2.1": hole}, both, "", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := simulation(t, 2*time.Second, c.does, c.list, nil)
				began := time.Now()
				conn, err := p.DialPlain(t.Context(), "", "")
				if took := time.Since(began); took != c.took {
					t.Errorf("after %v, want %v", took, c.took)
				}
				switch {
				case c.want == "" && err == nil:
					t.Errorf("connected to %s", conn.(named).ip)
				case c.want != "" && err != nil:
					t.Error(err)
				case c.want != "" && conn.(named).ip != c.want:
					t.Errorf("connected to %s, want %s", conn.(named).ip, c.want)
				}
				if err == nil {
					_ = conn.Close()
				}
				synctest.Wait() // and nobody is left, or the bubble would complain
			})
		})
	}
}

func TestTheAddressThatAnsweredIsTriedFirstTheNextTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var tried []string
		does := map[string]answer{"::1": {after: never}, "192.0.2.1": {after: time.Millisecond}}
		p := simulation(t, 2*time.Second, does, []string{"::1", "192.0.2.1"}, func(ip string) {
			mu.Lock()
			defer mu.Unlock()
			tried = append(tried, ip)
		})
		for range 2 {
			c, err := p.DialPlain(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			synctest.Wait()
		}
		if got := strings.Join(tried, " "); got != "::1 192.0.2.1 192.0.2.1" {
			t.Errorf("%s", got)
		}
		if list, _ := p.record.where.known(); strings.Join(list, " ") != "192.0.2.1 ::1" {
			t.Errorf("%v", list)
		}
		does["192.0.2.1"] = answer{err: syscall.ECONNREFUSED} // and when it does not any more, it is not
		does["::1"] = answer{after: time.Millisecond}
		c, err := p.DialPlain(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		synctest.Wait()
		if list, _ := p.record.where.known(); strings.Join(list, " ") != "::1 192.0.2.1" {
			t.Errorf("%v", list)
		}
	})
}

// Every address has its turn exactly once, the families alternate while []string{"::1", "192.0.2.1"} last, and the one that answered leads.
func TestAddressesAreTriedInTurnOfTheirFamilies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfNDistinct(rapid.SampledFrom(ips("::1", "::2", "::3", "::4", "192.0.2.1", "192.0.2.2", "192.0.2.3")), 1, 7,
			func(ip netip.Addr) netip.Addr { return ip }).Draw(t, "list")
		w := whereabouts{list: list, best: rapid.SampledFrom(append(ips("::9"), list...)).Draw(t, "best")}
		got := w.order()
		if len(got) != len(list) || slices.ContainsFunc(list, func(ip netip.Addr) bool { return !slices.Contains(got, ip) }) {
			t.Fatalf("%v of %v", got, list)
		}
		if slices.Contains(list, w.best) && got[0] != w.best || !slices.Contains(list, w.best) && got[0] != list[0] {
			t.Fatalf("%v of %v, best %v", got, list, w.best)
		}
		for i := 1; i < len(got); i++ {
			if left := got[i:]; got[i].Is6() == got[i-1].Is6() &&
				slices.ContainsFunc(left, func(ip netip.Addr) bool { return ip.Is6() != got[i].Is6() }) {
				t.Fatalf("%v: two of a family although the other one is not through", got)
			}
		}
	})
}

func TestNamesAreAskedForOnceInAWhile(t *testing.T) {
	now := clock.NewManual(time.Unix(1_000_000, 0))
	asked, fails := 0, error(nil)
	s := &Settings{Clock: now, Lookup: func(context.Context, string) ([]netip.Addr, error) {
		if asked++; fails != nil {
			return nil, fails
		}
		return ips("192.0.2.1"), nil
	}}
	var w whereabouts
	ask := func(wantAsked int, wantErr bool, what string) {
		t.Helper()
		list, err := w.of(t.Context(), s, "shop.example")
		if asked != wantAsked || (err != nil) != wantErr || (err == nil) != (len(list) == 1) {
			t.Errorf("%s: asked %d times, %v, %v", what, asked, list, err)
		}
		if err != nil && outcomeOf(err) != outcomeUnresolved {
			t.Errorf("%s: %v is not counted as unresolved", what, err)
		}
	}
	ask(1, false, "at first")
	now.Advance(freshAddresses - 1)
	ask(1, false, "while it is fresh")
	now.Advance(1)
	ask(2, false, "afterwards")
	fails = errors.New("no such host")
	now.Advance(freshAddresses)
	ask(3, false, "when asking fails, what was known stays")
	ask(3, false, "and it is not asked again at once")
	now.Advance(staleAddresses)
	ask(4, true, "but not for ever")
	now.Advance(failedAddresses)
	ask(5, true, "then it is asked more often")
	fails = nil
	ask(5, true, "though not all the time")
	now.Advance(failedAddresses)
	ask(6, false, "until it is there again")
	now.Advance(-time.Hour)
	ask(7, false, "a clock that was set back makes nothing last")
}

func TestWhoComesWhileANameIsAskedForWaitsForTheSameAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		s := &Settings{Clock: clock.System{}, Lookup: func(ctx context.Context, _ string) ([]netip.Addr, error) {
			asked.Add(1)
			select {
			case <-time.After(time.Second):
				return ips("192.0.2.1"), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
		var w whereabouts
		for range 20 {
			go func() {
				if list, err := w.of(t.Context(), s, "shop.example"); err != nil || len(list) != 1 {
					t.Errorf("%v, %v", list, err)
				}
			}()
		}
		impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := w.of(impatient, s, "shop.example"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		time.Sleep(2 * time.Second)
		if n := asked.Load(); n > 2 { // the impatient one may have been the first
			t.Errorf("asked %d times", n)
		}
	})
}
