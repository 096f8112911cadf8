package lab

import (
	"encoding/binary"
	"net/netip"
)

// The parts of IPv4 (RFC 791), IPv6 (RFC 8200) and ICMP (RFC 792) that a router needs.
const (
	maxPacket   = 65536
	head4       = 20
	head6       = 40
	headICMP    = 8
	protoICMP   = 1
	quoted      = 8 // bytes of what a packet carries that are sent back with a complaint about it
	typeReach   = 3 // destination unreachable
	codeHost    = 1 // the host
	timeToLive  = 64
	versionIPv4 = 4
	versionIPv6 = 6
)

// destination returns where a packet goes. false: it is none that is carried here.
func destination(packet []byte) (netip.Addr, bool) {
	switch {
	case len(packet) >= head4 && packet[0]>>4 == versionIPv4:
		return netip.AddrFrom4([4]byte(packet[16:20])), true
	case len(packet) >= head6 && packet[0]>>4 == versionIPv6:
		return netip.AddrFrom16([16]byte(packet[24:40])), packet[24] != 0xff // nobody here listens to groups
	}
	return netip.Addr{}, false
}

// unreachable makes the router's answer to an IPv4 packet whose host cannot be reached; nil when none is due, since nobody
// complains about a complaint (RFC 1122 section 3.2.2).
func unreachable(packet []byte) []byte {
	if len(packet) < head4 || packet[0]>>4 != versionIPv4 || packet[9] == protoICMP {
		return nil
	}
	quote := packet[:min(len(packet), int(packet[0]&15)*4+quoted)]
	b := make([]byte, head4+headICMP, head4+headICMP+len(quote))
	b = append(b, quote...)
	b[0] = versionIPv4<<4 | head4/4
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[8], b[9] = timeToLive, protoICMP
	copy(b[12:16], router4[:])
	copy(b[16:20], packet[12:16])
	binary.BigEndian.PutUint16(b[10:], checksum(b[:head4]))
	b[head4], b[head4+1] = typeReach, codeHost
	binary.BigEndian.PutUint16(b[head4+2:], checksum(b[head4:]))
	return b
}

// checksum is that of RFC 1071, of bytes whose own field for it is zero.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
