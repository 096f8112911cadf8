package chaos

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// faultyDocument is a gateway in front of one faulty upstream.
const faultyDocument = `
listeners: {public: {address: "${LISTEN}"}}
upstreams: {a: {targets: ["${A}"], timeouts: {response: 1s, idle: 1s}, ejection: {consecutive_failures: 0}}}
apis: {all: {upstream: a}}
`

// say is an upstream that answers every request with a text and closes.
func say(text string) func(*faulty) {
	return func(c *faulty) {
		if _, ok := c.request(); ok {
			c.say(text)
		}
	}
}

// What an upstream does wrong is answered with the status that says so, or breaks the client's transfer off; the client's
// connection survives where that is possible, and nothing is left behind. Many at once meet each fault.
func TestUpstreamFaults(t *testing.T) {
	t.Parallel()
	half := strings.Repeat("x", 500_000)
	const broken = 0 // instead of a status: 200, and the body does not end well
	faults := []struct {
		name   string
		do     func(*faulty)
		status int
		least  time.Duration
	}{
		{name: "closes at once", do: func(*faulty) {}, status: 502},
		{name: "resets at once", do: func(c *faulty) { c.reset() }, status: 502},
		{name: "never answers", do: func(c *faulty) { c.untilClosed() }, status: 504, least: time.Second},
		{name: "speaks garbage", do: say("SSH-2.0-OpenSSH_9.2\r\n\r\n"), status: 502},
		{name: "speaks without end", do: say(strings.Repeat("x", 1<<20)), status: 502},
		{name: "has two lengths", do: say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), status: 502},
		{name: "floods with 1xx", do: say(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 10_000)), status: 502},
		{name: "ends in its head", do: say("HTTP/1.1 200 OK\r\nContent-"), status: 502},
		{name: "ends in its body", do: say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), status: broken},
		{name: "ends in its chunks", do: say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"), status: broken},
		{name: "ends in a large body", do: say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + half), status: broken},
		{name: "has bad chunks", do: say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort-3\r\n"), status: broken},
		{name: "resets in its body", do: func(c *faulty) {
			if _, ok := c.request(); ok {
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("x", 100_000))
				c.reset()
			}
		}, status: broken},
		{name: "stands still in its body", do: func(c *faulty) {
			if _, ok := c.request(); ok {
				c.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
				c.untilClosed()
			}
		}, status: broken, least: time.Second},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			_, url := startFault(t, f.do)
			g := startGateway(t, faultyDocument, "${A}", url)
			before := g.idles(t)
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() {
					c, err := newClient(g.listen)
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					began := time.Now()
					r, err := c.exchange(request("GET /"))
					if took := time.Since(began); met(t, f.status, r, err) && took < f.least {
						t.Errorf("after %v, before the %v that it had", took, f.least)
					}
				})
			}
			group.Wait()
			g.settles(t, before)
		})
	}
}

// met reports whether an answer is what a fault leads to.
func met(t *testing.T, status int, r reply, err error) bool {
	t.Helper()
	switch {
	case status == 0 && (r.status != 200 && r.status != 0 || err == nil):
		t.Errorf("a broken transfer: %d %q %v", r.status, r.body[:min(len(r.body), 50)], err)
	case status != 0 && (r.status != status || err != nil):
		t.Errorf("%d %q %v instead of %d", r.status, r.body[:min(len(r.body), 50)], err, status)
	case status != 0 && (!strings.Contains(r.body, `"code"`) || r.close):
		t.Errorf("the answer %q, closes: %v", r.body, r.close)
	default:
		return true
	}
	return false
}

// A dead upstream is answered for at once.
func TestDeadUpstreamIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, faultyDocument, "${A}", "http://"+freeAddress(t))
	c := connect(t, g.listen)
	for range 50 {
		if r := c.get(t, "/"); r.status != 502 || !strings.Contains(r.body, "upstream_unreachable") {
			t.Fatalf("%+v", r)
		}
	}
}

// An upstream that closes its connections right when they are used again is not noticed with GET, which is asked again on
// a fresh one; a POST may have been done, and asking again is the client's to decide.
func TestConnectionsThatDieWhenReused(t *testing.T) {
	t.Parallel()
	f, url := startFault(t, func(c *faulty) {
		if _, ok := c.request(); ok {
			c.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			_, _ = c.request() // the second is taken and not answered
		}
	})
	g := startGateway(t, faultyDocument, "${A}", url)
	c := connect(t, g.listen)
	for i := range 50 {
		if r := c.get(t, "/"); r.status != 200 || r.body != "ok" {
			t.Fatalf("GET %d: %+v", i, r)
		}
	}
	if n := f.accepted.Load(); n != 50 {
		t.Errorf("%d connections for 50 requests", n)
	}
	for i := range 10 { // now one on a connection that dies, now one on a fresh one
		r, err := c.exchange(request("POST /", "Content-Length: 1") + "x")
		if want := 502 - 302*(i%2); err != nil || r.status != want {
			t.Errorf("POST %d: %d %v instead of %d", i, r.status, err, want)
		}
	}
}

