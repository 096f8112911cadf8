package proxyheader

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
)

// Values of section 2.2.
const (
	version2     = 0x2
	commandLocal = 0x0
	commandProxy = 0x1

	familyUnspec = 0x0
	familyInet   = 0x1
	familyInet6  = 0x2
	familyUnix   = 0x3

	transportUnspec = 0x0
	transportStream = 0x1

	tlvALPN      = 0x01
	tlvAuthority = 0x02
	tlvCRC32C    = 0x03
	tlvUniqueID  = 0x05
	tlvHead      = 3 // type and length

	unixPath = 108
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parseV2 reads a header of version 2.
func parseV2(b []byte) (Header, int, error) {
	if len(b) > len(v2Signature) && b[len(v2Signature)]>>4 != version2 {
		return Header{}, 0, fault(Unsupported, fmt.Sprintf("version %d", b[len(v2Signature)]>>4))
	}
	if len(b) < v2Fixed {
		return Header{}, 0, nil
	}
	n := v2Fixed + int(binary.BigEndian.Uint16(b[v2Fixed-2:]))
	switch {
	case n > MaxHeader:
		return Header{}, 0, fault(TooLong, fmt.Sprintf("%d bytes; at most %d", n, MaxHeader))
	case len(b) < n:
		return Header{}, 0, nil
	}
	h := Header{Version: 2}
	var err error
	switch command := b[len(v2Signature)] & 0x0f; command {
	case commandLocal: // whatever follows is for nobody, its TLVs too
		h.Own = true
	case commandProxy:
		err = h.readV2(b[:n])
	default:
		err = fault(Unsupported, fmt.Sprintf("command %d", command))
	}
	if err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// readV2 reads addresses and TLVs of a whole header.
func (h *Header) readV2(b []byte) error {
	kind, rest := b[v2Fixed-3], b[v2Fixed:]
	family, transport := kind>>4, kind&0x0f
	if transport != transportStream && (transport != transportUnspec || family != familyUnspec) {
		return fault(Unsupported, fmt.Sprintf("transport %d of family %d; only streams come here", transport, family))
	}
	length := 0
	switch family {
	case familyUnspec:
		h.Own = true
	case familyInet:
		length = 2 * (4 + 2)
	case familyInet6:
		length = 2 * (16 + 2)
	case familyUnix:
		length, h.Own = 2*unixPath, true
	default:
		return fault(Unsupported, fmt.Sprintf("family %d", family))
	}
	if len(rest) < length {
		return fault(Malformed, "it is shorter than its addresses")
	}
	if !h.Own {
		size := length/2 - 2
		h.Source = addressV2(rest[:size], rest[2*size:])
		h.Destination = addressV2(rest[size:2*size], rest[2*size+2:])
	}
	return h.readTLVs(b, len(b)-len(rest)+length)
}

func addressV2(address, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(address) // it has one of the two lengths
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

// readTLVs reads what follows the addresses, from b[at] on. Unknown types are passed over, as section 2.2 asks.
func (h *Header) readTLVs(b []byte, at int) error {
	for at < len(b) {
		if len(b)-at < tlvHead {
			return fault(Malformed, "a TLV is cut short")
		}
		kind, length := b[at], int(binary.BigEndian.Uint16(b[at+1:]))
		at += tlvHead
		if length > len(b)-at {
			return fault(Malformed, "a TLV is longer than the header")
		}
		value := b[at : at+length]
		switch kind {
		case tlvALPN:
			h.ALPN = string(value)
		case tlvAuthority:
			h.Authority = string(value)
		case tlvUniqueID:
			if length > maxUniqueID {
				return fault(Malformed, "the unique id is longer than 128 bytes")
			}
			h.UniqueID = string(value)
		case tlvCRC32C:
			if length != 4 || checksum(b, at) != binary.BigEndian.Uint32(value) {
				return fault(Checksum, "the CRC32C does not fit")
			}
		}
		at += length
	}
	return nil
}

// checksum is the CRC32C of the header with zeros in the place of its checksum, which is at b[at].
func checksum(b []byte, at int) uint32 {
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	return crc32.Update(sum, castagnoli, b[at+4:])
}
