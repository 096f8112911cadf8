package ipfilter

import (
	"errors"
	"net/netip"
	"strconv"

	"github.com/gaissmai/bart"

	"headgate/config/decode"
)

// filter answers for any address; it knows no HTTP.
type filter struct {
	allow, deny *bart.Lite
	allowAll    bool
}

func compile(c Config) (*filter, error) {
	allow, errAllow := table("allow", c.Allow)
	deny, errDeny := table("deny", c.Deny)
	return &filter{allow, deny, len(c.Allow) == 0}, errors.Join(errAllow, errDeny)
}

// admits reports whether the address may call. IPv4 is the same whether or not it comes mapped into IPv6 (RFC 4291
// section 2.5.5.2), and zones do not matter. An address that is not known passes only where nobody is kept out.
func (f *filter) admits(ip netip.Addr) bool {
	if !ip.IsValid() {
		return f.allowAll && f.deny.Size() == 0
	}
	ip = ip.Unmap()
	if ip.Zone() != "" {
		ip = ip.WithZone("")
	}
	return !f.deny.Lookup(ip) && (f.allowAll || f.allow.Lookup(ip))
}

func table(option string, entries []string) (*bart.Lite, error) {
	t := &bart.Lite{}
	var errs []error
	for i, e := range entries {
		p, err := parse(option+"."+strconv.Itoa(i), e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t.Insert(p)
	}
	return t, errors.Join(errs...)
}

// parse reads an address or a range. A range with bits behind its prefix is refused: its author meant another one.
func parse(path, s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, decode.At(path, "%q is not an address or range; write 192.0.2.7, 192.0.2.0/24, 2001:db8::7 or 2001:db8::/32", s)
	}
	if p != p.Masked() {
		return p, decode.At(path, "%q has bits behind its prefix; write %s for the range or %s for the address", s, p.Masked(), p.Addr())
	}
	if ip := p.Addr(); ip.Is4In6() && p.Bits() >= 96 { // ::ffff:192.0.2.0/120 is 192.0.2.0/24
		p = netip.PrefixFrom(ip.Unmap(), p.Bits()-96)
	}
	return p, nil
}
