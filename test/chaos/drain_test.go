package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// drainable is a gateway in front of one origin; its drain follows.
const drainable = `
listeners: {public: {address: "${LISTEN}"}}
upstreams: {a: "${A}"}
apis: {all: {upstream: a}}
`

// held begins a request to /held on each of n connections and waits until the origin has them all.
func held(t *testing.T, g *gateway, o *origin, n int64) (list []*client) {
	t.Helper()
	want := o.held.Load() + n
	for range n {
		c := connect(t, g.listen)
		if _, err := io.WriteString(c, request("GET /held")); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	eventually(t, "the origin has the requests", func() (bool, string) { return o.held.Load() == want, fmt.Sprint(o.held.Load()) })
	return list
}

// SIGTERM makes the gateway not ready first, while everybody is still served. Then the doors close, idle connections end,
// what runs is answered with Connection: close, and the exit code is 0.
func TestTerminateDrains(t *testing.T) {
	t.Parallel()
	o, a := startOrigin(t, "A")
	g := startGateway(t, drainable+"drain: {delay: 2s, drain_timeout: 30s}", "${A}", a)
	g.stopped = true
	idle, running := connect(t, g.listen), held(t, g, o, 20)
	if r := idle.get(t, "/before"); r.body != "A /before" {
		t.Errorf("before: %+v", r)
	}

	g.signal(t, syscall.SIGTERM)
	eventually(t, "not ready", func() (bool, string) {
		status, body, err := g.ask("GET", "/readyz")
		return status == 503, fmt.Sprint(status, body, err)
	})
	if r := connect(t, g.listen).get(t, "/new"); r.body != "A /new" {
		t.Errorf("a new connection in the delay: %+v", r)
	}
	if r := idle.get(t, "/kept"); r.body != "A /kept" {
		t.Errorf("a kept connection in the delay: %+v", r)
	}
	eventually(t, "the door closes", func() (bool, string) {
		c, err := net.Dial("tcp", g.listen)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED), fmt.Sprint(err)
	})
	if rest := idle.closed(t); rest != "" {
		t.Errorf("an idle connection ends with %q", rest)
	}
	close(o.release)
	for i, c := range running {
		r, err := c.reply("GET /held")
		if err != nil || r.body != "A /held" || !r.close {
			t.Errorf("running exchange %d: %+v, %v", i, r, err)
		}
	}
	if code := g.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if lines := strings.Split(strings.TrimSpace(g.log.String()), "\n"); !strings.Contains(lines[len(lines)-1], "msg=stopped") {
		t.Errorf("the log ends with %q", lines[len(lines)-1])
	}
}

// What has not finished within drain_timeout is cut off, and seen to be: a download is never silently short.
func TestDrainTimeoutCutsOffWhatRuns(t *testing.T) {
	t.Parallel()
	o, a := startOrigin(t, "A")
	g := startGateway(t, drainable+"drain: {drain_timeout: 500ms}", "${A}", a)
	g.stopped = true
	running := held(t, g, o, 5)
	download := connect(t, g.listen)
	body := beginDownload(t, download)

	g.signal(t, syscall.SIGTERM)
	if code := g.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, c := range running {
		if late := c.closed(t); late != "" {
			t.Errorf("who is cut off gets a late answer: %q", late)
		}
	}
	if n, err := io.Copy(io.Discard, body); err == nil {
		t.Errorf("the download ends well behind %d bytes", n)
	}
	if !strings.Contains(g.log.String(), "cut off") {
		t.Error("the log does not say that connections were cut off")
	}
}

