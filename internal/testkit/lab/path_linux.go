package lab

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// Condition is what a path does to packets, one way. The zero value carries them all at once.
type Condition struct {
	Loss        float64       // share of packets that vanish, 0 to 1
	Delay       time.Duration // of each packet
	Rate        int           // bytes per second; 0: any
	Queue       int           // packets that wait, on a path that delays them, before others are lost; 0: 1000, which is the most
	MTU         int           // longer packets vanish and nobody is told; 0: none do
	Unreachable bool          // the router answers that the host cannot be reached (ICMP, RFC 792)
}

// maxQueue bounds the packets that wait on a path.
const maxQueue = 1000

// path leads from one machine to another.
type path struct {
	to        *Machine
	condition atomic.Pointer[Condition]
	random    *rand.Rand // of the goroutine that reads where the path begins, as is
	free      time.Time  // when the last packet has left, at the path's rate
	queue     chan parcel

	carried, lost atomic.Int64
}

// parcel is a packet on its way.
type parcel struct {
	packet []byte
	due    time.Time
}

// carry takes a packet, which it does not keep, to the path's end.
func (p *path) carry(from *Machine, packet []byte) {
	c := p.condition.Load()
	switch {
	case c.Unreachable:
		p.lost.Add(1)
		from.refuse(packet)
	case c.Loss > 0 && p.random.Float64() < c.Loss, c.MTU > 0 && len(packet) > c.MTU:
		p.lost.Add(1)
	case c.Delay == 0 && c.Rate == 0:
		p.hand(packet)
	default:
		p.post(c, packet)
	}
}

// post puts a packet into the queue.
func (p *path) post(c *Condition, packet []byte) {
	if c.Queue > 0 && len(p.queue) >= c.Queue {
		p.lost.Add(1)
		return
	}
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	leaves := p.free
	if c.Rate > 0 {
		leaves = leaves.Add(time.Duration(len(packet)) * time.Second / time.Duration(c.Rate))
	}
	select {
	case p.queue <- parcel{slices.Clone(packet), leaves.Add(c.Delay)}:
		p.free = leaves
	default:
		p.lost.Add(1)
	}
}

// deliver hands over what waits, each packet at its time.
func (p *path) deliver(done <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case next := <-p.queue:
			if wait := time.Until(next.due); wait > 0 {
				timer.Reset(wait)
				select {
				case <-done:
					return
				case <-timer.C:
				}
			}
			p.hand(next.packet)
		}
	}
}

func (p *path) hand(packet []byte) {
	if p.to.receive(packet) {
		p.carried.Add(1)
	} else {
		p.lost.Add(1)
	}
}
