package secure

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// normal returns a name of the document or of a client in the form in which names are compared: A-labels, lower case, no
// dot at the end. What is not a name at all comes back in lower case and fits nothing.
func normal(name string) string {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	for i := range len(name) {
		if name[i] >= 0x80 {
			if ascii, err := idna.Lookup.ToASCII(name); err == nil {
				return ascii
			}
			return name
		}
	}
	return name
}

// checkName says what is wrong with a name that a source wants to have certificates for, in normal form.
func checkName(name string) error {
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	host, wild := strings.CutPrefix(name, "*.")
	switch {
	case strings.Contains(host, "*"):
		return fmt.Errorf("%q: a wildcard stands for the whole first label, as in *.example.com", name)
	case wild && !strings.Contains(host, "."):
		return fmt.Errorf("%q would fit every name below a top-level domain; write at least *.example.com", name)
	case host == "" || len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" ||
		strings.Contains(host, "..") || host[0] == '.':
		return fmt.Errorf("%q is neither a host name nor an address", name)
	}
	return nil
}

// parent returns what follows the first label, with its dot: ".example.com" of a.example.com; "" when there is no more
// than one label.
func parent(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return name[i:]
	}
	return ""
}

// covers reports whether the certificate is for the host (RFC 9525 section 6.3), which may have a port behind it and stand
// in any case. It allocates nothing for a host in ASCII.
func covers(leaf *x509.Certificate, host string) bool {
	host = hostname(host)
	if host != "" && (host[len(host)-1] <= '9' || host[0] == '[' || strings.IndexByte(host, ':') >= 0) { // no name ends in a digit
		bare := host
		if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
			bare = inner[:len(inner)-1]
		}
		if a, err := netip.ParseAddr(bare); err == nil {
			return coversAddress(leaf, a.Unmap().WithZone(""))
		}
	}
	if !isASCII(host) {
		host = normal(host)
	}
	host = strings.TrimSuffix(host, ".")
	above := parent(host)
	for _, name := range leaf.DNSNames {
		name = strings.TrimSuffix(name, ".")
		if equalFold(name, host) || above != "" && len(name) > 2 && name[:2] == "*." && equalFold(name[1:], above) {
			return true
		}
	}
	return false
}

func coversAddress(leaf *x509.Certificate, a netip.Addr) bool {
	for _, ip := range leaf.IPAddresses {
		if b, ok := netip.AddrFromSlice(ip); ok && b.Unmap() == a {
			return true
		}
	}
	return false
}

// hostname cuts a port off. An IPv6 address keeps its brackets.
func hostname(host string) string {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.IndexByte(host[i:], ']') >= 0 || host[0] != '[' && strings.IndexByte(host[:i], ':') >= 0 {
		return host
	}
	return host[:i]
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// equalFold compares names in ASCII.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

// namesOf lists what a certificate is for, in normal form.
func namesOf(leaf *x509.Certificate) (names []string) {
	for _, n := range leaf.DNSNames {
		names = append(names, normal(n))
	}
	for _, ip := range leaf.IPAddresses {
		names = append(names, address(ip))
	}
	return names
}

func address(ip net.IP) string {
	if a, ok := netip.AddrFromSlice(ip); ok {
		return a.Unmap().String()
	}
	return ip.String()
}
