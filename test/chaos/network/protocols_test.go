//go:build linux

package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"headgate/internal/testkit/lab"
)

// mostSilence is how long it may take until the gateway knows that a machine acknowledges nothing any more: the connect timeout,
// at least 2 s, between two looks.
const mostSilence = 4*time.Second + slack

// The document tunes nothing, and a machine disappears from the network while connections to it are idle. No idempotent request
// is lost: the others answer, long before the 30 s that an answer may take.
func TestAMachineDisappearsBehindIdleConnections(t *testing.T) {
	t.Parallel()
	w := start(t, 3, standard)
	before := w.idles(t)
	l := w.begin(t, 8, request("GET /slow?for=20ms"))
	for _, s := range w.targets {
		eventually(t, s.Name+" answers", func() (bool, string) { return l.by(s) > 10, l.String() })
	}
	l.end()
	lost := w.targets[0]
	if idle := w.sees(t)[0].Idle; idle == 0 {
		t.Error("no connection to it is idle")
	}
	w.Cut(w.machine, lost.Machine)
	l = w.begin(t, 8, request("GET /slow?for=20ms"))
	l.flows(t, 500)
	l.end() // which waits for every answer
	if wrong, n := l.failures(); n > 0 {
		t.Errorf("%d failed: %v", n, wrong)
	}
	if most := 2*mostSilence + 2*time.Second; l.longest > most {
		t.Errorf("a request took %v; at most %v", l.longest, most)
	}
	w.Heal(w.machine, lost.Machine)
	w.settles(t, before)
	t.Log(l)
}

// Over HTTP/2 many requests share a connection. When its machine is lost they end by the document's timeouts, and new ones go to
// the other.
func TestSharedConnectionsOverAPartition(t *testing.T) {
	t.Parallel()
	w := start(t, 2, strings.ReplaceAll(brisk, "${HTTP}", "${H2C}"))
	before := w.idles(t)
	l := w.begin(t, 8, request("GET /"))
	for _, s := range w.targets {
		eventually(t, s.Name+" answers", func() (bool, string) { return l.by(s) > 20, l.String() })
	}
	lost, other := w.targets[0], w.targets[1]
	w.Cut(w.machine, lost.Machine)
	n := l.by(other)
	eventually(t, "the other answers", func() (bool, string) { return l.by(other) > n+300, l.String() })
	w.Heal(w.machine, lost.Machine)
	n = l.by(lost)
	eventually(t, "it is back", func() (bool, string) { return l.by(lost) > n+20, l.String() })
	l.end()
	l.known(t, []string{unreachable, timedOut, closed})
	if most := 3*time.Second + slack; l.longest > most {
		t.Errorf("a request took %v; at most %v", l.longest, most)
	}
	w.settles(t, before)
	t.Log(l)
}

// A WebSocket whose service disappears ends when something is sent that nobody acknowledges, and not after idle_timeout, an hour.
func TestAWebSocketOverAPartition(t *testing.T) {
	t.Parallel()
	w := start(t, 1, standard)
	before := w.idles(t)
	dial := &http.Transport{DialContext: w.machine.Dial}
	defer dial.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+w.machine.At(httpPort)+"/chat", &websocket.DialOptions{HTTPClient: &http.Client{Transport: dial}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	say := func() error {
		if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			return err
		}
		_, _, err := c.Read(ctx)
		return err
	}
	if err := say(); err != nil {
		t.Fatal(err)
	}
	w.Cut(w.machine, w.targets[0].Machine)
	began := time.Now()
	if err = say(); err == nil || ctx.Err() != nil {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	if took := time.Since(began); took > mostSilence {
		t.Errorf("it ends after %v; at most %v", took, mostSilence)
	}
	t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), err)
	w.settles(t, before)
}

const raw = `
listeners: {raw: {address: ":7001", tcp: {upstream: a}}}
upstreams: {a: {targets: [${TCP}], timeouts: {connect: 500ms}, balance: round-robin}}
`

// A TCP connection whose service disappears is reset, so that nobody takes what came for the whole; new ones go to the other.
func TestTCPOverAPartition(t *testing.T) {
	t.Parallel()
	w := start(t, 2, raw)
	before := w.idles(t)
	echo := func(c *client) error {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "hello\n"); err != nil {
			return err
		}
		_, err := c.in.ReadString('\n')
		return err
	}
	var conns []*client
	for range 6 {
		c, err := connect(w.machine, w.machine.At(rawPort))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := echo(c); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	lost := w.sees(t)[0].InFlight
	w.Cut(w.machine, w.targets[0].Machine)
	began, ended := time.Now(), make(chan error, len(conns))
	for _, c := range conns {
		go func() { ended <- echo(c) }()
	}
	resets := 0
	for range conns {
		err := <-ended
		var timeout net.Error
		switch {
		case err == nil:
		case errors.As(err, &timeout) && timeout.Timeout():
			t.Error("a connection hangs: ", err)
		default:
			resets++
			t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), err)
		}
	}
	if resets != lost || lost == 0 {
		t.Errorf("%d of %d connections have ended; %d led to the lost service", resets, len(conns), lost)
	}
	if took := time.Since(began); took > mostSilence {
		t.Errorf("they ended after %v", took)
	}
	for range 4 {
		began := time.Now()
		c, err := connect(w.machine, w.machine.At(rawPort))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := echo(c); err != nil || time.Since(began) > 2*time.Second+slack {
			t.Errorf("a new connection, after %v: %v", time.Since(began), err)
		}
		c.Close()
	}
	for _, c := range conns {
		c.Close()
	}
	w.settles(t, before)
}

// Small packets arrive and large ones vanish, as where a tunnel is in the way and ICMP is filtered: what is small is served, and
// what is large ends in time, either way.
func TestLargePacketsVanish(t *testing.T) {
	t.Parallel()
	const size = 100_000
	w := start(t, 1, brisk)
	before := w.idles(t)
	upload := request("POST /upload", fmt.Sprintf("Content-Length: %d", size)) + strings.Repeat("x", size)
	download := request(fmt.Sprintf("GET /download?size=%d", size))
	for _, way := range []struct {
		name     string
		from, to *lab.Machine
		raw      string
	}{
		{"requests", w.machine, w.targets[0].Machine, upload},
		{"answers", w.targets[0].Machine, w.machine, download},
	} {
		if o := w.ask(way.raw); !o.ok() {
			t.Errorf("%s before: %s", way.name, o)
		}
		w.Set(way.from, way.to, lab.Condition{MTU: 600})
		if o := w.ask(request("GET /")); !o.ok() {
			t.Errorf("%s, small: %s", way.name, o)
		}
		o := w.ask(way.raw)
		if o.ok() || errors.Is(o.err, os.ErrDeadlineExceeded) || o.took > mostSilence+2*time.Second {
			t.Errorf("%s, large, after %v: %s", way.name, o.took, o)
		}
		t.Logf("%s, after %v: %s", way.name, o.took.Round(time.Millisecond), o)
		w.Set(way.from, way.to, lab.Condition{})
		eventually(t, way.name+" after it", func() (bool, string) { o := w.ask(way.raw); return o.ok(), o.String() })
	}
	w.settles(t, before)
}
