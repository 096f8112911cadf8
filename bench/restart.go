package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"headgate/bench/load"
	"headgate/bench/payload"
	"headgate/bench/peers"
	"headgate/bench/proc"
)

const (
	settle      = time.Second // from the last request until memory is read: what the gateway gives back at once, it has given back
	reloadCount = 3
	reloadEvery = 1500 * time.Millisecond // between two reloads
	liveWithin  = 10 * time.Second        // for a new configuration to answer
)

// startAndMemory measures the time to the first answer and the memory when idle: alone, and with idle keep-alive connections.
func (b *bench) startAndMemory(t task, kind peers.Kind) (s sample, err error) {
	g, requests, err := b.start(t, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Stop(), os.RemoveAll(g.Settings.Dir)) }()
	first, err := g.Ready(b.ctx, requests[0])
	if err != nil {
		return nil, err
	}
	s = sample{startMillis: micros(first) / 1000}
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			_ = c.Close()
		}
	}()
	for _, step := range []struct {
		connections int
		metric      metric
	}{{0, rssMiB}, {1000, rss1000}, {10_000, rss10000}} {
		for len(idle) < step.connections {
			conn, err := idleConnection(g.Settings.Listen, requests[0])
			if err != nil {
				return s, fmt.Errorf("idle connection %d: %w\n%s", len(idle)+1, err, g.Output())
			}
			idle = append(idle, conn)
		}
		if err := wait(b.ctx, settle); err != nil {
			return s, err
		}
		pids, err := g.Processes()
		if err != nil {
			return s, err
		}
		rss, err := proc.RSS(pids)
		if err != nil {
			return s, err
		}
		s[step.metric] = float64(rss) / (1 << 20)
	}
	s[perIdleKiB] = (s[rss10000] - s[rssMiB]) * 1024 / 10_000
	// The gateway must still know all of them: the first and the last are used again.
	for _, conn := range []net.Conn{idle[0], idle[len(idle)-1]} {
		if err := ask(conn, requests[0]); err != nil {
			return s, fmt.Errorf("a connection that was idle is no longer served: %w", err)
		}
	}
	return s, nil
}

// idleConnection opens a connection that has carried one request.
func idleConnection(address string, request []byte) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if err := ask(conn, request); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func ask(conn net.Conn, request []byte) error {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || !bytes.Equal(body, payload.Small())) {
		err = fmt.Errorf("it answers %s with %d bytes", answer.Status, len(body))
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// reloads sends requests at a fixed rate while the configuration is replaced three times, and sees to it that each became live.
func (b *bench) reloads(t task, kind peers.Kind) (s sample, err error) {
	g, requests, err := b.start(t, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Stop(), os.RemoveAll(g.Settings.Dir)) }()
	if _, err := g.Ready(b.ctx, requests[0]); err != nil {
		return nil, err
	}
	session, err := load.Open(load.Plan{
		Address: g.Settings.Listen, Connections: t.connections, Requests: requests, Expect: t.expect, Rate: t.rate,
	})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	warm, err := session.Run(b.ctx, time.Second)
	if err != nil || warm.Failed() > 0 {
		return nil, errors.Join(err, complain(warm))
	}
	type outcome struct {
		slowest time.Duration
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		slowest, err := b.reloadThrice(g)
		done <- outcome{slowest, err}
	}()
	r, err := session.Run(b.ctx, reloadEvery*(reloadCount+1))
	reloaded := <-done
	if err = errors.Join(err, reloaded.err); err != nil {
		return nil, err
	}
	s = throughput(r)
	s[failures] = float64(r.Wrong) // what is lost is a figure of its own
	s[lostCount], s[refusedOnes], s[liveMillis] = float64(r.Lost), float64(r.Refused), micros(reloaded.slowest)/1000
	if r.Wrong > 0 { // losing some is a figure; a wrong answer is an error
		return s, complain(r)
	}
	return s, nil
}

// reloadThrice replaces the configuration, each time with the next generation, and returns the longest time until one was live.
func (b *bench) reloadThrice(g *peers.Gateway) (slowest time.Duration, err error) {
	for generation := 2; generation <= reloadCount+1; generation++ {
		if err := wait(b.ctx, reloadEvery); err != nil {
			return 0, err
		}
		next := g.Settings
		next.Generation = generation
		start := time.Now()
		if err := g.Reload(next); err != nil {
			return 0, fmt.Errorf("reload: %w", err)
		}
		for live := false; !live; {
			body, err := fetch("http://" + g.Settings.Listen + "/generation")
			live = err == nil && string(body) == fmt.Sprint(generation)
			if live {
				slowest = max(slowest, time.Since(start))
			} else if time.Since(start) > liveWithin {
				return 0, fmt.Errorf("generation %d was not live after %v: %q, %w\n%s", generation, liveWithin, body, err, g.Output())
			} else if err := wait(b.ctx, 5*time.Millisecond); err != nil {
				return 0, err
			}
		}
	}
	return slowest, nil
}
