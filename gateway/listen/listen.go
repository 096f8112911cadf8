// Package listen is the doors: sockets that are opened, shared out by limits, kept over reloads and closed.
package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// Server carries connections. done is called when one has ended.
type Server interface {
	Serve(c *sock.Conn, client exchange.Client, done func())
}

const (
	// acceptPause is how long accepting waits when the machine has no file descriptors or memory left; the connections
	// that are open go on, and those that end make room.
	acceptPause = 50 * time.Millisecond
	// reportPause is the least time between two lines in the log about pauses, of which there may be twenty in a second.
	reportPause = 10 * time.Second
	// maxClients bounds the table of client addresses that connections are counted by: it never holds more addresses
	// than there are connections, and this many only under attack.
	maxClients = 1 << 20
)

// busy is what a client address over its limit is told before its connection is closed.
var busy = func() []byte {
	const body = `{"type":"about:blank","title":"Too many connections are open; try again later.","status":503,"code":"too_many_connections"}`
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n"+
		"Retry-After: 1\r\nConnection: close\r\n\r\n%s", len(body), body)
}()

// Rooms is the places for connections that all doors share.
type Rooms interface {
	// Full reports whether nobody may enter now.
	Full() bool
	// Enter takes a place if there is one; Leave gives it back.
	Enter() bool
	Leave()
	// Changed returns a channel that is closed when there may be a place again.
	Changed() <-chan struct{}
}

// manyRooms have always a place.
type manyRooms struct{}

func (manyRooms) Full() bool               { return false }
func (manyRooms) Enter() bool              { return true }
func (manyRooms) Leave()                   {}
func (manyRooms) Changed() <-chan struct{} { return nil }

// Limits bound the connections of one listener; 0: no limit.
type Limits struct{ Connections, PerClient int }

// Listener is one door.
type Listener struct {
	address  string
	socket   *net.TCPListener
	sweeper  *sock.Sweeper
	log      *slog.Logger
	metrics  *metric.Registry
	rooms    Rooms
	limits   atomic.Pointer[Limits]
	title    atomic.Pointer[title]
	greeting atomic.Pointer[Greeting]

	open    atomic.Int64
	greets  sync.WaitGroup // connections that are being greeted
	room    chan struct{}  // told when a connection has ended
	mu      sync.Mutex
	clients map[netip.Addr]int
	running bool // there is a Run, which closes the socket
	stopped atomic.Bool
}

// title is what the document calls the door, and what is counted under that name.
type title struct {
	name                      string
	accepted, refused, paused *metric.Counter
}

// Env is what a door needs besides its part of the document.
type Env struct {
	Sweeper *sock.Sweeper
	Log     *slog.Logger
	Metrics *metric.Registry
	Rooms   Rooms // nil: as many as the doors allow
}

// Open opens the door at the address. Connections wait in the kernel until Run; Configure must come before.
func Open(name, address string, env Env) (*Listener, error) {
	s, err := net.Listen("tcp", address)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listeners.%s: %s is in use by another program; stop that or choose another address", name, address)
		}
		return nil, fmt.Errorf("listeners.%s: %w", name, err)
	}
	tcp, ok := s.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listeners.%s: %s is not a TCP address", name, address), s.Close())
	}
	l := &Listener{
		address: address, socket: tcp, sweeper: env.Sweeper, log: env.Log, metrics: env.Metrics, rooms: env.Rooms,
		room: make(chan struct{}, 1), clients: map[netip.Addr]int{},
	}
	if l.rooms == nil {
		l.rooms = manyRooms{}
	}
	return l, nil
}

// Name returns what the document calls the door.
func (l *Listener) Name() string { return l.title.Load().name }

// Address returns where the door is, as the document says it.
func (l *Listener) Address() string { return l.address }

// Bound returns where the door is, with the port that the system chose for port 0.
func (l *Listener) Bound() string { return l.socket.Addr().String() }

// OpenConnections returns how many connections are open now.
func (l *Listener) OpenConnections() int64 { return l.open.Load() }

// Configure changes the name, the limits and what new connections go through; open connections stay.
func (l *Listener) Configure(name string, limits Limits, g *Greeting) {
	if old := l.title.Load(); old == nil || old.name != name {
		label := metric.Label{Name: "listener", Value: name}
		l.title.Store(&title{
			name:     name,
			accepted: l.metrics.Counter("headgate_connections_accepted_total", "Connections accepted.", label),
			refused:  l.metrics.Counter("headgate_connections_refused_total", "Connections refused because their client had too many.", label),
			paused:   l.metrics.Counter("headgate_accept_pauses_total", "Times that accepting paused for want of descriptors or room.", label),
		})
	}
	l.limits.Store(&limits)
	l.greeting.Store(g)
	l.wake()
}

