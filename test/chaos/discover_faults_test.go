package chaos

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"headgate/internal/testkit/standin"
)

// names is a name server over UDP that answers each question for addresses with what it is told.
type names struct {
	address string
	mu      sync.Mutex
	rcode   dnsmessage.RCode
	ips     [][4]byte
	silent  bool
}

func serveNames(t *testing.T) *names {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, ended := &names{address: c.LocalAddr().String()}, make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 2048); ; {
			size, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if reply := n.answer(b[:size]); reply != nil {
				_, _ = c.WriteTo(reply, from) // who asked may have gone
			}
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-ended })
	return n
}

// say is what is answered from now on.
func (n *names) say(rcode dnsmessage.RCode, ips ...[4]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rcode, n.ips = rcode, ips
}

// hush lets it answer nothing any more.
func (n *names) hush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = true
}

func (n *names) answer(packet []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	var q dnsmessage.Message
	if n.silent || q.Unpack(packet) != nil || len(q.Questions) != 1 {
		return nil
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RCode: n.rcode}, Questions: q.Questions}
	if q.Questions[0].Type == dnsmessage.TypeA {
		for _, ip := range n.ips {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1},
				Body:   &dnsmessage.AResource{A: ip},
			})
		}
	}
	reply, err := m.Pack()
	if err != nil {
		return nil
	}
	return reply
}

// everywhere serves what answers as replaceables do on every address of this machine's loopback net, and returns the port.
func everywhere(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, &origin{name: "R"})
	return l.Addr().(*net.TCPAddr).Port
}

func local(n int) [4]byte { return [4]byte{127, 1, byte(n / 250), byte(n%250 + 1)} }

// A name that comes and goes, fails and comes back, takes no target away that still answers, and none comes and goes with it
// each time. While there is none at the start, requests are answered 503 no_target, and the name is asked for again.
func TestANameThatFlapsLosesNoRequest(t *testing.T) {
	t.Parallel()
	dns := serveNames(t)
	dns.say(dnsmessage.RCodeNameError)
	g := startGateway(t, `
listeners: {public: {address: "${LISTEN}"}}
upstreams: {a: {discover: {dns: {name: shop.example., port: `+fmt.Sprint(everywhere(t))+`, servers: ["`+dns.address+`"], min_ttl: 1s}}}}
apis: {all: {upstream: a}}
`)
	for range 3 {
		if got := connect(t, g.listen).get(t, "/"); got.status != 503 || !strings.Contains(got.body, "no_target") {
			t.Errorf("without a target: %d %s", got.status, got.body)
		}
	}
	if f := g.discovery(t, "a"); f.Discovery.State != "waiting" || !strings.Contains(f.Discovery.Error, "shop.example.: no such name") {
		t.Errorf("%+v", f.Discovery)
	}
	dns.say(dnsmessage.RCodeSuccess, local(1), local(2), local(3), local(4))
	g.count(t, "a", 4)
	l := rollingLoad(g.listen).begin()
	fails := func(rcode dnsmessage.RCode) {
		errors := g.discovery(t, "a").Discovery.Errors
		dns.say(rcode)
		g.discovers(t, "a", "it is noticed", func(f found) bool {
			return f.Discovery.Errors > errors && f.Discovery.State == "last_good" && len(f.Targets) == 4
		})
	}
	answers := func(n int, ips ...[4]byte) {
		dns.say(dnsmessage.RCodeSuccess, ips...)
		g.discovers(t, "a", fmt.Sprintf("%d targets", n), func(f found) bool { return f.Discovery.State == "current" && len(f.Targets) == n })
	}
	all := [][4]byte{local(1), local(2), local(3), local(4)}
	fails(dnsmessage.RCodeServerFailure)
	fails(dnsmessage.RCodeNameError)
	fails(dnsmessage.RCodeSuccess) // and nothing in it
	answers(4, all...)
	answers(3, all[:3]...)
	answers(4, all...)
	dns.say(dnsmessage.RCodeSuccess, all[:3]...)
	g.discovers(t, "a", "what flaps is damped", func(f found) bool { return f.Discovery.Damped == 1 && len(f.Targets) == 4 })
	l.end()
	if faults := l.faults(); len(faults) > 0 {
		t.Errorf("%d of %d requests were lost; the first: %v", len(faults), l.sent.Load(), faults[0])
	}
	t.Logf("%d requests", l.sent.Load())
}