// beginDownload asks for a download that is more than the way can hold, and returns its body.
func beginDownload(t *testing.T, c *client) io.Reader {
	t.Helper()
	if _, err := io.WriteString(c, request(fmt.Sprintf("GET /download?size=%d", transferSize))); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReaderSize(c, 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.Body
}

// A second SIGTERM ends the gateway at once: whoever sends it does not want to wait.
func TestSecondTerminateEndsAtOnce(t *testing.T) {
	t.Parallel()
	o, a := startOrigin(t, "A")
	g := startGateway(t, drainable+"drain: {delay: 5m, drain_timeout: 1h}", "${A}", a)
	g.stopped = true
	held(t, g, o, 1)
	g.signal(t, syscall.SIGTERM)
	eventually(t, "the drain begins", func() (bool, string) { return strings.Contains(g.log.String(), "draining"), g.log.String() })
	g.signal(t, syscall.SIGTERM)
	if code := g.exit(t); code == 0 {
		t.Error("exit code 0: nobody could tell that exchanges were broken off")
	}
}

// A listener that a reload removes takes no new connections, and what came through it is finished; the drain that follows
// knows about that, too.
func TestRemovedListenerIsDrained(t *testing.T) {
	t.Parallel()
	const with = `
listeners: {public: {address: "${LISTEN}"}, extra: {address: "${EXTRA}"}}
upstreams: {a: "${A}"}
apis: {all: {upstream: a}}
drain: {drain_timeout: 500ms}
`
	o, a := startOrigin(t, "A")
	g := startGateway(t, with, "${A}", a)
	g.stopped = true
	through := connect(t, g.extra)
	if _, err := io.WriteString(through, request("GET /held")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the origin has the request", func() (bool, string) { return o.held.Load() == 1, "" })
	g.write(t, strings.Replace(with, `, extra: {address: "${EXTRA}"}`, "", 1))
	if status, body, err := g.ask("POST", "/reload"); status != 200 {
		t.Fatalf("reload: %d %s %v", status, body, err)
	}
	probeExtra(t, g, false)
	if o.gone.Load() != 0 {
		t.Error("the exchange was broken off by the reload")
	}
	began := time.Now()
	g.signal(t, syscall.SIGTERM)
	if code := g.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("ended after %v", time.Since(began))
	through.closed(t)
}

// A listener may get another name, two may swap their addresses: the doors stay open all the time.
func TestListenersMayBeRenamed(t *testing.T) {
	t.Parallel()
	const first = `
listeners: {public: {address: "${LISTEN}"}, extra: {address: "${EXTRA}"}}
apis: {all: {routes: {r: {match: /**, respond: {body: "ok"}}}}}
`
	g := startGateway(t, first)
	l := (&load{address: g.listen, every: 2 * time.Millisecond, workers: 8, ask: func(int) string { return request("GET /") },
		judge: func(_ int, r reply, err error) error {
			if err == nil && r.body != "ok" {
				err = fmt.Errorf("%+v", r)
			}
			return err
		}}).begin()
	l.flows(t, 50)
	for _, names := range [][2]string{{"renamed", "extra"}, {"extra", "renamed"}, {"public", "other"}} {
		g.write(t, strings.NewReplacer("public", names[0], "extra", names[1]).Replace(first))
		if status, body, err := g.ask("POST", "/reload"); status != 200 {
			t.Fatalf("reload with %v: %d %s %v", names, status, body, err)
		}
		l.flows(t, 50)
	}
	if wrong := l.end(); len(wrong) > 0 {
		t.Errorf("%d wrong, such as %v", len(wrong), wrong[0])
	}
}

// After kill -9 the gateway starts again at once with the same document, on the same ports, whatever connections it had.
func TestKilledGatewayStartsAgain(t *testing.T) {
	t.Parallel()
	o, a := startOrigin(t, "A")
	g := startGateway(t, drainable, "${A}", a)
	g.stopped = true
	held(t, g, o, 10)
	g.kill()
	eventually(t, "the origin sees that its callers have gone", func() (bool, string) {
		return o.gone.Load() == 10, fmt.Sprint(o.gone.Load())
	})
	g.stopped = false
	g.start(t, drainable)
	if r := connect(t, g.listen).get(t, "/again"); r.body != "A /again" {
		t.Errorf("again: %+v", r)
	}
}
