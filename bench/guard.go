package main

import (
	"errors"
	"fmt"
	"os"

	"headgate/bench/figure"
	"headgate/bench/load"
	"headgate/bench/peers"
	"headgate/bench/proc"
)

// Figures of the comparison of two binaries.
const (
	nowMicros    metric = "CPU µs now"
	beforeMicros metric = "CPU µs before"
	costRatio    metric = "now / before"
	costLow      metric = "95 % from"
	costHigh     metric = "to"
)

const (
	parts     = 20 // a turn is so small a part of a measurement, 200 ms of 4 s, that the machine is the same for both of a pair
	pairs     = 80 // of turns: with 8 % between turns, the median's error is about 1 %
	guardCase = "P1"
)

// guardTask compares two binaries of Headgate on the plain path.
func guardTask() task {
	plain := lineTasks()[1]
	plain.id, plain.title = guardCase, "GET, 64 connections: this binary and another (-against), in turns of 200 ms"
	plain.special, plain.columns = (*bench).guard, []metric{nowMicros, beforeMicros, costRatio, costLow, costHigh}
	return plain
}

// contender is one of the two: a gateway that runs, and the load on it.
type contender struct {
	gateway *peers.Gateway
	session *load.Session
	pids    []int
}

// guard starts both and lets them take turns: A B, B A, A B, ..., so that neither is always the second. What is compared are the two of a
// pair.
func (b *bench) guard(t task, kind peers.Kind) (s sample, err error) {
	if kind != peers.Headgate || b.against == "" {
		return nil, errCannot
	}
	var both [2]contender
	for i, binary := range []string{b.headgate, b.against} {
		c, end, err := b.contend(t, binary)
		if end != nil {
			defer func() { err = errors.Join(err, end()) }()
		}
		if err != nil {
			return nil, err
		}
		both[i] = c
	}
	var now, before, ratios []float64
	for n := range pairs {
		var cost [2]float64
		for _, i := range [2]int{n % 2, 1 - n%2} {
			if cost[i], err = both[i].turn(b); err != nil {
				return nil, err
			}
		}
		now, before, ratios = append(now, cost[0]), append(before, cost[1]), append(ratios, cost[0]/cost[1])
	}
	low, high := figure.MedianInterval(ratios)
	return sample{
		nowMicros: figure.Summarize(now).Median, beforeMicros: figure.Summarize(before).Median,
		costRatio: figure.Summarize(ratios).Median, costLow: low, costHigh: high,
	}, nil
}

// contend starts a binary and warms it up; end stops what was started, also when there is an error.
func (b *bench) contend(t task, binary string) (c contender, end func() error, err error) {
	g, requests, err := b.startBinary(t, peers.Headgate, binary)
	if err != nil {
		return c, nil, err
	}
	end = func() error {
		if c.session != nil {
			c.session.Close()
		}
		return errors.Join(g.Stop(), os.RemoveAll(g.Settings.Dir))
	}
	if _, err := g.Ready(b.ctx, requests[0]); err != nil {
		return c, end, err
	}
	plan := load.Plan{Address: g.Settings.Listen, Connections: t.connections, Requests: requests, Expect: t.expect}
	if c.session, err = load.Open(plan); err != nil {
		return c, end, err
	}
	if c.pids, err = g.Processes(); err != nil {
		return c, end, err
	}
	c.gateway = g
	_, err = c.turn(b)
	return c, end, err
}

// turn is a turn of one: its CPU for each request, in microseconds.
func (c *contender) turn(b *bench) (float64, error) {
	before, err := proc.Used(c.pids)
	if err != nil {
		return 0, err
	}
	r, err := c.session.Run(b.ctx, b.duration/parts)
	if err != nil {
		return 0, err
	}
	after, err := proc.Used(c.pids)
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, c.gateway.Output())
	}
	if r.Completed == 0 {
		return 0, fmt.Errorf("no answer in %v: %s", b.duration/parts, r.Complaint())
	}
	return micros(after.Since(before).Run) / float64(r.Completed), complain(r)
}
