package proxyheader

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
)

// parseV1 reads the line of version 1, section 2.1: exactly one space between the words, CRLF at the end.
func parseV1(b []byte) (Header, int, error) {
	end := bytes.IndexByte(b[:min(len(b), maxV1)], '\n')
	switch {
	case end < 0 && len(b) >= maxV1:
		return Header{}, 0, fault(TooLong, "no line end within 107 bytes")
	case end < 0:
		return Header{}, 0, nil
	case b[end-1] != '\r': // the prefix stands before it
		return Header{}, 0, fault(Malformed, "the line does not end in CRLF")
	}
	h := Header{Version: 1}
	words := strings.Split(string(b[len(v1Prefix):end-1]), " ")
	if words[0] == "UNKNOWN" { // whatever follows is ignored
		h.Own = true
		return h, end + 1, nil
	}
	if words[0] != "TCP4" && words[0] != "TCP6" {
		return Header{}, 0, fault(Malformed, "the protocol is not TCP4, TCP6 or UNKNOWN")
	}
	if len(words) != 5 {
		return Header{}, 0, fault(Malformed, "there are not two addresses and two ports")
	}
	var ok [2]bool
	h.Source, ok[0] = addressV1(words[0], words[1], words[3])
	h.Destination, ok[1] = addressV1(words[0], words[2], words[4])
	if !ok[0] || !ok[1] {
		return Header{}, 0, fault(Malformed, "an address or a port is not one of "+words[0])
	}
	return h, end + 1, nil
}

// addressV1 reads an address of the family and its port, neither with leading zeros.
func addressV1(family, address, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" || a.Is4() != (family == "TCP4") {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}
