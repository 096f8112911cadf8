package pool

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
)

// Endpoint is a target's URL, read. Two of the same URL are equal.
type Endpoint struct {
	Address string // host:port to dial
	Host    string // without the port: the name that its certificate must have
	Secure  bool   // over TLS
	Raw     bool   // carries bytes, for TCP listeners only
	H2      bool   // HTTP/2 whatever the document's protocol says: h2c://
}

// String returns all that tells an endpoint apart.
func (e Endpoint) String() string {
	s := e.Address
	for _, part := range []struct {
		is   bool
		text string
	}{{e.Secure, " tls " + e.Host}, {e.Raw, " tcp"}, {e.H2, " h2"}} {
		if part.is {
			s += part.text
		}
	}
	return s
}

// At returns the endpoint at an address that was not read from a URL. host is the name that its certificate must have.
func At(scheme, address, host string) Endpoint {
	kind := schemes[scheme]
	return Endpoint{Address: address, Host: host, Secure: kind.secure, Raw: kind.raw, H2: kind.h2}
}

// scheme is what the part of a URL before its colon means.
type scheme struct {
	port            string // when the URL has none; "": it must have one
	secure, raw, h2 bool
}

var schemes = map[string]scheme{
	"http":  {port: "80"},
	"https": {port: "443", secure: true},
	"h2c":   {port: "80", h2: true},
	"tcp":   {raw: true},
	"tls":   {raw: true, secure: true},
}

// allowedURLs says what a target may look like.
const allowedURLs = "write http://host:port, https://host:port, h2c://host:port (HTTP/2 in clear), or tcp://host:port for a TCP listener"

// ReadURL reads scheme://host[:port]. Its errors say what may be written instead.
func ReadURL(s string) (Endpoint, error) {
	t, err := url.Parse(s)
	if err != nil {
		return Endpoint{}, fmt.Errorf("%q is not a URL; %s", s, allowedURLs)
	}
	kind, known := schemes[t.Scheme]
	switch {
	case !known || t.Hostname() == "":
		return Endpoint{}, fmt.Errorf("%q is not a target; %s", s, allowedURLs)
	case t.User != nil || t.RawQuery != "" || t.Fragment != "" || (t.Path != "" && t.Path != "/"):
		return Endpoint{}, fmt.Errorf("%q has more than a host and a port; a path belongs into a route's rewrite", s)
	case t.Port() == "" && kind.port == "":
		return Endpoint{}, fmt.Errorf("%q needs a port; write %s://%s:PORT", s, t.Scheme, t.Host)
	}
	port := t.Port()
	if port == "" {
		port = kind.port
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Endpoint{}, fmt.Errorf("%q: the port %s is not between 1 and 65535", s, port)
	}
	return At(t.Scheme, net.JoinHostPort(t.Hostname(), port), t.Hostname()), nil
}

// Version is the version of HTTP that a target is asked in.
type Version uint8

// The versions that a document can ask for.
const (
	H1   Version = iota
	H2           // by prior knowledge, or the only one offered
	Auto         // what a target over TLS chooses
)

// VersionOf settles the version from the URL and the document's protocol.
func VersionOf(e Endpoint, protocol string) Version {
	switch {
	case e.Raw:
		return H1
	case e.H2 || protocol == "h2":
		return H2
	case e.Secure && protocol != "h1":
		return Auto
	}
	return H1
}
