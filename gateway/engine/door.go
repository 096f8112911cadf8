package engine

import (
	"net/netip"
	"strings"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/listen/secure"
)

// Door is a compiled listener: what is believed of those who come through it, and what it allows.
type Door struct {
	Name    string
	Config  model.Listener
	Trusted []netip.Prefix // proxies whose word about the client is believed

	EncodedSlash, EmptySegment bool // allowed in paths
	XForwarded, RFC7239        bool // which headers tell the upstream about the client

	Balancers []netip.Prefix // that send a PROXY header, where the listener has proxy_protocol
	TCP       *TCP           // where its connections go instead of speaking HTTP; nil: they speak HTTP

	TLS  *secure.Terms // how it is encrypted; nil: it is not
	HSTS string        // the Strict-Transport-Security field of replies over TLS; "": none

	AltSvc string // the Alt-Svc field of replies over TLS and TCP; "": none
}

// NewDoor compiles a listener whose addresses have been checked.
func NewDoor(name string, l model.Listener, trusted []netip.Prefix) *Door {
	d := &Door{Name: name, Config: l, Trusted: trusted}
	for _, a := range l.AllowPath {
		d.EncodedSlash = d.EncodedSlash || a == "encoded-slash"
		d.EmptySegment = d.EmptySegment || a == "empty-segment"
	}
	d.XForwarded = l.Forwarded == "x-forwarded" || l.Forwarded == "both"
	d.RFC7239 = l.Forwarded == "rfc7239" || l.Forwarded == "both"
	if l.TLS != nil {
		d.HSTS = hsts(l.TLS.HSTS)
		d.AltSvc = altSvc(&l)
	}
	return d
}

