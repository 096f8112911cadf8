package chaos

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// swallow is a service that accepts and takes nothing from its connections until the test ends.
func swallow(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all []net.Conn
	var accepts sync.WaitGroup
	accepts.Go(func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			all = append(all, c)
		}
	})
	t.Cleanup(func() {
		l.Close()
		accepts.Wait()
		for _, c := range all {
			c.Close()
		}
	})
	return "http://" + l.Addr().String()
}

const (
	// budgeted is a gateway that may use 64 MiB, in front of a service that never answers.
	budgeted = `
listeners: {public: {address: "${LISTEN}"}}
upstreams: {stuck: "${STUCK}"}
limits: {memory: 64MiB}
drain: {drain_timeout: 0s}
apis:
  all:
    upstream: stuck
    routes:
      upload: {match: POST /}
      hello:  {match: GET /, respond: {body: hello}}
`
	// mostUploads would need far more than the budget if all of them were carried.
	mostUploads = 4000
	upload      = 1 << 20
)

// Uploads that never end fill the memory up to a mark. From then on everybody is told to come again later, in HTTP, and the
// gateway stays well below what it may use; when the uploads are gone, everything is taken again.
func TestWhatFillsTheMemoryIsRefusedBeforeTheKernelKills(t *testing.T) {
	g := newGateway(t, "${STUCK}", swallow(t))
	g.binary = built.plain // the race detector's own memory is several times the budget
	g.start(t, budgeted)
	if r := connect(t, g.listen).get(t, "/"); r.status != 200 || r.body != "hello" {
		t.Fatalf("before: %+v", r)
	}
	neighbour := connect(t, g.listen)
	neighbour.get(t, "/")

	var attackers []net.Conn
	leave := func() {
		for _, c := range attackers {
			c.Close()
		}
		attackers = nil
	}
	defer leave()
	begin := request("POST /", fmt.Sprintf("Content-Length: %d", upload)) + strings.Repeat("x", upload/16)
	for n := 0; n < mostUploads && g.metric(t, "headgate_shedding") == 0; n += 50 {
		for range 50 {
			c := dial(t, g.listen)
			if _, err := io.WriteString(c, begin); err != nil && g.metric(t, "headgate_shedding") == 0 {
				t.Fatal(err)
			}
			attackers = append(attackers, c)
		}
	}
	t.Logf("%d uploads fill %d KiB", len(attackers), g.memory(t, "RssAnon"))
	eventually(t, "new requests are refused", func() (bool, string) {
		r, err := neighbour.exchange(request("GET /"))
		return err == nil && r.status == 503, fmt.Sprint(r, err)
	})
	r := neighbour.get(t, "/")
	if r.status != 503 || r.header.Get("Retry-After") != "2" || !strings.Contains(r.body, `"code":"overloaded"`) {
		t.Errorf("%+v", r)
	}
	if r := connect(t, g.listen).get(t, "/"); r.status != 503 {
		t.Errorf("on a connection of its own: %+v", r)
	}
	for range 200 { // who goes on in spite of that
		c := dial(t, g.listen)
		_, _ = io.WriteString(c, begin) // the gateway may have closed it already
		attackers = append(attackers, c)
	}
	if most := g.memory(t, "RssAnon"); most > 64<<10 {
		t.Errorf("%d KiB are in use, and 64 MiB are allowed", most)
	}
	for _, want := range []string{`"state": "shedding"`, `"source": "limits.memory"`, `"why": "`} {
		if page := g.mustAsk(t, "/status"); !strings.Contains(page, want) {
			t.Errorf("/status does not say %s:\n%s", want, page)
		}
	}
	if n := g.metric(t, "headgate_shed_total"); n < 2 {
		t.Errorf("%v refusals are counted", n)
	}

	leave()
	eventually(t, "everything is taken again", func() (bool, string) {
		r, err := neighbour.exchange(request("GET /"))
		return err == nil && r.status == 200, fmt.Sprint(r, err)
	})
	for _, want := range []string{"memory is short: new requests get 503", "memory suffices again"} {
		eventually(t, "the log says "+want, func() (bool, string) { return strings.Contains(g.log.String(), want), g.log.String() })
	}
}

// All listeners share one budget of connections; who comes too many waits, and gets a turn.
func TestListenersShareABudgetOfConnections(t *testing.T) {
	g := startGateway(t, `
listeners: {one: {address: "${LISTEN}"}, two: {address: "${EXTRA}"}}
limits: {connections: 3}
apis: {all: {routes: {hello: {match: GET /, respond: {body: hello}}}}}
`)
	a, b, c := connect(t, g.listen), connect(t, g.extra), connect(t, g.extra)
	for _, each := range []*client{a, b, c} {
		each.get(t, "/")
	}
	late := connect(t, g.listen) // the kernel has taken it, and nobody serves it
	if _, err := io.WriteString(late, request("GET /")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the door pauses", func() (bool, string) {
		n := g.metric(t, `headgate_accept_pauses_total{listener="one"}`)
		return n >= 1, fmt.Sprint(n)
	})
	if n := g.connections(t); n != 3 {
		t.Errorf("%d connections are open", n)
	}
	c.Close()
	if r, err := late.reply("GET"); err != nil || r.body != "hello" {
		t.Errorf("%+v, %v", r, err)
	}
}
