package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"

	"headgate/bench/fleet"
	"headgate/bench/load"
	"headgate/bench/payload"
	"headgate/bench/peers"
	"headgate/bench/proc"
	"headgate/bench/survive"
)

// maxSurvivals bounds the rounds of the scenarios of survival: one lasts a minute and a half, however quick the machine is.
const maxSurvivals = 3

// shortPace is that of -short: enough to see that everything runs, not to say how well.
const shortPace = 0.1

// surviveTasks are the cases of what happens to upstreams.
func surviveTasks() []task {
	one := func(id, title string, s survive.Scenario, more func(*peers.Survival)) task {
		t := task{id: id, title: title, together: true, special: surviving(s, more)}
		for _, f := range s.Figures {
			t.columns = append(t.columns, metric(f))
		}
		return t
	}
	return []task{
		one("U1", "one of three targets becomes ten times slower after 10 s; the 30 s from then on; 300 requests/s", survive.Slower(), nil),
		one("U2", "one of three targets is killed (SIGKILL), is away for 8 s and comes back; 300 requests/s", survive.Killed(), nil),
		one("U3/capacity", "a target that can answer 200 requests/s is offered 400", survive.Overloaded(), nil),
		one("U3/fair", "the same, from two consumers, one of which sends ten times as much", survive.Unfair(), nil),
		one("U4", "three targets are replaced one by one through discovery, the old one ending in the same moment; 300 requests/s",
			survive.Replaced(), func(p *peers.Survival) { p.Discovery = true }),
		one("U5/off", "2 % of requests take 100 times as long; 300 requests/s", survive.Tailed(), nil),
		one("U5/hedge", "the same, with hedging", survive.Tailed(), func(p *peers.Survival) { p.Hedge = true }),
	}
}

// surviving makes the measurement of a scenario; more adds to what it asks of the gateway.
func surviving(s survive.Scenario, more func(*peers.Survival)) func(*bench, task, peers.Kind) (sample, error) {
	return func(b *bench, t task, kind peers.Kind) (sample, error) {
		asked := peers.Survival{Keys: keysOf(len(s.Rates)), Discovery: false}
		if s.Targets == 1 {
			asked.Workers, asked.Capacity = s.Behaviour.Workers, int(s.Behaviour.Capacity())
		}
		if more != nil {
			more(&asked)
		}
		if !kind.Can(peers.Settings{Survival: &asked}) {
			return nil, errCannot
		}
		return b.survive(t, kind, s, asked)
	}
}

// keysOf makes a key for each of several consumers; one alone needs none.
func keysOf(consumers int) []peers.Key {
	if consumers == 1 {
		return nil
	}
	var keys []peers.Key
	for i := range consumers {
		value := fmt.Sprintf("survival-%d-0123456789abcdef", i)
		keys = append(keys, peers.Key{
			Consumer: fmt.Sprintf("consumer-%d", i), Value: value, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(value))),
		})
	}
	return keys
}

func (b *bench) survive(t task, kind peers.Kind, scenario survive.Scenario, asked peers.Survival) (s sample, err error) {
	cores, err := proc.Cores()
	if err != nil {
		return nil, err
	}
	targets, err := fleet.StartFleet(cores[0], scenario.Targets, scenario.Behaviour)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, targets.Kill()) }()
	asked.Targets = targets[:scenario.Targets-scenario.Spare].Addresses()
	t.shape = func(s *peers.Settings) error { s.Survival = &asked; return nil }
	t.requests = func(*peers.Settings) ([][]byte, error) { return surviveRequests(asked.Keys), nil }
	g, requests, err := b.start(t, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Stop(), os.RemoveAll(g.Settings.Dir)) }()
	if _, err := g.Ready(b.ctx, requests[0]); err != nil {
		return nil, err
	}
	stage := survive.Stage{Gateway: g.Settings.Listen, Targets: targets, Pace: b.pace, Tell: g.Tell, Refusals: scenario.Targets == 1}
	expect := load.Expect{Status: 200, Body: payload.Small(), Fields: []load.Field{{Name: "x-origin", Value: "bench"}}}
	for i, rate := range scenario.Rates {
		stage.Clients = append(stage.Clients, survive.Client{Rate: rate, Requests: requests[i : i+1], Expect: expect})
	}
	figures, err := scenario.Play(&stage, b.ctx)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, g.Output())
	}
	if stage.Complaint != "" {
		b.note(fmt.Sprintf("round %d, %s, %s: %s", b.round, t.id, kind, stage.Complaint))
	}
	s = sample{}
	for name, value := range figures {
		s[metric(name)] = value
	}
	return s, nil
}

// surviveRequests are one for each consumer.
func surviveRequests(keys []peers.Key) [][]byte {
	const target = "/api/orders/42?expand=items"
	if len(keys) == 0 {
		return [][]byte{request("GET", target, "")}
	}
	var all [][]byte
	for _, k := range keys {
		all = append(all, request("GET", target, "X-Api-Key: "+k.Value+"\r\n"))
	}
	return all
}

// note keeps what the report says below its tables.
func (b *bench) note(text string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.notes = append(b.notes, text)
}

// turn is what one contestant did.
type turn struct {
	kind   peers.Kind
	sample sample
	err    error
}

// turns lets the contestants do a case: one after the other, or, where nobody is busy and only time passes, side by side, each with
// targets and clients of its own; then a noise of the machine reaches all of them.
func (b *bench) turns(t task) []turn {
	all := make([]turn, len(b.contestants))
	var wait sync.WaitGroup
	for i, kind := range b.contestants {
		if b.ctx.Err() != nil {
			break
		}
		one := func() {
			s, err := b.one(t, kind)
			all[i] = turn{kind, s, err}
		}
		if t.together {
			wait.Go(one)
		} else {
			one()
		}
	}
	wait.Wait()
	return all
}
