package tunnel

import (
	"errors"
	"slices"
	"time"

	"headgate/gateway/exchange"
)

// WebSocket is the protocol's name in Upgrade (RFC 6455 section 4.1).
const WebSocket = "websocket"

// halfClosed is how long a WebSocket's other side has to close, once one has: it has no use for half a connection
// (RFC 6455 section 7.1.1), and one that has vanished would hold its place until it is idle.
const halfClosed = 10 * time.Second

// Plan is what one route does with requests to switch. It is immutable and serves all of them at once. It implements
// exchange.Tunnel.
type Plan struct {
	Registry    *Registry
	Group       *Group
	Protocols   []string // that may be switched to, in lower case
	Idle        time.Duration
	Lifetime    time.Duration
	Connections int // open at one time; 0: any number
	PerConsumer int // of one consumer; 0: any number
}

// Allows reports whether the route switches to the protocol. A nil plan allows none.
func (p *Plan) Allows(protocol string) bool {
	return p != nil && slices.Contains(p.Protocols, protocol)
}

// Enter takes one of the route's places for an exchange that is about to ask the upstream to switch, or says why there is
// none. Leave gives it back.
func (p *Plan) Enter(x *exchange.Exchange) *exchange.Error {
	if code := p.Group.enter(consumer(x), p.Connections, p.PerConsumer); code != nil {
		return &exchange.Error{Code: *code, Source: exchange.FromGateway}
	}
	return nil
}

// Leave gives a place back.
func (p *Plan) Leave(x *exchange.Exchange) { p.Group.leave(consumer(x)) }

func consumer(x *exchange.Exchange) string {
	if x.Consumer == nil {
		return ""
	}
	return x.Consumer.Name
}

// Carry implements exchange.Tunnel.
func (p *Plan) Carry(x *exchange.Exchange, client exchange.Stream) error {
	o := Options{Registry: p.Registry, Idle: p.Idle, Lifetime: p.Lifetime, WebSocket: x.Request.Upgrade == WebSocket}
	if o.WebSocket {
		o.HalfClosed = halfClosed
	}
	t := &tunnel{options: o}
	t.begin(client, x.Reply.Switched)
	if x.Cancel != nil && !x.Cancel.Guard(t) {
		t.Interrupt()
	}
	p.Group.total.Add(1)
	r := t.run()
	if x.Cancel != nil {
		x.Cancel.Guard(nil)
	}
	p.Group.ended[r.Ended].Add(1)
	x.Usage.RequestBytes += r.Sent
	x.Usage.ReplyBytes += r.Received
	x.Usage.Closed, x.Usage.CloseStatus = r.Ended.String(), r.Status
	switch r.Ended {
	case ClientFailed:
		return &exchange.Error{Code: exchange.ClientGone, Source: exchange.FromClient, Cause: r.Err}
	case UpstreamFailed:
		return &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream, Cause: r.Err}
	}
	return nil
}

// errNoTunnel is a reply that switches without anybody to carry it.
var errNoTunnel = errors.New("tunnel: the reply switches, and nothing carries it")

// Carry carries a switched connection for a wire, which has written the head of the reply, until it has ended: bytes
// between the client's stream and x.Reply.Switched as x.Reply.Tunnel says. It fills what x.Usage says of it. The error is
// an *exchange.Error that says whose side broke; the caller closes its own stream either way.
func Carry(x *exchange.Exchange, client exchange.Stream) error {
	if x.Reply.Tunnel == nil {
		return &exchange.Error{Code: exchange.Internal, Source: exchange.FromGateway, Cause: errNoTunnel}
	}
	return x.Reply.Tunnel.Carry(x, client)
}

var _ exchange.Tunnel = (*Plan)(nil)
