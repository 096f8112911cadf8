package chaos

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A listener holds at most as many connections as it may; more wait in the kernel's queue, and all get their turn.
func TestConnectionsBeyondTheLimitWaitTheirTurn(t *testing.T) {
	t.Parallel()
	o, a := startOrigin(t, "A")
	g := startGateway(t, strings.Replace(drainable, `"}}`, `", limits: {connections: 10}}}`, 1), "${A}", a)
	before := g.idles(t)
	running := held(t, g, o, 10)
	late := crowd(t, g.listen, request("GET /late", "Connection: close"), 50)
	if n := g.connections(t); n != 10 {
		t.Errorf("%d connections are open", n)
	}
	close(o.release)
	for _, c := range running {
		if r, err := c.reply("GET"); err != nil || r.body != "A /held" {
			t.Errorf("%+v %v", r, err)
		}
		c.Close()
	}
	for i, c := range late {
		if r, err := newClientOn(c).reply("GET"); err != nil || r.body != "A /late" {
			t.Errorf("who came late, %d: %+v %v", i, r, err)
		}
		c.Close()
	}
	g.settles(t, before)
}

// One address gets only so many connections and is told so; others are not its neighbours in misery; who leaves makes room.
func TestConnectionsOfOneClientAreLimited(t *testing.T) {
	t.Parallel()
	g := startGateway(t, strings.ReplaceAll(fixed, "${LIMITS}", "connections_per_client: 5"))
	var mine []*client
	for range 5 {
		c := connect(t, g.listen)
		c.get(t, "/")
		mine = append(mine, c)
	}
	for range 20 {
		c := connect(t, g.listen)
		if text := c.closed(t); !strings.HasPrefix(text, "HTTP/1.1 503 ") || !strings.Contains(text, "too_many_connections") {
			t.Errorf("one too many is told %q", text)
		}
	}
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: patience}
	if c, err := other.Dial("tcp", g.listen); err != nil {
		t.Logf("there is no second address here: %v", err)
	} else {
		defer c.Close()
		if r := newClientOn(c).get(t, "/"); r.body != "ok" {
			t.Errorf("another address: %+v", r)
		}
	}
	mine[0].Close()
	eventually(t, "there is room again", func() (bool, string) {
		c, err := newClient(g.listen)
		if err != nil {
			return false, err.Error()
		}
		defer c.Close()
		r, err := c.exchange(request("GET /"))
		return err == nil && r.status == 200, fmt.Sprint(r, err)
	})
	if n := g.metric(t, `headgate_connections_refused_total{listener="public"}`); n < 20 {
		t.Errorf("%v refused connections are counted", n)
	}
}

// A connection that has carried as many requests as it may says so with the last one, so that nobody loses a request.
func TestRequestsPerConnectionLoseNothing(t *testing.T) {
	t.Parallel()
	g := startGateway(t, strings.ReplaceAll(fixed, "${LIMITS}", "requests_per_connection: 3"))
	l := (&load{address: g.listen, every: time.Millisecond, workers: 8, ask: askFixed, judge: judgeFixed}).begin()
	l.flows(t, 600)
	if wrong := l.end(); len(wrong) > 0 {
		t.Errorf("%d wrong, such as %v", len(wrong), wrong[0])
	}
	if sent, dials := l.sent.Load(), l.dials.Load(); dials < sent/3 || dials > sent/3+sent/4+int64(l.workers) {
		t.Errorf("%d connections for %d requests of which each carries 3, a quarter 1", dials, sent)
	}
}

// Clients that ask for much and take nothing are let go after body_timeout, what they asked for is not fetched to the end,
// and neither memory nor descriptors stay.
func TestClientsThatDoNotReadAreLetGo(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"", "&chunked"} {
		_, a := startOrigin(t, "A")
		g := startGateway(t, strings.Replace(drainable, `"}}`, `", limits: {body_timeout: 1s}}}`, 1), "${A}", a)
		before := g.idles(t)
		conns := crowd(t, g.listen, request(fmt.Sprintf("GET /download?size=%d%s", int64(1)<<40, query)), 20)
		eventually(t, "all are being served", func() (bool, string) { n := g.connections(t); return n == 20, fmt.Sprint(n) })
		eventually(t, "all are let go", func() (bool, string) { n := g.connections(t); return n == 0, fmt.Sprint(n) })
		for _, c := range conns {
			if n, err := io.Copy(io.Discard, c); err == nil {
				t.Errorf("the download ends well behind %d bytes", n)
			}
			c.Close()
		}
		g.settles(t, before)
	}
}

// Clients that send their body too slowly stop at body_timeout, whatever number of them there is.
func TestClientsThatStopSendingAreLetGo(t *testing.T) {
	t.Parallel()
	_, a := startOrigin(t, "A")
	g := startGateway(t, strings.Replace(drainable, `"}}`, `", limits: {body_timeout: 1s}}}`, 1), "${A}", a)
	before := g.idles(t)
	conns := crowd(t, g.listen, request("POST /upload", "Content-Length: 1000")+"some", 50)
	var group sync.WaitGroup
	for _, c := range conns {
		group.Go(func() {
			r, err := newClientOn(c).reply("POST")
			if err != nil || r.status != 408 || !r.close {
				t.Errorf("%+v %v", r, err)
			}
			c.Close()
		})
	}
	group.Wait()
	g.settles(t, before)
}
