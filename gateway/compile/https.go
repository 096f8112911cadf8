package compile

import (
	"net"
	"slices"
	"strconv"
	"time"

	"headgate/config/model"
)

// preloadAge is what the browsers' built-in list asks for at least (hstspreload.org).
const preloadAge = 365 * 24 * time.Hour

// https checks what tags cannot say about a listener's part in getting clients to https.
func (j *job) https(name string, l *model.Listener, all map[string]model.Listener) {
	if l.Redirect != nil {
		_, port, _ := net.SplitHostPort(l.Address) // what is wrong with the address is told elsewhere
		switch {
		case l.TLS != nil:
			j.problem("exclusive_keys", "a listener with tls is https already; redirect_to_https belongs on the one in clear",
				"listeners", name, "redirect_to_https")
		case port == strconv.Itoa(l.Redirect.Port):
			j.problem("invalid_value", "clients would be sent back to this listener, again and again; write the port of the one with tls",
				"listeners", name, "redirect_to_https", "port")
		}
	}
	if l.TLS == nil {
		return
	}
	if h := l.TLS.HSTS; h != nil && h.Preload && (!h.Subdomains || h.MaxAge < preloadAge) {
		j.problem("invalid_value", "the browsers' list takes no name without include_subdomains: true and a max_age of 8760h (a year) or more",
			"listeners", name, "tls", "hsts", "preload")
	}
	if a := l.TLS.ACME; a != nil && slices.Equal(a.Challenges, []string{"http-01"}) && !anyInClear(all) {
		j.problem("invalid_value", "http-01 is answered by a listener in clear, and there is none: write one that the authority reaches "+
			"on port 80 (redirect_to_https may be on it), or allow tls-alpn-01", "listeners", name, "tls", "acme", "challenges")
	}
}

// anyInClear reports whether some listener speaks HTTP in clear.
func anyInClear(all map[string]model.Listener) bool {
	for _, l := range all {
		if l.TLS == nil && l.TCP == nil {
			return true
		}
	}
	return false
}
