//go:build linux

package network

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headgate/internal/testkit/lab"
)

// standard is the document that tunes nothing.
const standard = `
listeners: {public: {address: ":8000"}}
upstreams: {a: {targets: [${HTTP}]}}
apis: {all: {upstream: a}}
`

// The way to one of three services is bad. No request fails, and most go where the way is good.
func TestABadLinkIsAvoided(t *testing.T) {
	t.Parallel()
	for _, link := range []struct {
		name     string
		services int
		requests int
		lab.Condition
	}{
		{"1 % lost, 50 ms", 3, 1500, lab.Condition{Loss: 0.01, Delay: 50 * time.Millisecond}},
		{"5 % lost, 50 ms", 3, 1500, lab.Condition{Loss: 0.05, Delay: 50 * time.Millisecond}},
		{"5 % lost, 50 ms, and there is no other", 1, 200, lab.Condition{Loss: 0.05, Delay: 50 * time.Millisecond}},
		{"20 kB/s", 3, 1500, lab.Condition{Rate: 20_000}},
	} {
		t.Run(link.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, link.services, standard)
			bad := w.targets[0]
			w.Both(w.machine, bad.Machine, link.Condition)
			l := w.begin(t, 8, request("GET /"))
			l.flows(t, link.requests)
			l.end()
			if wrong, n := l.failures(); n > 0 {
				t.Errorf("%d failed: %v", n, wrong)
			}
			share := float64(l.by(bad)) / float64(l.answered())
			t.Logf("%.1f %% of %d requests went over the bad link; %s", share*100, l.answered(), l)
			if link.services > 1 && link.Delay > 0 && share > 0.25 {
				t.Errorf("%.1f %% went over the bad link", share*100)
			}
			if lost := w.Lost(w.machine, bad.Machine) + w.Lost(bad.Machine, w.machine); link.services == 1 && lost == 0 {
				t.Error("no packet was lost")
			}
			if asked := bad.asked(t); asked < l.by(bad) {
				t.Errorf("the service has seen %d requests and answered %d", asked, l.by(bad))
			}
		})
	}
}

const (
	slowClients = 4
	slowSize    = 64 << 20 // of each client's download
	slowRate    = 100_000  // bytes per second, of all together
	slowTaken   = 50_000   // bytes that each takes before one looks
	mostFetched = 48 << 20 // what sockets' buffers may hold along the way: far less than all the downloads
	mostMemory  = 48 << 10 // KiB
)

// Clients behind a slow link ask for much. What they cannot take yet is not fetched, and the gateway's memory does not grow.
// When they vanish, they are let go after body_timeout, and their downloads with them.
func TestSlowClientsCostLittle(t *testing.T) {
	t.Parallel()
	w := start(t, 1, strings.Replace(standard, `":8000"`, `":8000", limits: {body_timeout: 2s}`, 1))
	before := w.idles(t)
	far := w.Machine(t, "far")
	w.Set(w.machine, far, lab.Condition{Rate: slowRate, Delay: 10 * time.Millisecond, Queue: 50})
	base := w.memory(t)
	var taken [slowClients]atomic.Int64
	for i := range taken {
		c, err := connect(far, w.machine.At(httpPort))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.WriteString(c, request(fmt.Sprintf("GET /download?size=%d", slowSize)))
			for b := make([]byte, 4096); ; {
				n, err := c.in.Read(b)
				if err != nil {
					return
				}
				taken[i].Add(int64(n))
			}
		}()
		t.Cleanup(func() { c.Close(); <-ended })
	}
	eventually(t, "everybody gets something", func() (bool, string) {
		least := taken[0].Load()
		for i := range taken {
			least = min(least, taken[i].Load())
		}
		return least > slowTaken, fmt.Sprint(least)
	})
	fetched, grown := w.Carried(w.targets[0].Machine, w.machine)*1500, w.memory(t)-base
	t.Logf("at most %d KiB of %d were fetched, memory grew by %d KiB", fetched>>10, slowClients*slowSize>>10, grown)
	if fetched > mostFetched {
		t.Errorf("%d bytes were fetched; at most %d", fetched, mostFetched)
	}
	if grown > mostMemory {
		t.Errorf("memory grew by %d KiB; at most %d", grown, mostMemory)
	}
	w.Cut(w.machine, far)
	w.settles(t, before)
}