func (d *Door) trusts(a netip.Addr) bool {
	for _, p := range d.Trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// pseudonym is how this gateway names itself in Via, behind the version in which the request came (RFC 9110 section 7.6.3).
const pseudonym = " headgate"

// via returns the gateway's element of Via for a request.
func via(r *exchange.Request) string {
	switch r.Proto {
	case "HTTP/2.0":
		return "2.0" + pseudonym
	case "HTTP/3.0":
		return "3.0" + pseudonym
	}
	return "1.1" + pseudonym
}

// maxVia stops requests that were sent back to the gateway again and again by a service behind it.
const maxVia = 10

// receive finds out who the client is and replaces what it claims about itself by what is known. It returns false
// when the request has looped.
func (d *Door) receive(x *exchange.Exchange) bool {
	x.Client.IP = x.Client.Peer.Addr()
	x.Client.Trusted = len(d.Trusted) > 0 && d.trusts(x.Client.IP)
	h := &x.Request.Header
	claims := claimsOf(h)
	if claims.vias > 0 && strings.Count(h.Joined("Via"), pseudonym) >= maxVia {
		return false
	}
	if x.Client.Trusted {
		d.believe(x, h)
	} else if claims.forwarded {
		h.DelFunc(func(name, _ string) bool { return isClaim(name) })
		claims.forwarded = false
	}
	d.tell(x, h, x.Client.Addr, claims.forwarded)
	if claims.vias > 0 {
		h.Set("Via", h.Joined("Via")+", "+via(&x.Request))
	} else {
		h.Add("Via", via(&x.Request))
	}
	return true
}

type claims struct {
	forwarded bool
	vias      int
}

// claimsOf looks once through the header for what only proxies may say.
func claimsOf(h *exchange.Header) (c claims) {
	for i := range h.Len() {
		switch name := h.At(i).Name; {
		case len(name) == 3 && exchange.EqualFold(name, "Via"):
			c.vias++
		case name[0]|0x20 == 'x' || name[0]|0x20 == 'f':
			c.forwarded = c.forwarded || isClaim(name)
		}
	}
	return c
}

// isClaim reports whether the field says something about the client, or the request, that only a trusted proxy may say.
func isClaim(name string) bool {
	switch len(name) {
	case 9:
		return exchange.EqualFold(name, "Forwarded") || exchange.EqualFold(name, "X-Real-IP")
	case 15:
		return exchange.EqualFold(name, "X-Forwarded-For")
	case 16:
		return exchange.EqualFold(name, "X-Forwarded-Host") || exchange.EqualFold(name, "X-Forwarded-Port")
	case 17:
		return exchange.EqualFold(name, "X-Forwarded-Proto") || exchange.EqualFold(name, exchange.MirrorMark)
	case 18:
		return exchange.EqualFold(name, "X-Forwarded-Prefix") || exchange.EqualFold(name, "X-Forwarded-Server")
	}
	return false
}

// believe takes the client's address and scheme from a trusted proxy: of the addresses it lists, the last one that is
// not a trusted proxy's itself.
func (d *Door) believe(x *exchange.Exchange, h *exchange.Header) {
	hops := h.Joined("X-Forwarded-For")
	if hops == "" {
		d.believeForwarded(x, h.Joined("Forwarded"))
	}
	for hops != "" {
		var hop string
		hops, hop = cutLast(hops, ',')
		if !d.step(x, hop) {
			break
		}
	}
	setScheme(x, h.Get("X-Forwarded-Proto"))
}

// believeForwarded is believe for the field of RFC 7239, each element of which tells a scheme, too.
func (d *Door) believeForwarded(x *exchange.Exchange, field string) {
	for field != "" {
		var element, pair, hop string
		field, element = cutLast(field, ',')
		for element != "" {
			element, pair = cutLast(element, ';')
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			switch value = strings.Trim(value, `"`); strings.ToLower(name) {
			case "for":
				hop = value
			case "proto":
				setScheme(x, value)
			}
		}
		if !d.step(x, hop) {
			return
		}
	}
}

// step makes a hop the client. It reports whether the hop's own word about who was before it counts.
func (d *Door) step(x *exchange.Exchange, hop string) bool {
	addr, ok := parseHop(hop)
	if !ok {
		return false
	}
	x.Client.IP = addr
	return d.trusts(addr)
}

func setScheme(x *exchange.Exchange, proto string) {
	switch strings.ToLower(proto) {
	case "https":
		x.Request.Scheme, x.Client.Secure = "https", true
	case "http":
		x.Request.Scheme, x.Client.Secure = "http", false
	}
}

// cutLast cuts the last element off a list. A separator between quotes is none (RFC 9110 section 5.6.4): a proxy quotes
// the host that it was asked for, in which a client may write what it likes. It reads from the end, so that no quote in
// front can swallow what a proxy has appended.
func cutLast(list string, separator byte) (rest, last string) {
	quoted := false
	for i := len(list) - 1; i >= 0; i-- {
		switch c := list[i]; {
		case c == '"' && !escaped(list[:i]):
			quoted = !quoted
		case c == separator && !quoted:
			return list[:i], list[i+1:]
		}
	}
	return "", list
}

// escaped reports whether what follows s is a quoted pair: an odd number of backslashes stands before it.
func escaped(s string) bool {
	return (len(s)-len(strings.TrimRight(s, `\`)))%2 == 1
}

// tell appends to, or makes, the header fields that say who the client is.
func (d *Door) tell(x *exchange.Exchange, h *exchange.Header, addr string, claimed bool) {
	if d.XForwarded {
		if old := h.Joined("X-Forwarded-For"); claimed && old != "" {
			h.Set("X-Forwarded-For", old+", "+addr)
		} else {
			h.Add("X-Forwarded-For", addr)
		}
		if !claimed || !h.Has("X-Forwarded-Proto") {
			h.Add("X-Forwarded-Proto", x.Request.Scheme)
		}
		if !claimed || !h.Has("X-Forwarded-Host") {
			h.Add("X-Forwarded-Host", x.Request.Host)
		}
	}
	if d.RFC7239 {
		element := forwardedElement(x, addr)
		if old := h.Joined("Forwarded"); claimed && old != "" {
			element = old + ", " + element
		}
		h.Set("Forwarded", element)
	}
}

// forwardedElement is one element of RFC 7239 section 4; an IPv6 address and a host with a port are quoted.
func forwardedElement(x *exchange.Exchange, addr string) string {
	if strings.Contains(addr, ":") {
		addr = `"[` + addr + `]"`
	}
	host := x.Request.Host
	if !exchange.ValidName(host) {
		host = `"` + host + `"`
	}
	return "for=" + addr + ";host=" + host + ";proto=" + x.Request.Scheme
}

// parseHop reads an address with an optional port; IPv6 may stand in brackets.
func parseHop(hop string) (netip.Addr, bool) {
	hop = strings.TrimSpace(hop)
	if p, err := netip.ParseAddrPort(hop); err == nil {
		return p.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(strings.Trim(hop, "[]"))
	return a.Unmap(), err == nil
}
