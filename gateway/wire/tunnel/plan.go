package tunnel

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"headgate/gateway/exchange"
)

// WebSocket is the protocol's name in Upgrade (RFC 6455 section 4.1).
const WebSocket = "websocket"

// Version is the one version of the WebSocket protocol (RFC 6455 section 4.1).
const Version = "13"

// keyBytes is what a key's base64 must stand for (RFC 6455 section 4.2.1).
const keyBytes = 16

// CheckHandshake says what is wrong with a client's request to open a WebSocket, or nil. Over HTTP/2 and 3 there is no key
// (RFC 8441 section 5).
func CheckHandshake(r *exchange.Request) *exchange.Error {
	if r.Header.Joined("Sec-WebSocket-Version") != Version {
		return &exchange.Error{Code: exchange.WebSocketVersion, Source: exchange.FromClient}
	}
	if !strings.HasPrefix(r.Proto, "HTTP/1") {
		return nil
	}
	key, err := base64.StdEncoding.DecodeString(r.Header.Joined("Sec-WebSocket-Key"))
	if err != nil || len(key) != keyBytes {
		return &exchange.Error{Code: exchange.BadRequest, Source: exchange.FromClient,
			Detail: "Sec-WebSocket-Key is not the base64 of 16 bytes (RFC 6455 section 4.2.1)."}
	}
	return nil
}

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
// none. leave gives it back.
func (p *Plan) Enter(x *exchange.Exchange) (leave func(), full *exchange.Error) {
	consumer := ""
	if x.Consumer != nil {
		consumer = x.Consumer.Name
	}
	if code := p.Group.enter(consumer, p.Connections, p.PerConsumer); code != nil {
		source := exchange.FromGateway
		if code.Status == exchange.TooManyUpgradesOfConsumer.Status {
			source = exchange.FromClient
		}
		return nil, &exchange.Error{Code: *code, Source: source}
	}
	return func() { p.Group.leave(consumer) }, nil
}

// Carry implements exchange.Tunnel.
func (p *Plan) Carry(x *exchange.Exchange, client exchange.Stream) error {
	ended := make(chan error, 1)
	p.Start(x, client, func(err error) { ended <- err })
	return <-ended
}

// Start implements exchange.Starter.
func (p *Plan) Start(x *exchange.Exchange, client exchange.Stream, ended func(error)) {
	p.open(x, client).fly(func(r Result) { ended(p.close(x, r)) })
}

// open begins the tunnel of an exchange.
func (p *Plan) open(x *exchange.Exchange, client exchange.Stream) *tunnel {
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
	return t
}

// close says in the exchange what became of its tunnel.
func (p *Plan) close(x *exchange.Exchange, r Result) error {
	if x.Cancel != nil {
		x.Cancel.Guard(nil)
	}
	p.Group.ended[r.Ended].Add(1)
	x.Usage.RequestBytes += r.Sent
	x.Usage.ReplyBytes += r.Received
	x.Usage.Closed, x.Usage.CloseStatus = r.Ended.String(), r.Status
	switch r.Ended {
	case Cut:
		if r.Err != nil {
			return &exchange.Error{Code: exchange.Internal, Source: exchange.FromGateway, Cause: r.Err}
		}
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

var (
	_ exchange.Tunnel  = (*Plan)(nil)
	_ exchange.Starter = (*Plan)(nil)
)
