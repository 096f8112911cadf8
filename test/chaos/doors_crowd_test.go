package chaos

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// crowdOf opens n connections and does with each what open says, which returns what is to be reset in the end.
func crowdOf(t *testing.T, address string, n int, open func(c *net.TCPConn) error) (all []*net.TCPConn) {
	t.Helper()
	all = make([]*net.TCPConn, n)
	var group sync.WaitGroup
	const openers = 8
	for o := range openers {
		group.Go(func() {
			for i := o; i < n; i += openers {
				c, err := net.DialTimeout("tcp", address, patience)
				if err == nil {
					all[i] = c.(*net.TCPConn)
					if err = c.SetDeadline(time.Now().Add(patience)); err == nil {
						err = open(all[i])
					}
				}
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
			}
		})
	}
	group.Wait()
	t.Cleanup(func() {
		for _, c := range all {
			if c != nil {
				c.Close()
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return all
}

// A thousand connections of each kind at one time, each of which has done something, take a bounded memory, and when all of
// them vanish without a word nothing of them stays.
func TestCrowdsThatVanishLeaveNothing(t *testing.T) {
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith(), s.places...)
	before, memory := h.idles(t), h.residentKiB(t)
	n := fewer(1000)
	sessions := tls.NewLRUClientSessionCache(1)
	greet := func(c net.Conn, alpn string) (*tls.Conn, error) {
		conf := h.trust(alpn)
		conf.ClientSessionCache = sessions
		e := tls.Client(c, conf)
		return e, e.Handshake()
	}
	kinds := []struct {
		name, address string
		open          func(c *net.TCPConn) error
	}{
		{"h1 over TLS", h.secure, func(c *net.TCPConn) error {
			e, err := greet(c, "http/1.1")
			if err == nil {
				_, err = newClientOn(e).exchange(request("POST /", "Content-Length: 0"))
			}
			return err
		}},
		{"h2 over TLS", h.secure, func(c *net.TCPConn) error {
			e, err := greet(c, "h2")
			if err == nil {
				_, err = io.WriteString(e, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
			}
			if err == nil {
				_, err = io.ReadFull(e, make([]byte, 9))
			}
			return err
		}},
		{"WebSocket", h.listen, func(c *net.TCPConn) error {
			k := newClientOn(c)
			if _, err := io.WriteString(c, upgrade); err != nil {
				return err
			}
			r, err := http.ReadResponse(k.in, nil)
			if err == nil && r.StatusCode != http.StatusSwitchingProtocols {
				err = fmt.Errorf("%s", r.Status)
			}
			return err
		}},
		{"TCP", h.extra, func(c *net.TCPConn) error {
			_, err := io.WriteString(c, "x")
			if err == nil {
				_, err = io.ReadFull(c, make([]byte, 1))
			}
			return err
		}},
	}
	var all []*net.TCPConn
	for _, kind := range kinds {
		began, held := time.Now(), h.residentKiB(t)
		all = append(all, crowdOf(t, kind.address, n, kind.open)...)
		t.Logf("%s: %d in %v, %.1f KiB each", kind.name, n, time.Since(began), float64(h.residentKiB(t)-held)/float64(n))
	}
	eventually(t, "all are there", func() (bool, string) { got := h.connections(t); return got >= len(kinds)*n, fmt.Sprint(got) })
	if each := (h.residentKiB(t) - memory) / len(all); each > 64 && !raceEnabled {
		t.Errorf("%d KiB for each", each)
	}
	began := time.Now()
	for _, c := range all {
		_ = c.SetLinger(0) // without it this is a close, and the test weaker
		c.Close()
	}
	h.rests(t, before)
	t.Logf("all are forgotten after %v; at the peak %d MiB", time.Since(began), h.peakKiB(t)>>10)
	if open := h.metric(t, `headgate_upgrades_open{api="all",route="all"}`); open != 0 {
		t.Errorf("%v WebSockets are still counted", open)
	}
}

// Without a free descriptor accepting pauses, and with it nothing else: whatever is open through any door goes on, and when
// there is room again those who waited are let in.
func TestDescriptorsExhaustedWithEveryDoorInUse(t *testing.T) {
	t.Parallel()
	s := startServicesBehind(t)
	h := startHouse(t, doorsWith(), s.places...)
	open := h.lastings(t)
	var flows []*flow
	for _, way := range waysIn {
		f := h.flow(t, way, 1, 2*time.Millisecond)
		f.goes(t, 30)
		flows = append(flows, f)
	}
	h.limitDescriptors(t, uint64(h.holds(t).descriptors+12))
	others := crowd(t, h.secure, "\x16\x03\x01", 100)
	eventually(t, "accepting pauses", func() (bool, string) {
		return strings.Contains(h.log.String(), "too many open files"), h.log.String()
	})
	waiting := tls.Client(dial(t, h.secure), h.trust("http/1.1")) // in the kernel's queue
	for range 3 {
		for _, l := range open {
			l.must(t, "without a descriptor")
		}
		for _, f := range flows {
			f.goes(t, 10)
		}
	}
	for _, c := range others {
		c.Close()
	}
	if r, err := newClientOn(waiting).exchange(request("POST /waited", "Content-Length: 0")); err != nil || r.body != "A /waited" {
		t.Errorf("who has waited: %+v %v", r, err)
	}
	for _, f := range flows {
		f.flawless(t, 1)
	}
	for _, l := range open {
		if err := l.end(); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
	}
	if h.metric(t, `headgate_accept_pauses_total{listener="secure"}`) == 0 {
		t.Error("no pause is counted")
	}
}

// proxied is a door behind a load balancer.
const proxied = `
listeners:
  public: {address: "${LISTEN}", proxy_protocol: {from: [127.0.0.0/8], timeout: 2s}}
  extra: {address: "${EXTRA}"}
apis: {all: {routes: {r: {match: /**, respond: {body: "{client.ip}"}}}}}
`

// Whatever stands where the PROXY header should is refused and counted, in bounded time and memory; headers that are good
// are believed meanwhile.
func TestGarbageInsteadOfPROXYHeaders(t *testing.T) {
	t.Parallel()
	g := startGateway(t, proxied)
	before := g.idles(t)
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	bad := []string{
		"PROXY " + grown(200), "PROXY TCP4 1.2.3.4\r\n", "PROXY TCP4 256.1.1.1 1.1.1.1 1 2\r\n", "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
		"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", "PROXY UNKNOWN" + grown(300), request("GET /"), grown(4096), "\x16\x03\x01\x00\x05hello",
		v2 + "\x21\x11\xff\xff" + grown(70_000), v2 + "\x31\x11\x00\x0c" + grown(12),
		v2 + "\x21\x11\x00\x01x", v2 + "\x2f\xff\x00\x0c" + grown(12),
		"PROXY", v2 + "\x21", "\r\n\r\n",
	}
	const times = 10
	var group sync.WaitGroup
	for _, text := range bad {
		for range times {
			group.Go(func() {
				c, err := net.Dial("tcp", g.listen)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_, _ = io.WriteString(c, text) // the gateway may have had enough
				_ = c.SetReadDeadline(time.Now().Add(patience))
				b, err := io.ReadAll(c)
				if n, ok := err.(net.Error); ok && n.Timeout() || len(b) > 0 {
					t.Errorf("%.30q is answered with %q, %v", text, b, err)
				}
			})
		}
	}
	for i := range 50 {
		c, from := connect(t, g.listen), fmt.Sprintf("192.0.2.%d", i)
		if _, err := io.WriteString(c, "PROXY TCP4 "+from+" 127.0.0.1 1 80\r\n"); err != nil {
			t.Fatal(err)
		}
		if r := c.get(t, "/"); r.body != from {
			t.Errorf("a good header for %s: %+v", from, r)
		}
		c.Close()
	}
	group.Wait()
	if n := sumOf(g.mustAsk(t, "/metrics"), "headgate_proxy_header_failures_total"); n < times*(len(bad)-1) {
		t.Errorf("%d failures are counted of %d", n, times*len(bad))
	}
	g.settles(t, before)
}
