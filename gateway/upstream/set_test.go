package upstream

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/pool"
)

// at returns targets in clear at the addresses.
func at(addresses ...string) (list []wanted) {
	for _, a := range addresses {
		host, _, _ := net.SplitHostPort(a)
		list = append(list, wanted{end: pool.Endpoint{Address: a, Host: host}, weight: 1})
	}
	return list
}

func TestTargetsThatStayAreTheSameValues(t *testing.T) {
	u := build(t, env(io.Discard), config(nil, "a:1", "b:1", "c:1"))
	a, b := u.set.Load().targets[0], u.set.Load().targets[1]
	a.load.Eject(7)
	if came, went := u.replace(at("d:1", "a:1", "c:1")); came != 1 || went != 1 {
		t.Errorf("%d came and %d went", came, went)
	}
	now := u.set.Load().targets
	if len(now) != 3 || now[1] != a || now[1].load.EjectedUntil() != 7 || now[0].end.Address != "d:1" {
		t.Errorf("%v", now)
	}
	if !b.gone.Load() || a.gone.Load() {
		t.Error("b is gone and a is not")
	}
	weighted := at("a:1")
	weighted[0].weight = 0
	u.replace(weighted)
	if u.set.Load().targets[0] != a || choose(u, nil) != nil {
		t.Error("a weight is a matter of the same target")
	}
}

func TestARemovedTargetFinishesWhatItAnswersAndIsThenLeftAlone(t *testing.T) {
	finish := make(chan struct{})
	slow := serve(t, func(o *origin, c net.Conn) {
		if !o.hear(c) {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
		<-finish
		_, _ = io.WriteString(c, "ok")
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Error("asked once more")
		}
	})
	other := serve(t, answers(ok, 0))
	u := build(t, env(io.Discard), config(nil, slow.address()))
	x := ask("GET")
	call, err := u.Send(x)
	if err != nil {
		t.Fatal(err)
	}
	u.replace(at(other.address()))
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Errorf("%d %s", status, code)
	}
	close(finish)
	if body, err := io.ReadAll(x.Reply.Body.Reader); string(body) != "ok" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	call.Close()
	if len(slow.requests()) != 1 || len(other.requests()) != 1 {
		t.Error("one request each")
	}
}

func TestProbesFollowTheTargets(t *testing.T) {
	var asked [2]atomic.Int64
	var servers [2]*httptest.Server
	for i := range servers {
		servers[i] = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked[i].Add(1) }))
		defer servers[i].Close()
	}
	u := build(t, env(io.Discard), config(probed, servers[0].Listener.Addr().String()))
	u.Start()
	until(t, "a probe of the first", func() bool { return asked[0].Load() > 0 })
	u.replace(at(servers[1].Listener.Addr().String()))
	n := asked[0].Load()
	until(t, "probes of the second", func() bool { return asked[1].Load() > 9 })
	if asked[0].Load() > n+1 { // one was on its way
		t.Error("a removed target is probed")
	}
}

// One target after the other takes the place of the only one, under load, and is closed when it has drained.
func TestReplacingTheOnlyTargetCostsNoRequest(t *testing.T) {
	for _, version := range []string{"h1", "h2"} {
		t.Run(version, func(t *testing.T) {
			start := func() *httptest.Server {
				s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
				s.Config.Protocols = new(http.Protocols)
				s.Config.Protocols.SetHTTP1(true)
				s.Config.Protocols.SetUnencryptedHTTP2(true)
				s.Start()
				return s
			}
			now := start()
			e := env(io.Discard)
			sweep(t, e.Sweeper)
			u := build(t, e, config(func(m *model.Upstream) { m.Protocol = version }, now.Listener.Addr().String()))
			var load sync.WaitGroup
			var stop atomic.Bool
			var good [4]atomic.Int64
			for i := range good {
				load.Go(func() {
					for !stop.Load() {
						if status, code := send(t, u, ask("POST")); status != 200 {
							t.Errorf("%d %s", status, code)
							return
						}
						good[i].Add(1)
					}
				})
			}
			for range 20 {
				next := start()
				u.replace(at(next.Listener.Addr().String()))
				for i := range good { // after its second request nobody is on the way to the old one
					n := good[i].Load()
					until(t, "requests on the new one", func() bool { return good[i].Load() > n+1 || t.Failed() })
				}
				now.Close()
				now = next
			}
			stop.Store(true)
			load.Wait()
			_ = u.Close()
			now.Close()
		})
	}
}

func TestFiveThousandTargets(t *testing.T) {
	u := build(t, env(io.Discard), config(nil, "a:1"))
	var addresses []string
	for i := range 5000 {
		addresses = append(addresses, "10.0."+strconv.Itoa(i/250)+"."+strconv.Itoa(i%250)+":80")
	}
	u.replace(at(addresses...))
	seen := map[*target]bool{}
	for range 50_000 {
		seen[choose(u, nil)] = true
	}
	if len(seen) < 4000 {
		t.Errorf("%d are used", len(seen))
	}
	x := new(exchange.Exchange)
	if n := testing.AllocsPerRun(100, func() {
		chosen, _ := u.pick(x, nil)
		chosen.load.Done(0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 5000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			m := config(nil)
			for i := range n {
				m.Targets = append(m.Targets, model.Target{URL: "http://10.0." + strconv.Itoa(i/250) + "." + strconv.Itoa(i%250) + ":80", Weight: 1})
			}
			u, err := New("shop", m, env(io.Discard))
			if err != nil {
				b.Fatal(err)
			}
			x := new(exchange.Exchange)
			for b.Loop() {
				chosen, _ := u.pick(x, nil)
				chosen.load.Done(0)
			}
		})
	}
}
