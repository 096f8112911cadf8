package jwks

import (
	"hash/maphash"
	"net/netip"
	"time"
)

const (
	// maxLookups and lookupEvery bound how often tokens with unknown keys make the provider be asked: so many at once, then
	// one in each period. They stop a flood of invented key ids from becoming a flood of fetches. The flood cannot keep a
	// new key out either: any fetch that it causes brings that key as well, so a new key waits one period at most.
	maxLookups  = 8
	lookupEvery = 5 * time.Second
	// clientEvery is how often one client may cause a fetch, so that few clients cannot use up what all share.
	clientEvery = time.Minute
	// clientCells is how many groups clients are told apart in.
	clientCells = 1024
)

// budget counts fetches for unknown keys. Whoever uses it holds a lock.
type budget struct {
	seed    maphash.Seed
	seeded  bool
	spent   time.Duration // of the shared allowance, in time that has to pass
	last    time.Time
	clients [clientCells]int64 // nanoseconds since 1970 when a client of the group last caused a fetch; 0: never
}

// take reports whether this client may cause a fetch now.
func (b *budget) take(client netip.Addr, now time.Time) bool {
	cell := &b.clients[b.cell(client)]
	if since := now.UnixNano() - *cell; *cell != 0 && since >= 0 && since < int64(clientEvery) {
		return false
	}
	b.spent = max(0, b.spent-max(0, now.Sub(b.last)))
	b.last = now
	if b.spent+lookupEvery > maxLookups*lookupEvery {
		return false
	}
	b.spent += lookupEvery
	*cell = now.UnixNano()
	return true
}

// cell is the client's group. Nobody knows who is in which.
func (b *budget) cell(client netip.Addr) uint64 {
	if !b.seeded {
		b.seed, b.seeded = maphash.MakeSeed(), true
	}
	return maphash.Comparable(b.seed, network(client)) % clientCells
}

// network is whom a client's address is counted for: the address of IPv4, the network of 64 bits of IPv6.
func network(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		p, _ := ip.Prefix(64) // 64 bits fit in IPv6
		return p.Addr()
	}
	return ip
}
