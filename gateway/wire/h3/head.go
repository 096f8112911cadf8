package h3

import (
	"errors"
	"io"
	"strings"

	"github.com/quic-go/qpack"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/h1"
)

// head is what a request's field section says, besides what goes into the request.
type head struct {
	method, scheme, authority, path, protocol string
	has                                       pseudo
	host                                      string
	hosts                                     int
	length                                    int64 // Content-Length; -1: none
	expect                                    bool
	cookies                                   int
	regular                                   bool // a field that is no pseudo-header field has come
}

// pseudo tells which pseudo-header fields are there.
type pseudo uint8

const (
	hasMethod pseudo = 1 << iota
	hasScheme
	hasAuthority
	hasPath
	hasProtocol
)

// fields yields what a field section holds, in order, and holds it to its limits: its size as RFC 9114 section 4.2.2
// counts it, and the number of fields.
func fields(block []byte, l *h1.Limits, yield func(name, value string) error) error {
	next := new(qpack.Decoder).Decode(block)
	size, n := 0, 0
	for {
		f, err := next()
		if errors.Is(err, io.EOF) && len(block) > 0 {
			return nil
		}
		if err != nil {
			return errFieldSection
		}
		if size += len(f.Name) + len(f.Value) + 32; size > l.Head {
			return errHeadTooLarge
		}
		if !f.IsPseudo() {
			if n++; n > l.Fields {
				return errTooManyFields
			}
		}
		if err := yield(f.Name, f.Value); err != nil {
			return err
		}
	}
}

// parseHead reads a request's field section into r. Its error is an *exchange.Error for the client or a *violation.
func parseHead(block []byte, l *h1.Limits, r *exchange.Request) (head, error) {
	h := head{length: -1}
	r.Header.Reset("")
	r.Trailer.Reset("")
	r.Proto, r.Scheme = "HTTP/3.0", "https"
	err := fields(block, l, func(name, value string) error {
		if name != "" && name[0] == ':' {
			return h.pseudo(name, value, r)
		}
		return h.field(name, value, r)
	})
	if err != nil {
		r.Method = h.method // as far as it came, for the record
		return h, err
	}
	r.Method = h.method
	if err := h.target(l, r); err != nil {
		return h, fromH1(err)
	}
	if h.cookies > 1 {
		joinCookies(&r.Header)
	}
	return h, nil
}

// fromH1 makes what the codec of HTTP/1.1 says about a part that all versions share an error for the client.
func fromH1(err error) error {
	var e *h1.Error
	if errors.As(err, &e) {
		return refusal(e.Code, e.Reason)
	}
	return err
}

// pseudo takes a pseudo-header field (RFC 9114 section 4.3, RFC 9220).
func (h *head) pseudo(name, value string, r *exchange.Request) error {
	var to *string
	var bit pseudo
	switch name {
	case ":method":
		to, bit = &h.method, hasMethod
	case ":scheme":
		to, bit = &h.scheme, hasScheme
	case ":authority":
		to, bit = &h.authority, hasAuthority
	case ":path":
		to, bit = &h.path, hasPath
	case ":protocol":
		to, bit = &h.protocol, hasProtocol
	default:
		return errPseudoUnknown
	}
	switch {
	case h.has&bit != 0:
		return errPseudoRepeated
	case h.regular:
		return errPseudoLate
	case !exchange.ValidValue(value):
		return errValue
	}
	h.has |= bit
	*to = value
	return nil
}

// field takes a field that is not a pseudo-header field. What belongs to a connection must not be there (RFC 9114
// section 4.2); what is only for us does not go on.
func (h *head) field(name, value string, r *exchange.Request) error {
	h.regular = true
	if err := validField(name, value); err != nil {
		return err
	}
	switch name {
	case "host":
		if h.hosts++; h.hosts > 1 {
			return errHostRepeated
		}
		h.host = value
		return nil
	case "content-length":
		if h.length >= 0 {
			return errLengthRepeated
		}
		n, err := h1.ParseLength(value)
		h.length = n
		return fromH1(err)
	case "expect":
		if !exchange.EqualFold(value, "100-continue") {
			return errExpectation
		}
		h.expect = true
		return nil
	case "te", "proxy-authenticate", "proxy-authorization":
		return nil
	case "cookie":
		h.cookies++
	}
	r.Header.Add(name, value)
	return nil
}

