package discover

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
)

// New returns the source that the document names, and what it is in words. Errors point into discover.
func New(m *model.Discover) (Source, string, error) {
	given := 0
	for _, g := range [...]bool{m.DNS != nil, m.File != "", m.Consul != nil} {
		if g {
			given++
		}
	}
	switch {
	case given == 0:
		return nil, "", decode.At("", "discover names no source; write dns: {name, port}, file: PATH, or consul: {service}")
	case given > 1:
		return nil, "", decode.At("", "dns, file and consul exclude each other; the targets of an upstream come from one source")
	case m.DNS != nil:
		return newDNS(*m.DNS, system{resolvConf, m.DNS.Servers}, rand.Float64), aboutDNS(m.DNS), checkDNS(m.DNS)
	case m.Consul != nil:
		return newConsul(*m.Consul), aboutConsul(m.Consul), checkConsul(m.Consul)
	}
	return file{filepath.Clean(m.File)}, "file " + filepath.Clean(m.File), nil
}

func checkDNS(m *model.DiscoverDNS) error {
	var errs []error
	add := func(place, format string, args ...any) { errs = append(errs, decode.At("dns."+place, format, args...)) }
	if _, err := netip.ParseAddr(m.Name); err == nil {
		add("name", "%s is an address, of which there is nothing to ask; write it into targets", m.Name)
	}
	switch {
	case m.SRV && m.Port != 0:
		add("port", "services bring their own port; leave it out")
	case !m.SRV && m.Port == 0:
		add("port", "addresses have no port; write one, or srv: true for a name that has services")
	}
	if m.MinTTL > m.MaxTTL {
		add("min_ttl", "%v is more than max_ttl, %v", m.MinTTL, m.MaxTTL)
	}
	if len(m.Servers) > maxServers {
		add("servers", "%d are given; at most %d", len(m.Servers), maxServers)
	}
	for i, s := range m.Servers {
		if _, err := netip.ParseAddrPort(s); err != nil {
			add(fmt.Sprintf("servers.%d", i), "%q is not an address with a port, such as 10.0.0.2:53", s)
		}
	}
	return errors.Join(errs...)
}

func aboutDNS(m *model.DiscoverDNS) string {
	about := fmt.Sprintf("dns %s, port %d", m.Name, m.Port)
	if m.SRV {
		about = "dns services of " + m.Name
	}
	if len(m.Servers) > 0 {
		about += ", asked of " + strings.Join(m.Servers, " ")
	}
	return about
}

func newConsul(m model.DiscoverConsul) *consul {
	m.Address = strings.TrimRight(m.Address, "/")
	return &consul{is: m, random: rand.Float64, client: &http.Client{
		Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: consulPatience}).DialContext, MaxIdleConnsPerHost: 1},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is the agent's alone
	}}
}

func checkConsul(m *model.DiscoverConsul) error {
	if strings.ContainsAny(m.Address, "?#@") {
		return decode.At("consul.address", "%q has more than a host, a port and a path; the token stands in token", m.Address)
	}
	return nil
}

func aboutConsul(m *model.DiscoverConsul) string {
	about := "consul service " + m.Service + " of " + m.Address
	if m.Tag != "" {
		about += ", tag " + m.Tag
	}
	if m.Datacenter != "" {
		about += ", datacenter " + m.Datacenter
	}
	return about
}
