package engine

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// challengePath is where an authority asks for the proof of HTTP-01 (RFC 8555 section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// Challenges knows what authorities that are about to issue a certificate ask for in clear.
type Challenges interface {
	// Answer returns the key authorization for a token, when a certificate for the host is being got.
	Answer(host, token string) (authorization string, ok bool)
}

// hsts renders the field of RFC 6797 section 6.1, once.
func hsts(h *model.HSTS) string {
	if h == nil {
		return ""
	}
	field := "max-age=" + strconv.FormatInt(int64(h.MaxAge/time.Second), 10)
	if h.Subdomains {
		field += "; includeSubDomains"
	}
	if h.Preload {
		field += "; preload"
	}
	return field
}

// altSvcAge is how long clients remember that there is HTTP/3: long enough for those that come back the next day, and no
// longer, since they meet a door that has gone with a delay.
const altSvcAge = "86400"

// altSvc renders the field that tells clients of HTTP/1.1 and 2 about HTTP/3 on the same port (RFC 7838 section 3), once.
func altSvc(l *model.Listener) string {
	_, port, err := net.SplitHostPort(l.Address)
	if err != nil || port == "0" || !slices.Contains(l.Protocols, "h3") {
		return ""
	}
	return `h3=":` + port + `"; ma=` + altSvcAge
}

// WithAltSvc returns the door with another Alt-Svc field: none when it is about to close, or "clear" when HTTP/3 has been
// taken away from it, so that clients forget what they were told (RFC 7838 section 3).
func (d *Door) WithAltSvc(field string) *Door {
	c := *d
	c.AltSvc = field
	return &c
}

// advertise adds to a reply over TLS and TCP that there is HTTP/3. What the upstream says about itself does not hold here.
func (d *Door) advertise(x *exchange.Exchange) {
	if d.AltSvc != "" && x.Client.TLS != nil && x.Request.Proto != "HTTP/3.0" {
		x.Reply.Header.Set("Alt-Svc", d.AltSvc)
	}
}

// secure adds to a reply over TLS that the client shall come by https only. In clear it must not be said (RFC 6797
// section 7.2), and there is one such field (section 6.1): the door's.
func (d *Door) secure(x *exchange.Exchange) {
	if d.HSTS != "" && x.Client.TLS != nil {
		x.Reply.Header.Set("Strict-Transport-Security", d.HSTS)
	}
}

// misdirected reports whether a request came over a connection that was opened for another host: a client may use one for
// every name of the certificate that it was shown, and must open its own for others (RFC 9110 section 15.5.20, RFC 9113
// section 9.1.1). What a client asked for in the handshake, it may ask for here, whatever certificate it was content with;
// one that asked for nothing there, such as one that was given an address, has promised nothing. A trusted proxy carries
// the hosts of others over connections of its own.
func misdirected(x *exchange.Exchange) bool {
	t := x.Client.TLS
	if t == nil || t.Serves == nil || t.ServerName == "" || x.Client.Trusted {
		return false
	}
	host := hostOf(x.Request.Host)
	return !exchange.EqualFold(strings.TrimSuffix(host, "."), t.ServerName) && !t.Serves(host)
}

// atDoor answers what is answered before any route or policy is looked at, and reports whether it did: an authority's
// challenge, and on a door that only leads to https everything else.
func (c *carriage) atDoor() bool {
	x := c.x
	if x.Client.TLS != nil || x.Request.Method == "CONNECT" {
		return false
	}
	if c.engine.Challenges != nil && strings.HasPrefix(x.Request.Path, challengePath) && c.challenge() {
		return true
	}
	r := c.door.Config.Redirect
	if r == nil || x.Client.Secure { // a trusted proxy has it by https already
		return false
	}
	if x.Request.Host == "" {
		c.fail(&exchange.Error{Code: exchange.BadRequest, Source: exchange.FromClient, Detail: "There is no host to redirect to."})
		return true
	}
	x.Answer(r.Status, "", "")
	x.Reply.Header.Add("Location", httpsLocation(&x.Request, r.Port))
	return true
}

// challenge answers HTTP-01. Another token than ours may be for a service behind us, which gets its own certificates.
func (c *carriage) challenge() bool {
	x := c.x
	if x.Request.Method != "GET" && x.Request.Method != "HEAD" {
		return false
	}
	authorization, ok := c.engine.Challenges.Answer(hostOf(x.Request.Host), x.Request.Path[len(challengePath):])
	if ok {
		x.Answer(200, "application/octet-stream", authorization) // RFC 8555 section 8.3
	}
	return ok
}

// httpsLocation is the same address over https.
func httpsLocation(r *exchange.Request, port int) string {
	var b strings.Builder
	b.WriteString("https://")
	b.WriteString(hostOf(r.Host))
	if port != 443 {
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(port))
	}
	if r.Path != "*" {
		b.WriteString(r.Path)
	}
	if r.HasQuery {
		b.WriteByte('?')
		b.WriteString(r.Query)
	}
	return b.String()
}

// hostOf takes the port from an authority.
func hostOf(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		return authority[:i]
	}
	return authority
}
