// Package engine carries exchanges: serve.go one from its request to the end of its reply, swap.go replaces the snapshot
// by which they are carried.
package engine

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"headgate/gateway/exchange"
	"headgate/gateway/grpc"
	"headgate/gateway/guard"
	"headgate/gateway/record"
)

// Engine carries exchanges by the current snapshot.
type Engine struct {
	Record     *record.Recorder
	Log        *slog.Logger
	Challenges Challenges   // answered on doors in clear; nil: there are none
	Guard      *guard.Guard // nil: nothing is refused for want of memory

	current atomic.Pointer[Snapshot]
	swaps   sync.Mutex     // one Swap at a time
	closing sync.WaitGroup // outdated snapshots that still drain
}

// Current returns the snapshot by which new exchanges are carried; nil before the first Swap.
func (e *Engine) Current() *Snapshot { return e.current.Load() }

// Entrance is where the exchanges of one listener come in. It implements exchange.Handler.
type Entrance struct {
	Engine *Engine
	Door   atomic.Pointer[Door]
}

// Serve carries one exchange.
func (n *Entrance) Serve(x *exchange.Exchange) {
	s := n.Engine.pin(x.Shard)
	c := carriage{engine: n.Engine, snapshot: s, door: n.Door.Load(), x: x, route: s.NotFound}
	defer c.end()
	if n.Engine.Guard.Sheds() {
		c.shed()
		return
	}
	c.carry()
}

// Refuse answers and records a request that was not valid HTTP; x.Err says why.
func (n *Entrance) Refuse(x *exchange.Exchange) {
	s := n.Engine.pin(x.Shard)
	c := carriage{engine: n.Engine, snapshot: s, door: n.Door.Load(), x: x, route: s.NotFound}
	defer c.end()
	x.Route = s.NotFound.Info
	x.MakeSlots(s.NotFound.Slots)
	x.Client.IP = x.Client.Peer.Addr()
	n.Engine.Record.Begin(x)
	c.rpc = grpc.Recognize(x)
	x.Problem(x.Err.Code, x.Err.Detail)
	c.send()
}
