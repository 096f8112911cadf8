package pool

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// proxied reports whether targets are told the client's address in front of everything else.
func (s *Settings) proxied() bool { return s.Proxy == "v1" || s.Proxy == "v2" }

// appendProxyHeader appends the header of the PROXY protocol (haproxy.org/download/3.0/doc/proxy-protocol.txt): the client
// as the gateway knows it, behind trusted proxies if there are any, and the address that its connection came to. Without a
// client, as for a probe, it says that the connection is our own (LOCAL, in v1 UNKNOWN).
func (s *Settings) appendProxyHeader(b []byte, client *exchange.Client, c *sock.Conn) []byte {
	source, local := addresses(client, c)
	if s.Proxy == "v1" {
		return appendProxyV1(b, source, local)
	}
	return appendProxyV2(b, source, local)
}

// addresses returns the client's address and the one that it came to, both of one family. The port is the connection's,
// where the client is at its other end, and else not known: 0.
func addresses(client *exchange.Client, c *sock.Conn) (source, local netip.AddrPort) {
	if client == nil || !client.Peer.IsValid() {
		return
	}
	source, local = client.Peer, client.Local
	if client.IP.IsValid() && client.IP != client.Peer.Addr() {
		source = netip.AddrPortFrom(client.IP, 0)
	}
	if !local.IsValid() { // the wire does not know: where the connection that carries this goes to
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			local = a.AddrPort()
		}
	}
	source, local = plain(source), plain(local)
	if source.Addr().Is4() != local.Addr().Is4() {
		source, local = mapped(source), mapped(local)
	}
	return source, local
}

// plain drops what the header has no place for: zones, and IPv4 inside IPv6.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// mapped is an address as an IPv6 one.
func mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

func appendProxyV1(b []byte, source, local netip.AddrPort) []byte {
	switch {
	case !source.IsValid():
		return append(b, "PROXY UNKNOWN\r\n"...)
	case source.Addr().Is4():
		b = append(b, "PROXY TCP4 "...)
	default:
		b = append(b, "PROXY TCP6 "...)
	}
	b = append(source.Addr().AppendTo(b), ' ')
	b = append(local.Addr().AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(source.Port()), 10), ' ')
	b = strconv.AppendUint(b, uint64(local.Port()), 10)
	return append(b, "\r\n"...)
}

// proxySignature begins every header of version 2.
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

func appendProxyV2(b []byte, source, local netip.AddrPort) []byte {
	b = append(b, proxySignature...)
	switch {
	case !source.IsValid():
		return append(b, 0x20, 0, 0, 0) // version 2, LOCAL
	case source.Addr().Is4():
		b = append(b, 0x21, 0x11, 0, 12) // PROXY, TCP over IPv4
	default:
		b = append(b, 0x21, 0x21, 0, 36) // PROXY, TCP over IPv6
	}
	b = append(b, source.Addr().AsSlice()...)
	b = append(b, local.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	return binary.BigEndian.AppendUint16(b, local.Port())
}