// validField checks a field of a head or a trailer section.
func validField(name, value string) error {
	if !exchange.ValidName(name) || upper(name) {
		return errName
	}
	if !exchange.ValidValue(value) {
		return errValue
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return errConnection
	case "te":
		if value != "trailers" {
			return errTE
		}
	}
	return nil
}

func upper(s string) bool {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return true
		}
	}
	return false
}

// target makes of the pseudo-header fields what a request line and Host are in HTTP/1.1.
func (h *head) target(l *h1.Limits, r *exchange.Request) error {
	if !exchange.ValidName(h.method) {
		if h.has&hasMethod == 0 {
			return errPseudoMissing
		}
		return errMethod
	}
	if len(h.path) > l.Target || len(h.authority) > l.Target {
		return errTargetTooLong
	}
	if h.method == "CONNECT" && h.has&hasProtocol == 0 {
		return h.connect(r)
	}
	if h.has&(hasScheme|hasPath) != hasScheme|hasPath {
		return errPseudoMissing
	}
	if !exchange.EqualFold(h.scheme, "https") {
		return errScheme
	}
	if err := h.checkHost(r); err != nil {
		return err
	}
	if h.has&hasProtocol != 0 {
		return h.upgrade(r)
	}
	return h1.ParsePath(h.path, r)
}

// connect takes a CONNECT's target (RFC 9114 section 4.4).
func (h *head) connect(r *exchange.Request) error {
	r.Path, r.Query, r.HasQuery, r.Host = "", "", false, h.authority
	switch {
	case h.has&(hasScheme|hasPath) != 0:
		return errPseudoExcess
	case h.has&hasAuthority == 0:
		return errPseudoMissing
	}
	return h.checkHost(r)
}

// upgrade makes of an extended CONNECT (RFC 9220) the handshake that the other versions know, so that routes and policies
// see the same whatever the wire.
func (h *head) upgrade(r *exchange.Request) error {
	switch {
	case h.method != "CONNECT":
		return errPseudoExcess
	case h.has&hasAuthority == 0:
		return errPseudoMissing
	case !exchange.ValidName(h.protocol):
		return errProtocol
	}
	r.Method, r.Upgrade = "GET", strings.ToLower(h.protocol)
	return h1.ParsePath(h.path, r)
}

// checkHost holds Host against the authority. Two names for one message are a way to be routed by one and served by the
// other.
func (h *head) checkHost(r *exchange.Request) error {
	r.Host = h.authority
	if h.has&hasAuthority == 0 {
		if r.Host = h.host; h.hosts == 0 {
			return errPseudoMissing
		}
	}
	switch {
	case !h1.ValidHost(r.Host):
		return errHost
	case h.hosts == 1 && !h1.SameHost(h.host, r.Host, "443"):
		return errHostDisagrees
	}
	return nil
}

// joinCookies makes one Cookie field of those that a client may split for the sake of compression; in HTTP/1.1 there is
// only one (RFC 9114 section 4.2.1).
func joinCookies(h *exchange.Header) {
	var whole strings.Builder
	for v := range h.Values("cookie") {
		if whole.Len() > 0 {
			whole.WriteString("; ")
		}
		whole.WriteString(v)
	}
	h.Set("cookie", whole.String())
}

// parseTrailer reads a trailer section.
func parseTrailer(block []byte, l *h1.Limits, t *exchange.Header) error {
	t.Reset("")
	err := fields(block, l, func(name, value string) error {
		if name != "" && name[0] == ':' {
			return errTrailerPseudo
		}
		if err := validField(name, value); err != nil {
			return err
		}
		switch name {
		case "host", "content-length", "expect", "te", "proxy-authenticate", "proxy-authorization":
			return nil
		}
		if !h1.ForbiddenInTrailer(name) {
			t.Add(name, value)
		}
		return nil
	})
	if err != nil {
		t.Reset("")
	}
	return err
}
