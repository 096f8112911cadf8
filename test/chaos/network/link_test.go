//go:build linux

package network

import (
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