// serviceProcess is the binary's own demo services, in a process that can be killed.
type serviceProcess struct {
	*process
	addresses [3]string
}

func newServices(t *testing.T) *serviceProcess {
	t.Helper()
	s := &serviceProcess{}
	for i := range s.addresses {
		s.addresses[i] = freeAddress(t)
	}
	s.run(t)
	return s
}

// run starts the process, again after it was killed.
func (s *serviceProcess) run(t *testing.T) {
	t.Helper()
	s.process = start(t, built.plain, "demo", "--orders", s.addresses[0], "--customers", s.addresses[1], "--products", s.addresses[2])
	for _, address := range s.addresses {
		eventually(t, address+" answers", func() (bool, string) {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return false, err.Error()
			}
			return c.Close() == nil, ""
		})
	}
}

var errGateway = errors.New("502")

// judgeService tells a 502, which is an answer, from what must not be.
func judgeService(n int, r reply, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("lost: %w", err)
	case r.status == 502 && strings.Contains(r.body, `"code"`):
		return fmt.Errorf("%w %s", errGateway, r.body)
	case r.status != 200 || !strings.Contains(r.body, fmt.Sprintf("n=%d", n)):
		return fmt.Errorf("%d %q", r.status, r.body)
	}
	return nil
}

func askService(n int) string { return request(fmt.Sprintf("GET /echo?n=%d", n)) }

// Half of the targets are killed under load. Requests that could be asked again are, so that only those fail whose fresh
// connection died under them; the dead are ejected, and are back when they have come back.
func TestHalfOfTheTargetsDieUnderLoad(t *testing.T) {
	t.Parallel()
	doomed, others := newServices(t), newServices(t)
	var targets []string
	for _, address := range slices.Concat(doomed.addresses[:2], others.addresses[:2]) {
		targets = append(targets, `"http://`+address+`"`)
	}
	g := startGateway(t, `
listeners: {public: {address: "${LISTEN}"}}
upstreams: {a: {balance: round-robin, targets: [${TARGETS}], ejection: {consecutive_failures: 3, for: 500ms, max_percent: 50}}}
apis: {all: {upstream: a}}
`, "${TARGETS}", strings.Join(targets, ", "))
	states := func() (list []string) {
		for _, target := range g.status(t).Upstreams[0].Targets {
			list = append(list, target.State)
		}
		return list
	}
	before := g.idles(t)
	l := (&load{address: g.listen, every: 2 * time.Millisecond, workers: 16, ask: askService, judge: judgeService}).begin()
	l.flows(t, 300)
	doomed.kill()
	eventually(t, "the dead are ejected and the others are not", func() (bool, string) {
		s := strings.Join(states(), " ")
		return s == "ejected ejected available available", s
	})
	l.flows(t, 500)
	doomed.run(t)
	eventually(t, "the dead are back", func() (bool, string) {
		s := strings.Join(states(), " ")
		return !strings.Contains(s, "ejected"), s
	})
	l.flows(t, 300)
	wrong := l.end()
	t.Logf("%d requests, %d in flight on fresh connections at the kill", l.sent.Load(), len(wrong))
	if len(wrong) > l.workers {
		t.Errorf("%d failed: more than were in flight", len(wrong))
	}
	for _, err := range wrong {
		if !errors.Is(err, errGateway) || !strings.Contains(err.Error(), "upstream_closed") {
			t.Errorf("failed although it could be asked again: %v", err)
		}
	}
	g.settles(t, before)
}

// The only upstream is killed under load and comes back: meanwhile everybody is told, nobody waits, nothing is wrong, and
// afterwards all is as before.
func TestUpstreamKilledAndRestarted(t *testing.T) {
	t.Parallel()
	s := newServices(t)
	g := startGateway(t, drainable, "${A}", "http://"+s.addresses[0])
	before := g.idles(t)
	l := (&load{address: g.listen, every: 2 * time.Millisecond, workers: 8, ask: askService, judge: judgeService}).begin()
	for range 3 {
		l.flows(t, 100)
		s.kill()
		from := len(l.faults())
		eventually(t, "clients are told", func() (bool, string) { n := len(l.faults()); return n > from+20, fmt.Sprint(n - from) })
		s.run(t)
	}
	l.flows(t, 100)
	for _, err := range l.end() {
		if !errors.Is(err, errGateway) {
			t.Error(err)
		}
	}
	g.settles(t, before)
}
