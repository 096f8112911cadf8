package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"

	proxyproto "github.com/pires/go-proxyproto"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// v2 makes a header of version 2: the byte of version and command, that of family and transport, and what follows.
func v2(versionCommand, familyTransport byte, rest string) string {
	b := append([]byte(v2Signature), versionCommand, familyTransport)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rest)))
	return string(b) + rest
}

func tlv(kind byte, value string) string {
	b := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))
	return string(b) + value
}

// signed makes a header whose last TLV is its checksum, changed by change.
func signed(change uint32) string {
	b := []byte(v2(0x21, 0x11, inet+tlv(tlvAuthority, "a.example")+tlv(tlvCRC32C, "\x00\x00\x00\x00")))
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))+change)
	return string(b)
}

const (
	inet  = "\xc0\x00\x02\x01\x0a\x00\x00\x01\x12\x67\x01\xbb" // 192.0.2.1:4711 to 10.0.0.1:443
	inet6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x12\x67\x01\xbb"
)

func TestAHeaderNamesTheClientAndWhereItCameTo(t *testing.T) {
	for _, c := range []struct {
		name, header, source, destination string
		own                               bool
	}{
		{"v1, IPv4", "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n", "192.0.2.1:4711", "10.0.0.1:443", false},
		{"v1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", "[2001:db8::1]:4711", "[2001:db8::2]:443", false},
		{"v1, IPv4 inside IPv6", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:10.0.0.1 4711 443\r\n", "192.0.2.1:4711", "10.0.0.1:443", false},
		{"v1, least and most", "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0:0", "255.255.255.255:65535", false},
		{"v1, unknown", "PROXY UNKNOWN\r\n", "", "", true},
		{"v1, unknown with words", "PROXY UNKNOWN ffff::1 whatever\r\n", "", "", true},
		{"v2, IPv4", v2(0x21, 0x11, inet), "192.0.2.1:4711", "10.0.0.1:443", false},
		{"v2, IPv6", v2(0x21, 0x21, inet6), "[2001:db8::1]:4711", "[2001:db8::2]:443", false},
		{"v2, local", v2(0x20, 0x00, ""), "", "", true},
		{"v2, local with rubbish", v2(0x20, 0xff, "rubbish"), "", "", true},
		{"v2, unspecified", v2(0x21, 0x00, ""), "", "", true},
		{"v2, unix", v2(0x21, 0x31, strings.Repeat("/a\x00\x00", 54)), "", "", true},
		{"v2, unknown TLVs", v2(0x21, 0x11, inet+tlv(0x04, "\x00\x00")+tlv(0xea, "vpce")), "192.0.2.1:4711", "10.0.0.1:443", false},
		{"v2, checksum", signed(0), "192.0.2.1:4711", "10.0.0.1:443", false},
	} {
		h, n, err := Parse([]byte(c.header + "after"))
		if err != nil || n != len(c.header) || h.Own != c.own {
			t.Errorf("%s: %+v, %d of %d bytes, %v", c.name, h, n, len(c.header), err)
			continue
		}
		if want := (netip.AddrPort{}); c.source == "" && (h.Source != want || h.Destination != want) {
			t.Errorf("%s: names %+v", c.name, h)
		}
		if c.source != "" && (h.Source != netip.MustParseAddrPort(c.source) || h.Destination != netip.MustParseAddrPort(c.destination)) {
			t.Errorf("%s: %s to %s", c.name, h.Source, h.Destination)
		}
		for i := range len(c.header) {
			if _, n, err := Parse([]byte(c.header[:i])); n != 0 || err != nil {
				t.Errorf("%s: of its first %d bytes: %d, %v", c.name, i, n, err)
				break
			}
		}
	}
}

func TestWhatTheTLVsTellIsKept(t *testing.T) {
	h, _, err := Parse([]byte(v2(0x21, 0x11, inet+tlv(tlvALPN, "h2")+tlv(tlvAuthority, "a.example")+tlv(tlvUniqueID, "\x01\x02"))))
	if err != nil || h.ALPN != "h2" || h.Authority != "a.example" || h.UniqueID != "\x01\x02" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestWhatIsNoHeaderIsRefusedByItsCause(t *testing.T) {
	long := strings.Repeat("x", maxV1)
	for _, c := range []struct {
		name, header string
		cause        Cause
	}{
		{"a request", "GET / HTTP/1.1\r\n", Missing},
		{"a TLS record", "\x16\x03\x01", Missing},
		{"empty lines", "\r\n\r\nGET", Missing},
		{"lower case", "proxy TCP4", Missing},
		{"v1 without a space", "PROXYTCP4", Missing},
		{"v1 without an end", "PROXY UNKNOWN " + long, TooLong},
		{"v1 with an end too late", "PROXY UNKNOWN " + long + "\r\n", TooLong},
		{"v1 ended by LF", "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\n", Malformed},
		{"v1 of nothing", "PROXY \r\n", Malformed},
		{"v1, UDP", "PROXY UDP4 192.0.2.1 10.0.0.1 4711 443\r\n", Malformed},
		{"v1, two spaces", "PROXY TCP4  192.0.2.1 10.0.0.1 4711 443\r\n", Malformed},
		{"v1, a space at the end", "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443 \r\n", Malformed},
		{"v1, no port", "PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n", Malformed},
		{"v1, port too high", "PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n", Malformed},
		{"v1, port with a sign", "PROXY TCP4 192.0.2.1 10.0.0.1 +4711 443\r\n", Malformed},
		{"v1, port with a zero before it", "PROXY TCP4 192.0.2.1 10.0.0.1 04711 443\r\n", Malformed},
		{"v1, octet with a zero before it", "PROXY TCP4 192.0.02.1 10.0.0.1 4711 443\r\n", Malformed},
		{"v1, IPv6 as IPv4", "PROXY TCP4 ::1 10.0.0.1 4711 443\r\n", Malformed},
		{"v1, IPv4 as IPv6", "PROXY TCP6 192.0.2.1 ::1 4711 443\r\n", Malformed},
		{"v1, a zone", "PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n", Malformed},
		{"v1, a name", "PROXY TCP4 localhost 10.0.0.1 4711 443\r\n", Malformed},
		{"v2, version 1", v2(0x11, 0x11, inet), Unsupported},
		{"v2, version 3", v2(0x31, 0x11, inet), Unsupported},
		{"v2, command 2", v2(0x22, 0x11, inet), Unsupported},
		{"v2, datagrams", v2(0x21, 0x12, inet), Unsupported},
		{"v2, no transport", v2(0x21, 0x10, inet), Unsupported},
		{"v2, family 4", v2(0x21, 0x41, inet), Unsupported},
		{"v2, short addresses", v2(0x21, 0x11, inet[:11]), Malformed},
		{"v2, IPv4 as IPv6", v2(0x21, 0x21, inet), Malformed},
		{"v2, half a TLV", v2(0x21, 0x11, inet+"\x02\x00"), Malformed},
		{"v2, a TLV beyond the end", v2(0x21, 0x11, inet+"\x02\x00\x09a.exampl"), Malformed},
		{"v2, a unique id too long", v2(0x21, 0x11, inet+tlv(tlvUniqueID, long+long)), Malformed},
		{"v2, a wrong checksum", signed(1), Checksum},
		{"v2, a short checksum", v2(0x21, 0x11, inet+tlv(tlvCRC32C, "\x00")), Checksum},
		{"v2, more than is read", v2(0x21, 0x11, strings.Repeat("x", MaxHeader))[:v2Fixed], TooLong},
	} {
		_, n, err := Parse([]byte(c.header))
		var e *Error
		if !errors.As(err, &e) || e.Cause != c.cause || n != 0 {
			t.Errorf("%s: %d, %v; want %s", c.name, n, err, c.cause)
		}
	}
}

// FuzzParse holds the parser against itself, byte by byte, and what it accepts against another implementation.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\nGET", "PROXY TCP6 ::1 ::2 1 2\r\n", "PROXY UNKNOWN\r\n", v2(0x21, 0x11, inet), signed(0),
		v2(0x21, 0x21, inet6+tlv(tlvAuthority, "a")), v2(0x20, 0, ""), v2(0x21, 0x31, strings.Repeat("u", 216)), "GET / HTTP/1.1\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if n < 0 || n > len(b) || n > MaxHeader || (err != nil && n != 0) {
			t.Fatalf("%d of %d bytes, %v", n, len(b), err)
		}
		if n == 0 && err == nil && len(b) >= MaxHeader {
			t.Fatal("it waits for more than it may hold")
		}
		for i := range min(len(b), n) {
			if _, m, err := Parse(b[:i]); m != 0 || err != nil {
				t.Fatalf("whole with %d bytes; with %d: %d, %v", n, i, m, err)
			}
		}
		if n == 0 || h.Own {
			return
		}
		theirs, err := proxyproto.Read(newReader(b))
		if err != nil {
			t.Fatalf("go-proxyproto: %v", err)
		}
		source, destination, ok := theirs.TCPAddrs()
		if !ok || plain(source.AddrPort()) != h.Source || plain(destination.AddrPort()) != h.Destination {
			t.Fatalf("%s to %s; go-proxyproto: %s to %s", h.Source, h.Destination, source, destination)
		}
	})
}

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func newReader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }
