package fields

import (
	"strings"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// pseudo is a set of pseudo-header fields.
type pseudo uint8

const (
	hasMethod pseudo = 1 << iota
	hasScheme
	hasPath
	hasAuthority
	hasProtocol
)

// Head is what a field section says about its request, as far as it is not an ordinary field.
type Head struct {
	Method string
	Length int64 // Content-Length; -1: none

	scheme, path, authority, protocol string

	seen    pseudo
	regular bool // an ordinary field has come
	host    string
	hosts   int
	cookie  string
	crumbs  []string // of it, behind the first
	cookies int
	expect  bool
	fields  int
	fault   *Fault // the first, or one that is malformed
}

// Begin prepares for a section.
func (h *Head) Begin() { *h = Head{Length: -1} }

// TooLarge notes that the section is larger than allowed, and that its rest is not looked at.
func (h *Head) TooLarge() { h.refuse(errHeadTooLarge) }

// Fault returns what is wrong with what has come so far; nil: nothing.
func (h *Head) Fault() *Fault { return h.fault }

// Extended reports whether it is an extended CONNECT (RFC 8441).
func (h *Head) Extended() bool { return h.seen&hasProtocol != 0 }

// refuse notes what is wrong. What is malformed counts more than what could be answered.
func (h *Head) refuse(f *Fault) {
	if h.fault == nil || !h.fault.Malformed() && f.Malformed() {
		h.fault = f
	}
}

// Field takes a field of a request's head into h, or into fields if it goes on to the other side.
func (h *Head) Field(name, value string, to *exchange.Header, limit int) {
	if h.fields++; h.fields > limit {
		h.refuse(errTooManyFields)
		return
	}
	if name != "" && name[0] == ':' {
		h.pseudo(name, value)
		return
	}
	h.regular = true
	if f := checkField(name, value); f != nil {
		h.refuse(f)
		return
	}
	if !h.special(name, value) {
		to.Add(name, value)
	}
}

// pseudo takes a pseudo-header field (RFC 9113 section 8.3.1, RFC 8441 section 4).
func (h *Head) pseudo(name, value string) {
	var is pseudo
	var to *string
	switch name {
	case ":method":
		is, to = hasMethod, &h.Method
	case ":scheme":
		is, to = hasScheme, &h.scheme
	case ":path":
		is, to = hasPath, &h.path
	case ":authority":
		is, to = hasAuthority, &h.authority
	case ":protocol":
		is, to = hasProtocol, &h.protocol
	default:
		h.refuse(errPseudoUnknown)
		return
	}
	switch {
	case h.regular:
		h.refuse(errPseudoLate)
	case h.seen&is != 0:
		h.refuse(errPseudoRepeated)
	}
	h.seen |= is
	*to = value
}

// checkField checks what holds for every field (RFC 9113 section 8.2.1).
func checkField(name, value string) *Fault {
	if name == "" {
		return errNameEmpty
	}
	for i := range len(name) {
		if c := name[i]; !exchange.IsToken(c) || c >= 'A' && c <= 'Z' {
			return errName
		}
	}
	if !validValue(value) {
		return errValue
	}
	return nil
}

// validValue is exchange.ValidValue at the speed of the hot path.
func validValue(s string) bool {
	if s == "" {
		return true
	}
	if first, last := s[0], s[len(s)-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// special takes a field that is about the connection, the framing or the hop, and reports whether it was one.
func (h *Head) special(name, value string) bool {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		h.refuse(errConnectionField) // RFC 9113 section 8.2.2
	case "te":
		if !exchange.EqualFold(value, "trailers") {
			h.refuse(errTE)
		}
	case "host":
		h.hosts++
		h.host = value
	case "content-length":
		if h.Length >= 0 {
			h.refuse(errLengthRepeated)
		}
		n, err := h1.ParseLength(value)
		if err != nil {
			h.refuse(errLength)
		}
		h.Length = n
	case "cookie":
		if h.cookies++; h.cookies == 1 {
			h.cookie = value
		} else {
			h.crumbs = append(h.crumbs, value)
		}
	case "expect":
		h.expect = true
		if !exchange.EqualFold(value, "100-continue") {
			h.refuse(errExpectation)
		}
	case "proxy-authenticate", "proxy-authorization":
	default:
		return false
	}
	return true
}

// Trailer takes a field of a trailer section.
func (h *Head) Trailer(name, value string, to *exchange.Header, limit int) {
	if h.fields++; h.fields > limit {
		h.refuse(errTooManyFields)
		return
	}
	if name != "" && name[0] == ':' {
		h.refuse(errPseudoTrailer)
		return
	}
	if f := checkField(name, value); f != nil {
		h.refuse(f)
		return
	}
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		h.refuse(errConnectionField)
		return
	case "content-length", "host":
		h.refuse(errTrailerField)
		return
	case "te", "expect", "proxy-authenticate", "proxy-authorization":
		return
	}
	if !h1.ForbiddenInTrailer(name) {
		to.Add(name, value)
	}
}

// Finish makes the head a request, or says what is wrong with it. ends: it has no body.
func (h *Head) Finish(r *exchange.Request, l *h1.Limits, ends bool) *Fault {
	r.Method = h.Method
	if h.fault == nil || !h.fault.Malformed() { // what is malformed is found even behind what could be answered
		if f := h.check(ends); f != nil {
			h.refuse(f)
		}
	}
	if h.fault == nil {
		h.fault = h.target(r, l)
	}
	if h.fault != nil {
		return h.fault
	}
	h.joinCookies(r)
	if h.seen&hasProtocol != 0 {
		h.upgrade(r)
		return nil
	}
	r.Expect = h.expect && !ends
	if l.Body > 0 && h.Length > l.Body {
		return errBodyTooLarge
	}
	return nil
}

// joinCookies makes one field of what clients may send in crumbs (RFC 9113 section 8.2.3).
func (h *Head) joinCookies(r *exchange.Request) {
	switch {
	case h.cookies == 0:
		return
	case h.cookies > 1:
		h.cookie += "; " + strings.Join(h.crumbs, "; ")
	}
	r.Header.Add("cookie", h.cookie)
}

// check finds what makes the request malformed.
func (h *Head) check(ends bool) *Fault {
	connect := h.Method == "CONNECT"
	const ordinary = hasMethod | hasScheme | hasPath
	switch {
	case h.fault == errHeadTooLarge || h.fault == errTooManyFields:
		return nil // not all of it was looked at
	case h.seen&hasProtocol != 0 && (!connect || !exchange.ValidName(h.protocol)):
		return errProtocol
	case connect && h.seen&hasProtocol == 0:
		if h.seen&(hasScheme|hasPath) != 0 || h.authority == "" {
			return errConnect
		}
	case h.seen&ordinary != ordinary:
		return errPseudoMissing
	case h.path == "":
		return errPathEmpty
	}
	switch {
	case !exchange.ValidName(h.Method):
		return errMethod
	case h.hosts > 1:
		return errHostRepeated
	case h.hosts == 1 && h.seen&hasAuthority != 0 && !h1.SameHost(h.authority, h.host, h.defaultPort()):
		return errHostDisagrees
	case ends && h.Length > 0:
		return errLengthWrong
	}
	return nil
}

func (h *Head) defaultPort() string {
	if exchange.EqualFold(h.scheme, "https") {
		return "443"
	}
	return "80"
}

// target takes what is asked for, as strictly as HTTP/1.1 does.
func (h *Head) target(r *exchange.Request, l *h1.Limits) *Fault {
	r.Host = h.authority
	if h.seen&hasAuthority == 0 {
		r.Host = h.host
	}
	switch {
	case r.Host == "":
		return errHostMissing
	case !h1.ValidHost(r.Host):
		return errHost
	case h.seen&(hasPath|hasProtocol) == 0: // CONNECT, whose target names a port (RFC 9110 section 9.3.6)
		port := r.Host[strings.LastIndexByte(r.Host, ':')+1:]
		if port == r.Host || strings.IndexByte(port, ']') >= 0 || strings.Trim(port, "0") == "" {
			return errHost
		}
		r.Path, r.Query, r.HasQuery = "", "", false
		return nil
	case !exchange.EqualFold(h.scheme, "http") && !exchange.EqualFold(h.scheme, "https"):
		return errScheme
	case len(h.path) > l.Target:
		return errTargetTooLong
	case h1.ParsePath(h.path, r) != nil:
		return errPath
	}
	return nil
}

// upgrade makes an extended CONNECT (RFC 8441) the handshake that it is in HTTP/1.1, so that routes and policies see the
// same one whatever the wire.
func (h *Head) upgrade(r *exchange.Request) {
	r.Method = "GET"
	r.Upgrade = strings.ToLower(h.protocol)
	r.Expect = false
}
