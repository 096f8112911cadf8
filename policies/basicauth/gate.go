package basicauth

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"sync"
)

const (
	// maxWaiting stops a flood of wrong passwords from piling up: more wait for nobody's good.
	maxWaiting = 64
	// maxPerClient stops one client from taking all the places: password checks of one address, or of one IPv6 network
	// of 64 bits (what one customer commonly has), that wait or run at one time.
	maxPerClient = 4
)

var (
	errBusy       = errors.New("the queue of passwords to be checked is full")
	errClientBusy = errors.New("the client has too many passwords being checked")
)

// gate bounds the password checks that run at one time to half of the processors.
type gate struct {
	room chan struct{}

	mu      sync.Mutex
	inside  int                // waiting or checking
	clients map[netip.Addr]int // the same, by client; bounded by inside
}

func newGate() *gate {
	return &gate{room: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), clients: map[netip.Addr]int{}}
}

// enter waits for room. Whoever was let in must leave.
func (g *gate) enter(ctx context.Context, client netip.Addr) error {
	client = network(client)
	if err := g.queue(client); err != nil {
		return err
	}
	select {
	case g.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		g.unqueue(client)
		return context.Cause(ctx)
	}
}

// leave makes room for the next.
func (g *gate) leave(client netip.Addr) {
	<-g.room
	g.unqueue(network(client))
}

func (g *gate) queue(client netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.clients[client] >= maxPerClient:
		return errClientBusy
	case g.inside >= maxWaiting+cap(g.room):
		return errBusy
	}
	g.inside++
	g.clients[client]++
	return nil
}

func (g *gate) unqueue(client netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.clients[client]--; g.clients[client] == 0 {
		delete(g.clients, client)
	}
}

// network is whom a client's address is counted for.
func network(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		p, _ := ip.Prefix(64) // 64 bits fit in IPv6
		return p.Addr()
	}
	return ip
}