// Sources that are silent, endless, or speak nonsense cost another upstream no answer; what depends on them is answered 503,
// and the gateway ends in time although they do not answer.
func TestBrokenSourcesTouchNoOtherUpstream(t *testing.T) {
	t.Parallel()
	dns := serveNames(t)
	dns.hush()
	silent, _ := socket(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	endless := web(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, err := fmt.Fprint(w, `{"kind":"`); err == nil; _, err = fmt.Fprint(w, strings.Repeat("x", 1<<16)) {
		}
	}))
	nonsense := web(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }))
	g := newGateway(t)
	r := startReplaceable(t)
	g.list(t, []string{r.address})
	g.start(t, `
listeners: {public: {address: "${LISTEN}"}}
upstreams:
  a: {discover: {file: "${DIR}/targets.json"}}
  names: {discover: {dns: {name: shop.example., port: 80, servers: ["`+dns.address+`"]}}}
  silent: {timeouts: {connect: 200ms}, discover: {docker: {address: "unix://`+silent+`"}}}
  endless: {discover: {kubernetes: {service: a, namespace: default, address: "`+endless+`"}}}
  nonsense: {discover: {consul: {service: a, address: "`+nonsense+`"}}}
  nowhere: {targets: ["http://nowhere.invalid:80"]}
apis:
  a: {upstream: a}
  names: {base_path: /names, upstream: names}
  silent: {base_path: /silent, upstream: silent}
  endless: {base_path: /endless, upstream: endless}
  nonsense: {base_path: /nonsense, upstream: nonsense}
  nowhere: {base_path: /nowhere, upstream: nowhere}
`)
	g.count(t, "a", 1)
	l := rollingLoad(g.listen).begin()
	for _, broken := range []struct{ name, says string }{
		{"names", "no answer within"}, {"endless", "more than 33554432 bytes"}, {"nonsense", "no X-Consul-Index"},
	} {
		g.discovers(t, broken.name, "it is told", func(f found) bool { return strings.Contains(f.Discovery.Error, broken.says) })
		if got := connect(t, g.listen).get(t, "/"+broken.name+"/"); got.status != 503 || !strings.Contains(got.body, "no_target") {
			t.Errorf("%s: %d %s", broken.name, got.status, got.body)
		}
	}
	if got := connect(t, g.listen).get(t, "/silent/"); got.status != 503 || !strings.Contains(got.body, "no_target") {
		t.Errorf("silent: %d %s", got.status, got.body)
	}
	if got := connect(t, g.listen).get(t, "/nowhere/"); got.status/100 != 5 || !strings.Contains(got.body, `"code"`) {
		t.Errorf("a name that is not there: %d %s", got.status, got.body)
	} else {
		t.Logf("a name that is not there: %d %s", got.status, got.body)
	}
	l.end()
	if faults := l.faults(); len(faults) > 0 {
		t.Errorf("%d of %d requests were lost; the first: %v", len(faults), l.sent.Load(), faults[0])
	}
}

// Much that would go at once is held, and it is said, wherever one looks; a clock that jumps meanwhile takes nobody away.
func TestAMassRemovalIsHeldAndTold(t *testing.T) {
	t.Parallel()
	k := standin.NewKubernetes("")
	port := everywhere(t)
	ips := make([]string, 6)
	for i := range ips {
		ips[i] = net.IP(ipOf(i)).String()
	}
	k.Put(standin.SliceOf("a", "a-1", port, ips...))
	g := startGateway(t, `
listeners: {public: {address: "${LISTEN}"}}
upstreams: {a: {discover: {kubernetes: {service: a, namespace: default, address: "`+web(t, k)+`"}, hold: 10m}}}
apis: {all: {upstream: a}}
`)
	g.count(t, "a", 6)
	leap := func() {
		t.Helper()
		if status, body, err := g.ask("POST", "/test/advance?d=24h"); status/100 != 2 || err != nil {
			t.Fatalf("%d %s %v", status, body, err)
		}
		k.Bookmark(1) // the server is there, and all is as it was
	}
	for range 2 {
		leap()
		g.discovers(t, "a", "all of them stay", func(f found) bool { return f.Discovery.State == "current" && len(f.Targets) == 6 })
	}
	l := rollingLoad(g.listen).begin()
	k.Put(standin.SliceOf("a", "a-1", port, ips[0]))
	g.discovers(t, "a", "five are held", func(f found) bool {
		return f.Discovery.State == "held" && f.Discovery.Held == 5 && len(f.Targets) == 6
	})
	if n := g.metric(t, `headgate_discovery_held_targets{upstream="a"}`); n != 5 {
		t.Errorf("the metric says %v", n)
	}
	if !strings.Contains(g.log.String(), "so many targets would go at once that they are held") {
		t.Error("the log does not tell")
	}
	leap() // over the hold
	g.count(t, "a", 1)
	k.Delete("a-1") // an answer of nobody
	g.discovers(t, "a", "the last one stays", func(f found) bool { return f.Discovery.State == "last_good" && len(f.Targets) == 1 })
	l.end()
	if faults := l.faults(); len(faults) > 0 {
		t.Errorf("%d of %d requests were lost; the first: %v", len(faults), l.sent.Load(), faults[0])
	}
}

func ipOf(n int) []byte { ip := local(n); return ip[:] }

// Five thousand targets in one upstream are found, used and replaced, half of them at a time, under load.
func TestFiveThousandTargetsAreFollowed(t *testing.T) {
	t.Parallel()
	const n = 5000
	port := everywhere(t)
	address := func(i int) string { return fmt.Sprintf("%s:%d", net.IP(ipOf(i)), port) }
	var all []string
	for i := range n {
		all = append(all, address(i))
	}
	g := newGateway(t)
	g.binary = built.plain // the race detector makes a minute of it
	g.list(t, all)
	began := time.Now()
	g.start(t, strings.Replace(discovered, ", health: {path: /, interval: 100ms}", "", 1))
	g.count(t, "a", n)
	first := time.Since(began)
	l := rollingLoad(g.listen).begin()
	for round := range 4 {
		next := slices.Clone(all)
		for i := range n / 2 {
			next[(round%2)*n/2+i] = address(n*(1+round/2) + (round%2)*n/2 + i)
		}
		all = next
		began = time.Now()
		g.list(t, all)
		eventually(t, "the change is told", func() (bool, string) { // the status of so many is long, and asked for once
			n := strings.Count(g.log.String(), "targets were discovered")
			return n == round+2, fmt.Sprint(n)
		})
		g.uses(t, all)
		t.Logf("round %d: %v", round, time.Since(began).Round(time.Millisecond))
	}
	l.end()
	if faults := l.faults(); len(faults) > 0 {
		t.Errorf("%d of %d requests were lost; the first: %v", len(faults), l.sent.Load(), faults[0])
	}
	t.Logf("%d requests; all known after %v; %d MiB resident; %s", l.sent.Load(), first.Round(time.Millisecond), g.residentKiB(t)>>10,
		filepath.Base(g.binary))
}
