package counter

import (
	"net/netip"
	"sync/atomic"
)

// rememberedNetworks bounds the keys of client networks that are kept so that the next request from there allocates
// nothing, whoever asks. A power of two.
const rememberedNetworks = 1024

// subscriberBits is how much of an IPv6 address tells subscribers apart: each has at least 64 bits to choose from
// (RFC 6177), so counting single addresses would count nothing.
const subscriberBits = 64

// Networks makes keys of client addresses: an IPv4 address, or the /64 of an IPv6 address. The zero value is ready. It is
// safe for concurrent use.
type Networks struct {
	places [rememberedNetworks]atomic.Pointer[network]
}

type network struct {
	ip   netip.Addr
	text string
}

// Network returns what stands for a client's address where clients are counted: an IPv4 address itself, also when it came
// mapped into IPv6, and the first address of the /64 of an IPv6 address. An invalid address stays invalid.
func Network(ip netip.Addr) netip.Addr {
	ip = ip.Unmap()
	if !ip.Is6() {
		return ip
	}
	prefix, err := ip.WithZone("").Prefix(subscriberBits)
	if err != nil { // only for a length out of range
		return ip
	}
	return prefix.Addr()
}

// Key returns the key of a client's address. All invalid addresses share the key "".
func (n *Networks) Key(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	ip = Network(ip)
	place := &n.places[mix(ip)%rememberedNetworks]
	if known := place.Load(); known != nil && known.ip == ip {
		return known.text
	}
	fresh := &network{ip, ip.String()}
	place.Store(fresh)
	return fresh.text
}

// mix hashes an address (FNV-1a). Who collides on purpose wins one allocation.
func mix(ip netip.Addr) uint32 {
	h := uint32(2166136261)
	for _, b := range ip.As16() {
		h = (h ^ uint32(b)) * 16777619
	}
	return h ^ h>>16
}
