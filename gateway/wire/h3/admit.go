package h3

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// visit is a connection that was let in, from its first packet to its end.
type visit struct {
	server *Server
	client netip.Addr             // that it is counted for
	name   atomic.Pointer[string] // asked for by SNI
	shook  atomic.Bool
}

type visitKey struct{}

// errFull refuses a connection; the client learns CONNECTION_REFUSED.
var errFull = errors.New("h3: no room for another connection")

// admit is called with the first packet of a connection, before anything is done for it.
func (s *Server) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	t := s.title.Load()
	addr, _ := info.RemoteAddr.(*net.UDPAddr)
	v := &visit{server: s, client: network(peerOf(addr).Addr())}
	if !s.enter(v) {
		t.refused.Inc(0)
		return nil, errFull
	}
	t.accepted.Inc(0)
	ctx = context.WithValue(ctx, visitKey{}, v)
	context.AfterFunc(ctx, v.leave)
	return ctx, nil
}

// network is what one client is counted by: its address, or the /64 that an IPv6 client has to itself.
func network(a netip.Addr) netip.Addr {
	if p, err := a.Prefix(64); err == nil && a.Is6() {
		return p.Addr()
	}
	return a
}

// enter counts a connection if there is room.
func (s *Server) enter(v *visit) bool {
	l := s.limits()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.clients[v.client]
	switch {
	case l.Connections > 0 && s.inside >= l.Connections,
		l.Handshakes > 0 && s.shaking >= l.Handshakes,
		l.PerClient > 0 && n >= l.PerClient,
		n == 0 && len(s.clients) >= maxClients,
		s.Rooms != nil && !s.Rooms.Enter():
		return false
	}
	s.clients[v.client] = n + 1
	s.inside++
	s.shaking++
	return true
}

// unsure reports whether a client must show that packets reach its address before anything is kept for it: when many
// shake hands, or the address has already many connections. Both could be forged.
func (s *Server) unsure(a net.Addr) bool {
	l := s.limits()
	addr, _ := a.(*net.UDPAddr)
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.Handshakes > 0 && s.shaking >= (l.Handshakes+1)/retryShare ||
		l.PerClient > 0 && s.clients[network(peerOf(addr).Addr())] >= l.PerClient/retryShare
}

// shaken notes that the handshake is over.
func (v *visit) shaken(well bool) {
	if v.shook.Swap(true) {
		return
	}
	if !well {
		v.server.title.Load().failed.Inc(0)
	}
	v.server.mu.Lock()
	defer v.server.mu.Unlock()
	v.server.shaking--
}

// leave is called when the connection has ended.
func (v *visit) leave() {
	v.shaken(false)
	s := v.server
	if s.Rooms != nil {
		s.Rooms.Leave()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside--
	if s.clients[v.client]--; s.clients[v.client] <= 0 {
		delete(s.clients, v.client)
	}
}