func (l *Listener) wake() {
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// Run accepts connections until the door is closed.
func (l *Listener) Run(ctx context.Context) error {
	if !l.begin() {
		return nil
	}
	defer l.end(ctx)
	var silence <-chan time.Time
	for {
		if !l.awaitRoom(ctx) {
			return nil
		}
		c, err := l.socket.Accept()
		switch {
		case err == nil && l.enter(ctx):
			l.take(c)
		case err == nil: // the door was closed before there was a place
			_ = c.Close() // nothing was promised
			return nil
		case l.stopped.Load() || ctx.Err() != nil:
			return nil
		case exhausted(err):
			l.title.Load().paused.Inc(0)
			select {
			case <-silence:
				silence = nil
			default:
			}
			if silence == nil {
				silence = time.After(reportPause)
				l.log.Warn("accepting pauses", "listener", l.Name(), "error", err)
			}
			if !pause(ctx) {
				return nil
			}
		case temporary(err): // the client has gone while it was waiting
		default:
			return fmt.Errorf("listeners.%s: %w", l.Name(), err)
		}
	}
}

// exhausted reports whether the system has run out of what a connection needs.
func exhausted(err error) bool {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func temporary(err error) bool {
	return errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EPROTO)
}

func pause(ctx context.Context) bool {
	t := time.NewTimer(acceptPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// awaitRoom waits while the door, or all doors together, have as many connections as they may. New ones wait in the kernel's
// queue meanwhile.
func (l *Listener) awaitRoom(ctx context.Context) bool {
	for counted := false; ; counted = true {
		if l.hasRoom() {
			return true
		}
		if l.stopped.Load() {
			return false
		}
		changed := l.rooms.Changed()
		if l.hasRoom() { // a place was given back before we asked to be told
			return true
		}
		if !counted {
			l.title.Load().paused.Inc(0)
		}
		select {
		case <-ctx.Done():
			return false
		case <-l.room:
		case <-changed:
		}
	}
}

func (l *Listener) hasRoom() bool {
	limit := l.limits.Load().Connections
	return (limit == 0 || l.open.Load() < int64(limit)) && !l.rooms.Full()
}

// enter takes a place for a connection that has been accepted. Another door may have taken the last one meanwhile.
func (l *Listener) enter(ctx context.Context) bool {
	for !l.rooms.Enter() {
		if !l.awaitRoom(ctx) {
			return false
		}
	}
	return true
}

// visit is one connection of a door, from when it is accepted until it ends.
type visit struct {
	door      *Listener
	client    netip.Addr // that it is counted by; invalid: by none
	uncounted bool       // until it is known whose it is
}

// take hands a connection to the server if its client may have one more.
func (l *Listener) take(nc net.Conn) {
	l.title.Load().accepted.Inc(0)
	g, client := l.greeting.Load(), clientOf(nc)
	v := &visit{door: l, uncounted: g.Balancer != nil && g.Balancer(client.Peer.Addr())}
	if !v.uncounted && !v.count(client.Peer.Addr()) {
		l.refuse(nc, g)
		_ = nc.Close() // nothing was promised
		l.rooms.Leave()
		return
	}
	l.open.Add(1)
	c, err := sock.New(nc, l.sweeper, nil)
	if err != nil {
		l.log.Error("a connection could not be taken over", "listener", l.Name(), "error", err)
		_ = nc.Close() // the connection is of no use; its error was the one before
		v.end()
		return
	}
	v.greet(c, client, g)
}

// refuse tells a client that it has too many connections.
func (l *Listener) refuse(c io.Writer, g *Greeting) {
	l.title.Load().refused.Inc(0)
	if g.TLS == nil && !g.Wordless {
		_, _ = c.Write(busy) // it fits into the empty socket, so it does not wait; the client may have gone
	}
}

// end gives the place of a connection back.
func (v *visit) end() {
	v.door.leave(v.client)
	v.door.open.Add(-1)
	v.door.rooms.Leave()
	v.door.wake()
}

// clientOf returns who is at the other end.
func clientOf(nc net.Conn) (client exchange.Client) {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		client.Peer = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		client.Addr = client.Peer.Addr().String()
	}
	if a, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		client.Local = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return client
}

// count counts the connection for a client's address, when there is a limit for that, or reports that it is one too many.
func (v *visit) count(address netip.Addr) bool {
	l := v.door
	limit := l.limits.Load().PerClient
	if limit == 0 || !address.IsValid() {
		return true
	}
	client := network(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clients[client] >= limit || len(l.clients) >= maxClients {
		return false
	}
	l.clients[client]++
	v.client = client
	return true
}

// network is what one client is counted by: its address, or the /64 that an IPv6 client has to itself.
func network(a netip.Addr) netip.Addr {
	if p, err := a.Prefix(64); err == nil && a.Is6() {
		return p.Addr()
	}
	return a
}

func (l *Listener) leave(client netip.Addr) {
	if !client.IsValid() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clients[client]--; l.clients[client] <= 0 {
		delete(l.clients, client)
	}
}
