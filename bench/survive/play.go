// Package survive plays what happens to upstreams: a target becomes slow, dies, is replaced, is asked for more than it can do.
// Each scenario is played behind a gateway that runs, with real processes, and sends at a constant rate whatever happens; every
// request is measured from the moment at which it was due.
package survive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"headgate/bench/fleet"
	"headgate/bench/load"
)

// Stage is what a scenario is played on.
type Stage struct {
	Gateway string // host:port
	Targets fleet.Fleet
	Pace    float64 // 1: as told; 0.1: everything but service times and rates takes a tenth of the time
	Clients []Client
	Tell    func(targets []string) error // hands the gateway another list of targets; of the scenario of replacing

	Refusals  bool   // 503 is what some have to get
	Complaint string // once played: what the clients got that was no answer, each kind counted
}

// Client is who sends.
type Client struct {
	Rate     int // per second
	Requests [][]byte
	Expect   load.Expect
}

// connections of one client: as many as requests wait at the slowest gateway without a limit, for some seconds; behind these they wait in
// the client, which counts too.
const connections = 512

// grace is how long answers are waited for when a scenario has ended.
const grace = 5 * time.Second

// step is what happens at a time.
type step struct {
	at time.Duration
	do func() error
}

// played is what came of a scenario.
type played struct {
	clients []outcomes
	at      []time.Duration // when each step was done
	lasted  time.Duration
	errors  map[string]int // what the clients complained of
}

func (s *Stage) pace(d time.Duration) time.Duration { return time.Duration(float64(d) * s.Pace) }

// play sends for so long and takes each step at its time, both at the pace of the stage.
func (s *Stage) play(ctx context.Context, lasts time.Duration, steps ...step) (p played, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.lasted = s.pace(lasts)
	sessions := make([]*load.Session, len(s.Clients))
	for i, c := range s.Clients {
		sessions[i], err = load.Open(load.Plan{
			Address: s.Gateway, Connections: connections, Requests: c.Requests, Expect: c.Expect, Rate: c.Rate, Outcomes: true, Grace: grace,
		})
		if err != nil {
			return p, err
		}
		defer sessions[i].Close()
	}
	type run struct {
		client int
		result *load.Result
		err    error
	}
	runs := make(chan run, len(sessions))
	began := time.Now()
	for i, session := range sessions {
		go func() {
			r, err := session.Run(ctx, p.lasted)
			runs <- run{i, r, err}
		}()
	}
	for _, one := range steps {
		if err = until(ctx, began.Add(s.pace(one.at))); err == nil {
			p.at = append(p.at, time.Since(began))
			err = one.do()
		}
		if err != nil {
			cancel()
			break
		}
	}
	p.clients, p.errors = make([]outcomes, len(sessions)), map[string]int{}
	for range sessions {
		r := <-runs
		if err = errors.Join(err, r.err); err != nil {
			continue
		}
		p.clients[r.client] = r.result.Outcomes
		for what, n := range r.result.Errors {
			p.errors[what] += n
		}
	}
	s.Complaint = s.complaint(p)
	for i, o := range p.clients {
		// A client that gave up after too many errors sent less than it should, which must not look like success.
		if want := int(p.lasted.Seconds() * float64(s.Clients[i].Rate)); err == nil && len(o) < want {
			err = fmt.Errorf("client %d has %d outcomes of at least %d requests: %v", i, len(o), want, p.errors)
		}
	}
	return p, err
}

// complaint counts what ended otherwise than it may.
func (s *Stage) complaint(p played) string {
	for _, o := range p.clients {
		for _, one := range o {
			if one.Status != 0 && one.Status != 200 && !(one.Status == 503 && s.Refusals) {
				p.errors[fmt.Sprintf("status %d", one.Status)]++
			}
		}
	}
	var all []string
	for _, what := range slices.Sorted(maps.Keys(p.errors)) {
		all = append(all, fmt.Sprintf("%d × %s", p.errors[what], what))
	}
	return strings.Join(all, "; ")
}

func until(ctx context.Context, t time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(t)):
		return nil
	}
}

// count is the step of asking the targets at a time how often they were asked.
func (s *Stage) count(ctx context.Context, at time.Duration, into *[]int) step {
	return step{at, func() (err error) {
		*into, err = s.Targets.Asked(ctx)
		return err
	}}
}

// share is the target's part, in percent, of what all were asked between two counts.
func share(before, after []int, target int) float64 {
	all := 0
	for i := range after {
		all += after[i] - before[i]
	}
	return percent(float64(after[target]-before[target]), float64(all))
}
