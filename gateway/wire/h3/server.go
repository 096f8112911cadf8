package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/quic-go/quic-go"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/crowd"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// Env is what a server is made with.
type Env struct {
	Handler exchange.Handler
	Sweeper *sock.Sweeper
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics *metric.Registry
	Rooms   Rooms // nil: as many as the settings allow
}

// Rooms is the places for connections that all doors share.
type Rooms interface {
	// Enter takes a place if there is one; Leave gives it back.
	Enter() bool
	Leave()
}

// Settings are what a document says. A server takes new ones while it runs; connections that are open keep their keys.
type Settings struct {
	Name   string // of the listener
	Limits Limits
	TLS    *tls.Config // certificates and clients' certificates; versions and ALPN are set here
	// Describe makes of a connection's state what exchanges see. nil: all but certificates.
	Describe func(tls.ConnectionState) *exchange.TLS
}

// Server is a UDP socket and the connections over it.
type Server struct {
	Env
	address   string
	socket    net.PacketConn
	transport *quic.Transport
	opening   sync.Mutex // guards listener; apart from mu, since ending a listener waits for those who count
	listener  *quic.EarlyListener

	settings atomic.Pointer[compiled]
	title    atomic.Pointer[title]
	draining atomic.Bool
	closing  atomic.Bool
	date     atomic.Pointer[date]
	shards   atomic.Uint32
	conns    crowd.Of[*conn]
	unbound  sync.Once

	mu      sync.Mutex
	inside  int // connections
	shaking int // handshakes
	clients map[netip.Addr]int
}

// compiled are settings made ready.
type compiled struct {
	Settings
	quic *quic.Config
	tls  *tls.Config
}

// title is what the document calls the listener, and what is counted under that name.
type title struct {
	name                              string
	accepted, refused, failed, broken *metric.Counter
}

// Open opens the socket at the address. Packets wait in the kernel until Run.
func Open(address string, env Env, settings Settings) (*Server, error) {
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listeners.%s: %s over UDP is in use by another program; stop that, choose another address or leave out h3",
				settings.Name, address)
		}
		return nil, fmt.Errorf("listeners.%s: %w", settings.Name, err)
	}
	s := &Server{Env: env, address: address, socket: socket, clients: map[netip.Addr]int{}}
	s.transport = &quic.Transport{Conn: socket, VerifySourceAddress: s.unsure, ConnContext: s.admit}
	s.Configure(settings)
	return s, nil
}

// Configure changes the name, the limits and the certificates; open connections stay.
func (s *Server) Configure(settings Settings) {
	if old := s.title.Load(); old == nil || old.name != settings.Name {
		label := metric.Label{Name: "listener", Value: settings.Name}
		s.title.Store(&title{
			name:     settings.Name,
			accepted: s.Metrics.Counter("headgate_connections_accepted_total", "Connections accepted.", label),
			refused:  s.Metrics.Counter("headgate_connections_refused_total", "Connections refused because their client had too many.", label),
			failed:   s.Metrics.Counter("headgate_h3_handshakes_failed_total", "Handshakes of QUIC that did not come to an end.", label),
			broken: s.Metrics.Counter("headgate_h3_violations_total",
				"Connections over HTTP/3 ended because the client broke the protocol or asked too much.", label),
		})
	}
	c := &compiled{Settings: settings, quic: quicConfig(&settings.Limits)}
	c.tls = prepare(settings.TLS, &settings.Limits)
	s.settings.Store(c)
}

func (s *Server) limits() *Limits { return &s.settings.Load().Limits }

// Name returns what the document calls the listener.
func (s *Server) Name() string { return s.title.Load().name }

// Address returns where the socket is, as the document says it.
func (s *Server) Address() string { return s.address }

// Bound returns where the socket is, with the port that the system chose for port 0.
func (s *Server) Bound() string { return s.socket.LocalAddr().String() }

// OpenConnections returns how many connections are open now, those that still shake hands among them.
func (s *Server) OpenConnections() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.inside)
}

// Run takes connections until the server is closed.
func (s *Server) Run(ctx context.Context) error {
	l, err := s.listen()
	if err != nil || l == nil {
		return err
	}
	for {
		q, err := l.Accept(ctx)
		if err != nil {
			if s.closing.Load() || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("listeners.%s: %w", s.Name(), err)
		}
		s.serve(q)
	}
}

// listen begins to answer packets; nil when the server was closed before.
func (s *Server) listen() (*quic.EarlyListener, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.closing.Load() {
		return nil, nil
	}
	config := quicConfig(s.limits())
	config.GetConfigForClient = func(*quic.ClientInfo) (*quic.Config, error) { return s.settings.Load().quic, nil }
	l, err := s.transport.ListenEarly(&tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: s.certificates}, config)
	if err != nil {
		return nil, fmt.Errorf("listeners.%s: %w", s.Name(), err)
	}
	s.listener = l
	return l, nil
}

func (s *Server) serve(q *quic.Conn) {
	v, _ := q.Context().Value(visitKey{}).(*visit)
	c := &conn{server: s, quic: q, shard: s.shards.Add(1), visit: v}
	s.conns.Go(c, c.serve)
}

// describe makes of a connection's state what exchanges see.
func (s *Server) describe(state tls.ConnectionState, early bool) *exchange.TLS {
	f := s.settings.Load().Describe
	if f == nil {
		return &exchange.TLS{
			Version: tls.VersionName(state.Version), Cipher: tls.CipherSuiteName(state.CipherSuite), ServerName: state.ServerName,
			ALPN: state.NegotiatedProtocol, Resumed: state.DidResume, Early: early,
		}
	}
	t := *f(state)
	t.Early = early
	return &t
}

// violation counts a client that broke the protocol or asked too much.
func (s *Server) violation(v *violation) {
	s.title.Load().broken.Inc(0)
	s.Log.Debug("a connection over HTTP/3 is ended", "listener", s.Name(), "code", v.code.String(), "reason", v.reason)
}

// Announce asks clients for no more requests on the connections that they have.
func (s *Server) Announce() {
	s.draining.Store(true)
	for c := range s.conns.All() {
		c.announceServed()
	}
}

// Close lets nobody in any more; connections that are open go on.
func (s *Server) Close() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.closing.Swap(true) || s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// Drain makes every connection end after what it carries. Requests that are on their way are still taken for a moment.
func (s *Server) Drain() {
	s.draining.Store(true)
	for c := range s.conns.All() {
		c.drain()
	}
}

// Wait returns when every connection of a closed server has ended, and closes its socket; those that have not when the
// context is done are cut off.
func (s *Server) Wait(ctx context.Context) (cut int) {
	cut = s.conns.Wait(ctx, (*conn).cut)
	s.unbound.Do(func() {
		if err := errors.Join(s.transport.Close(), s.socket.Close()); err != nil {
			s.Log.Warn("a socket did not close cleanly", "listener", s.Name(), "error", err)
		}
	})
	return cut
}
