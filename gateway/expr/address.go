package expr

import (
	"net/netip"
	"sync/atomic"
)

// rememberedAddresses bounds the texts of client addresses that are kept, so that a limit keyed by client.ip does not
// allocate for each request, whoever asks. A power of two.
const rememberedAddresses = 1024

// addresses remembers the text of lately seen addresses. Each has one place, by its hash; whoever comes later takes it.
type addresses struct {
	places [rememberedAddresses]atomic.Pointer[address]
}

type address struct {
	ip   netip.Addr
	text string
}

func (a *addresses) text(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	place := &a.places[hash(ip)%rememberedAddresses]
	if known := place.Load(); known != nil && known.ip == ip {
		return known.text
	}
	fresh := &address{ip, ip.String()}
	place.Store(fresh)
	return fresh.text
}

// hash mixes the address (FNV-1a); a caller who collides on purpose wins an allocation.
func hash(ip netip.Addr) uint32 {
	h := uint32(2166136261)
	b := ip.As16()
	for _, c := range b[4:] {
		h = (h ^ uint32(c)) * 16777619
	}
	return h ^ h>>16
}
