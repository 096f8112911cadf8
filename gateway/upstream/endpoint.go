package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"headgate/config/decode"
	"headgate/config/model"
)

// endpoint is a target's URL, read.
type endpoint struct {
	address string // host:port to dial
	host    string // without the port: the name that its certificate must have
	secure  bool   // over TLS
	raw     bool   // carries bytes, for TCP listeners only
	h2      bool   // HTTP/2 whatever the document's protocol says: h2c://
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

// readURL reads scheme://host[:port].
func readURL(s string) (endpoint, error) {
	t, err := url.Parse(s)
	if err != nil {
		return endpoint{}, fmt.Errorf("%q is not a URL; %s", s, allowedURLs)
	}
	kind, known := schemes[t.Scheme]
	switch {
	case !known || t.Hostname() == "":
		return endpoint{}, fmt.Errorf("%q is not a target; %s", s, allowedURLs)
	case t.User != nil || t.RawQuery != "" || t.Fragment != "" || (t.Path != "" && t.Path != "/"):
		return endpoint{}, fmt.Errorf("%q has more than a host and a port; a path belongs into a route's rewrite", s)
	case t.Port() == "" && kind.port == "":
		return endpoint{}, fmt.Errorf("%q needs a port; write %s://%s:PORT", s, t.Scheme, t.Host)
	}
	port := t.Port()
	if port == "" {
		port = kind.port
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return endpoint{}, fmt.Errorf("%q: the port %s is not between 1 and 65535", s, port)
	}
	return endpoint{
		address: net.JoinHostPort(t.Hostname(), port), host: t.Hostname(), secure: kind.secure, raw: kind.raw, h2: kind.h2,
	}, nil
}

// version is the version of HTTP that a target is asked in.
type version uint8

const (
	versionH1   version = iota
	versionH2           // by prior knowledge, or the only one offered
	versionAuto         // what a target over TLS chooses
)

// versionOf settles the version from the URL and the document's protocol.
func versionOf(e endpoint, protocol string) version {
	switch {
	case e.raw:
		return versionH1
	case e.h2 || protocol == "h2":
		return versionH2
	case e.secure && protocol != "h1":
		return versionAuto
	}
	return versionH1
}

// readTargets reads every target's URL. All of an upstream carry HTTP, or all carry bytes.
func readTargets(m *model.Upstream) ([]endpoint, error) {
	var errs []error
	ends := make([]endpoint, len(m.Targets))
	for i, t := range m.Targets {
		e, err := readURL(t.URL)
		place := fmt.Sprintf("targets.%d", i)
		switch {
		case err != nil:
			errs = append(errs, decode.At(place, "%w", err))
		case i > 0 && ends[0].address != "" && e.raw != ends[0].raw:
			errs = append(errs, decode.At(place, "%q: an upstream has either tcp targets or HTTP ones, and the first one is %s",
				t.URL, m.Targets[0].URL))
		case e.h2 && m.Protocol == "h1":
			errs = append(errs, decode.At(place, "%q is HTTP/2, and protocol is h1; write http://%s, or leave protocol out", t.URL, e.address))
		}
		ends[i] = e
	}
	if len(m.Targets) == 0 && m.Discover == nil {
		errs = append(errs, decode.At("targets", "an upstream needs at least one target, such as http://10.0.0.4:9000, or discover"))
	}
	return ends, errors.Join(errs...)
}
