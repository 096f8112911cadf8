package engine

import (
	"errors"

	"headgate/gateway/exchange"
	"headgate/gateway/record"
	"headgate/gateway/tcp"
	"headgate/gateway/upstream"
	"headgate/internal/sock"
)

// TCP is where the connections of a listener go that speaks no HTTP.
type TCP struct {
	Names  tcp.Table[*Way]
	Ways   []*Way // all of them, as the document lists them
	Other  *Way   // of connections without a name, or with one that is not listed; nil: they are refused
	Nobody *Way   // has no upstream: by it what is refused is recorded
}

// Way is what some connections of a TCP listener lead to.
type Way struct {
	Info     *exchange.Route // has no API; its name is the listener's
	Names    []string        // that it is for; none: all others
	Upstream *upstream.Upstream
	Meter    *record.RouteMeter
}

// Find returns the way of a name that a TLS client asks for, in lower case; nil: there is none.
func (t *TCP) Find(name string) *Way {
	if w, ok := t.Names.Find(name); ok {
		return w
	}
	return t.Other
}

func (t *TCP) all() []*Way {
	if t == nil {
		return nil
	}
	return t.Ways
}

// Connect implements tcp.Handler: it chooses the upstream and opens its side of the connection.
//
// The snapshot is pinned only until then. A connection lives for hours, and holding the snapshot for as long would keep
// every document since then in memory. It needs nothing of it afterwards: an upstream that has been closed with its
// document leaves its open connections alone, and numbers that are counted for a route that is gone go with it.
func (n *Entrance) Connect(x *exchange.Exchange) (c *sock.Conn, end func(), err error) {
	s := n.Engine.pin(x.Shard)
	defer s.unpin(x.Shard)
	n.meet(s, x)
	if n.Engine.Guard.Sheds() {
		n.Engine.Guard.Shed(x.Shard)
		return nil, nil, n.turnAway(x, s.NotFound.Meter, &exchange.Error{Code: exchange.Overloaded, Source: exchange.FromGateway})
	}
	door := s.tcp(n.Door.Load())
	if door == nil { // the document has changed since the connection was accepted
		return nil, nil, n.turnAway(x, s.NotFound.Meter, &exchange.Error{Code: exchange.NameNotServed, Source: exchange.FromGateway})
	}
	way := door.Find(x.Request.Host)
	if way == nil {
		x.Route = door.Nobody.Info
		return nil, nil, n.turnAway(x, door.Nobody.Meter, &exchange.Error{Code: exchange.NameNotServed, Source: exchange.FromClient})
	}
	x.Route = way.Info
	c, release, err := way.Upstream.Dial(x)
	if err != nil {
		return nil, nil, n.turnAway(x, way.Meter, err)
	}
	x.Reply.Status, x.Reply.Source = connected, exchange.FromUpstream
	return c, func() {
		release()
		n.Engine.Record.End(x, way.Meter)
	}, nil
}

// connected is what stands in the record as the status of a connection that had both sides, so that one kind of numbers
// and filters serves HTTP and TCP.
const connected = 200

// turnAway records a connection that has no upstream's side.
func (n *Entrance) turnAway(x *exchange.Exchange, meter *record.RouteMeter, err error) error {
	if !errors.As(err, &x.Err) {
		x.Err = &exchange.Error{Code: exchange.Internal, Source: exchange.FromGateway, Cause: err}
	}
	x.Usage.Aborted = true
	n.Engine.Record.End(x, meter)
	return x.Err
}

// meet begins the record of a connection.
func (n *Entrance) meet(s *Snapshot, x *exchange.Exchange) {
	x.Client.IP = x.Client.Peer.Addr()
	x.MakeSlots(s.NotFound.Slots) // for expressions in the access log
	x.Route = s.NotFound.Info
	n.Engine.Record.Begin(x)
}

// RefuseConnection records a connection that came to nothing before it was known where it goes; x.Err says why.
func (n *Entrance) RefuseConnection(x *exchange.Exchange) {
	s := n.Engine.pin(x.Shard)
	defer s.unpin(x.Shard)
	n.meet(s, x)
	meter := s.NotFound.Meter
	if door := s.tcp(n.Door.Load()); door != nil {
		x.Route, meter = door.Nobody.Info, door.Nobody.Meter
	}
	x.Usage.Aborted = true
	n.Engine.Record.End(x, meter)
}

// tcp returns where the connections of a door go by this snapshot: the door may be that of the one before still, and have
// another name now. nil: it carries HTTP, or is not there any more.
func (s *Snapshot) tcp(door *Door) *TCP {
	if d := s.Doors[door.Name]; d == door {
		return d.TCP
	}
	for _, d := range s.Doors {
		if d.Config.Address == door.Config.Address {
			return d.TCP
		}
	}
	return nil
}

// Stream is an Entrance as the handler of connections that carry no HTTP.
type Stream struct{ *Entrance }

// Refuse implements tcp.Handler.
func (s Stream) Refuse(x *exchange.Exchange) { s.RefuseConnection(x) }

var _ tcp.Handler = Stream{}
