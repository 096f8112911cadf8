package discover

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"headgate/config/decode"
	"headgate/config/model"
)

// New returns the source that the document names for an upstream, and what it is in words. Errors point into discover.
func New(upstream string, m *model.Discover) (Source, string, error) {
	given := 0
	for _, g := range [...]bool{m.DNS != nil, m.File != "", m.Consul != nil, m.Docker != nil, m.Kube != nil} {
		if g {
			given++
		}
	}
	switch {
	case given == 0:
		return nil, "", decode.At("", "discover names no source; write dns: {name, port}, file: PATH, consul: {service}, docker: {}, "+
			"or kubernetes: {service}")
	case given > 1:
		return nil, "", decode.At("", "dns, file, consul, docker and kubernetes exclude each other; the targets of an upstream come from "+
			"one source")
	case m.DNS != nil:
		return newDNS(*m.DNS, system{resolvConf, m.DNS.Servers}, rand.Float64), aboutDNS(m.DNS), checkDNS(m.DNS)
	case m.Consul != nil:
		return newConsul(*m.Consul), aboutConsul(m.Consul), checkConsul(m.Consul)
	case m.Docker != nil:
		d := newDocker(upstream, *m.Docker)
		return d, d.about(), checkDocker(m.Docker)
	case m.Kube != nil:
		return newKube(*m.Kube, os.Getenv, accountFolder), aboutKube(m.Kube), checkKube(m.Kube)
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
	dial := (&net.Dialer{Timeout: consulPatience}).DialContext
	return &consul{is: m, random: rand.Float64, client: &http.Client{
		Transport:     &http.Transport{DialContext: dial, DialTLSContext: trustIn(m.TLS).over(dial), MaxIdleConnsPerHost: 1},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is the agent's alone
	}}
}

func checkConsul(m *model.DiscoverConsul) error {
	if strings.ContainsAny(m.Address, "?#@") {
		return decode.At("consul.address", "%q has more than a host, a port and a path; the token stands in token", m.Address)
	}
	if m.TLS != nil && strings.HasPrefix(m.Address, "http://") {
		return decode.At("consul.tls", "%s is not asked over TLS; write https://host:port (Consul's port for it is 8501), or leave tls out",
			m.Address)
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

// maxLabels bounds what containers are chosen by; each makes the question longer.
const maxLabels = 32

func checkDocker(m *model.DiscoverDocker) error {
	var errs []error
	add := func(place, format string, args ...any) {
		errs = append(errs, decode.At("docker."+place, format, args...))
	}
	local := strings.HasPrefix(m.Address, "unix://")
	if !local {
		errs = append(errs, checkServer("docker.address", m.Address))
	}
	if rest, ok := strings.CutPrefix(m.Address, "tcp://"); ok && !strings.Contains(rest, ":") {
		add("address", "%s needs a port; Docker's are 2376 over TLS and 2375 in clear", m.Address)
	}
	switch {
	case m.TLS != nil && (local || strings.HasPrefix(m.Address, "http://")):
		add("tls", "%s is not asked over TLS; write tcp://host:port or https://host:port, or leave tls out", m.Address)
	case m.Published && m.Network != "":
		add("network", "published asks the engine's machine, whose networks do not matter; leave one of the two out")
	}
	if len(m.Labels) > maxLabels {
		add("labels", "%d are given; at most %d", len(m.Labels), maxLabels)
	}
	for i, l := range m.Labels {
		if key, _, _ := strings.Cut(l, "="); key == "" {
			add(fmt.Sprintf("labels.%d", i), "%q names no label; write KEY or KEY=VALUE", l)
		}
	}
	return errors.Join(errs...)
}

// checkServer wants a URL of a host with a port, and nothing after it.
func checkServer(place, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return decode.At(place, "%q is not a scheme, a host and a port, such as https://10.0.0.1:6443", address)
	}
	return nil
}

func (d *docker) about() string {
	about := "docker containers with " + strings.Join(d.is.Labels, ", ") + " of " + d.is.Address
	if d.is.Network != "" {
		about += ", network " + d.is.Network
	}
	return about
}

func checkKube(m *model.DiscoverKube) error {
	var errs []error
	add := func(place, format string, args ...any) {
		errs = append(errs, decode.At("kubernetes."+place, format, args...))
	}
	if m.Address != "" {
		errs = append(errs, checkServer("kubernetes.address", m.Address))
		if m.Namespace == "" {
			add("namespace", "outside of a cluster the gateway has none of its own; write the service's")
		}
	}
	clear := strings.HasPrefix(m.Address, "http://")
	switch {
	case !m.Token.Empty() && m.TokenFile != "":
		add("token", "token and token_file exclude each other")
	case clear && (!m.Token.Empty() || m.TokenFile != "") && !loopback(m.Address):
		add("address", "the token would go to %s in clear; write https", m.Address)
	case clear && m.CA != "":
		add("ca", "%s is not asked over TLS; write https, or leave ca out", m.Address)
	}
	return errors.Join(errs...)
}

func loopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}

func aboutKube(m *model.DiscoverKube) string {
	about := "kubernetes service " + m.Service
	if m.Namespace != "" {
		about += "." + m.Namespace
	}
	if m.Port != "" {
		about += ", port " + m.Port
	}
	if m.Address != "" {
		about += ", of " + m.Address
	}
	return about
}
