package compile

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/engine"
	"headgate/gateway/listen/secure"
	"headgate/gateway/record"
)

// DefaultAddress is where the listener of a document that names none listens.
const DefaultAddress = ":8080"

// defaultListener is its name.
const defaultListener = "public"

// doors compiles the listeners.
func (j *job) doors() map[string]*engine.Door {
	all := j.loaded.Document.Listeners
	if len(all) == 0 {
		l := model.Listener{Address: DefaultAddress}
		l.SetDefaults()
		all = map[string]model.Listener{defaultListener: l}
	}
	doors := map[string]*engine.Door{}
	addresses := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l := all[name]
		if err := checkAddress(l.Address); err != nil {
			j.problem("invalid_value", err.Error(), "listeners", name, "address")
		} else if other, taken := addresses[l.Address]; taken {
			j.problem("duplicate_address", fmt.Sprintf("listener %q has this address already", other), "listeners", name, "address")
		}
		addresses[l.Address] = name
		j.quic(name, &l)
		j.https(name, &l, all)
		doors[name] = engine.NewDoor(name, l, j.prefixes(l.Trusted, "listeners", name, "trusted_proxies"))
		doors[name].TLS = j.terms(name, &l)
		if l.Proxy != nil {
			doors[name].Balancers = j.prefixes(l.Proxy.From, "listeners", name, "proxy_protocol", "from")
		}
	}
	return doors
}

// quic checks what HTTP/3 needs beside it.
func (j *job) quic(name string, l *model.Listener) {
	if !slices.Contains(l.Protocols, "h3") {
		return
	}
	switch {
	case l.TLS == nil:
		j.problem("invalid_value", "h3 is always encrypted; give the listener tls, or leave h3 out", "listeners", name, "protocols")
	case len(l.Protocols) == 1:
		j.problem("invalid_value", "h3 alone is found by nobody: clients hear of it over h1 or h2; write [h1, h2, h3]",
			"listeners", name, "protocols")
	case l.TLS.EarlyData && l.TLS.ClientAuth != nil:
		j.problem("invalid_value", "early data comes before a client has shown who it is; leave it out, or client_auth",
			"listeners", name, "tls", "early_data")
	}
}

// terms compiles how a listener is encrypted; nil: in clear, or there was a problem.
func (j *job) terms(name string, l *model.Listener) *secure.Terms {
	if l.TLS == nil {
		return nil
	}
	path := []string{"listeners", name, "tls"}
	file, _, _ := j.loaded.At(path)
	t, err := j.compiler.options.Secure.Compile(name, l, filepath.Dir(file))
	for _, e := range decode.Flatten(err) {
		var at *decode.PathError
		if errors.As(e, &at) {
			j.problem("invalid_value", e.Error(), slices.Concat(path, at.Path)...)
			continue
		}
		j.problem("invalid_value", e.Error(), path...)
	}
	if t != nil {
		j.next.terms = append(j.next.terms, t)
	}
	return t
}

// closeTerms gives up the listeners' certificates.
func (j *job) closeTerms() (err error) {
	for _, t := range j.next.terms {
		err = errors.Join(err, t.Close())
	}
	return err
}

// prefixes reads addresses and CIDR ranges.
func (j *job) prefixes(list []string, path ...string) []netip.Prefix {
	var all []netip.Prefix
	for i, s := range list {
		p, err := parsePrefix(s)
		if err != nil {
			j.problem("invalid_value", err.Error(), append(path[:len(path):len(path)], strconv.Itoa(i))...)
			continue
		}
		all = append(all, p)
	}
	return all
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is neither an address nor a CIDR range; write 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32", s)
	case p != p.Masked():
		return p, fmt.Errorf("%s has bits behind its prefix; write %s", s, p.Masked())
	}
	return p, nil
}

// checkAddress checks host:port to listen on.
func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on; write host:port, such as :8080, 127.0.0.1:8080 or [::1]:8080", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("%q: %q is not a port; write a number from 0 to 65535", s, port)
	}
	if host != "" && !validAuthority(host) {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%q: %q is not a host to listen on", s, host)
		}
	}
	return nil
}

// validAuthority reports whether s is a host name or an address with an optional port.
func validAuthority(s string) bool {
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host != "" && len(host) <= 253 && strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == ""
}

// settings checks what concerns the gateway as a whole.
func (j *job) settings() {
	d := &j.loaded.Document
	if d.Admin.Address != "off" {
		if err := checkAddress(d.Admin.Address); err != nil {
			j.problem("invalid_value", err.Error()+", or off", "admin", "address")
		}
	}
	err := record.Check(record.Settings{Access: d.Log.Access, Tracing: d.Tracing, Expr: j.compiler.options.Expr})
	if err != nil {
		j.locate(errors.Join(err))
	}
}
