package discover

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// slice is an EndpointSlice (kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1).
type slice struct {
	Kind        string         `json:"kind"`
	Metadata    metadata       `json:"metadata"`
	AddressType string         `json:"addressType"` // IPv4, IPv6 or FQDN
	Endpoints   []kubeEndpoint `json:"endpoints"`
	Ports       []kubePort     `json:"ports"`
}

// kubeEndpoint is an endpoint of a slice. What is absent means: ready, serving if it is ready, and not terminating.
type kubeEndpoint struct {
	Addresses  []string `json:"addresses"`
	Conditions struct {
		Ready       *bool `json:"ready"`
		Serving     *bool `json:"serving"`
		Terminating *bool `json:"terminating"`
	} `json:"conditions"`
	Zone  string `json:"zone"`
	Hints *struct {
		ForZones []struct {
			Name string `json:"name"`
		} `json:"forZones"`
	} `json:"hints"`
}

// kubePort is a port of all endpoints of a slice (EndpointPort).
type kubePort struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // "": TCP
	Port     int    `json:"port"`     // 0: all of them
}

// state is what an endpoint can be used for.
type state uint8

const (
	out     state = iota
	leaving       // finishes its requests and takes no new ones
	normal
)

func (b *kubeEndpoint) state() state {
	is := func(condition *bool, absent bool) bool {
		if condition == nil {
			return absent
		}
		return *condition
	}
	switch ready, serving := is(b.Conditions.Ready, true), is(b.Conditions.Serving, is(b.Conditions.Ready, true)); {
	case is(b.Conditions.Terminating, false):
		if serving {
			return leaving
		}
		return out
	case ready:
		return normal
	}
	return out
}

// candidate is an endpoint that is not out.
type candidate struct {
	target Target
	zones  []string // for which it is meant
}

// targets returns the endpoints of all slices, each address once: while an endpoint moves from one slice to another it
// stands in both.
func (k *kube) targets() ([]Target, error) {
	known := map[string]candidate{}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(k.slices)) {
		s := k.slices[name]
		if s.AddressType != "IPv4" && s.AddressType != "IPv6" {
			continue // no semantics are defined for names
		}
		port, err := s.port(k.is.Port)
		if err != nil {
			if len(s.Endpoints) > 0 {
				wrong = append(wrong, fmt.Errorf("EndpointSlice %s: %w", cut(name), err))
			}
			continue
		}
		for i := range s.Endpoints {
			c, err := s.Endpoints[i].candidate(port)
			switch old, there := known[c.target.Address]; {
			case err != nil:
				wrong = append(wrong, fmt.Errorf("EndpointSlice %s: %w", cut(name), err))
			case c.target.Address == "":
			case !there || old.target.Draining && !c.target.Draining:
				c.target.Host = k.is.Service + "." + k.namespace + ".svc"
				known[c.target.Address] = c
			}
		}
	}
	return staying(k.meant(known)), incomplete(wrong)
}

// candidate returns an endpoint as a target, without an address if it is out. Its first address is its only one.
func (b *kubeEndpoint) candidate(port int) (c candidate, err error) {
	is := b.state()
	if is == out || len(b.Addresses) == 0 {
		return c, nil
	}
	ip, err := netip.ParseAddr(b.Addresses[0])
	if err != nil {
		return c, fmt.Errorf("%q is no address", cut(b.Addresses[0]))
	}
	if b.Hints != nil {
		for _, z := range b.Hints.ForZones {
			c.zones = append(c.zones, z.Name)
		}
	}
	c.target = Target{
		Address: net.JoinHostPort(ip.Unmap().String(), strconv.Itoa(port)), Weight: 1, Zone: b.Zone, Draining: is == leaving,
	}
	return c, c.target.check()
}

// meant returns the targets that are meant for the gateway's zone, in their order; all of them if it has none, if one is
// meant for no zone, or if none is for this one.
func (k *kube) meant(known map[string]candidate) []Target {
	var all, here []Target
	hinted := true
	for _, c := range known {
		all = append(all, c.target)
		hinted = hinted && (len(c.zones) > 0 || c.target.Draining)
		if slices.Contains(c.zones, k.is.ForZone) {
			here = append(here, c.target)
		}
	}
	if k.is.ForZone != "" && hinted && slices.ContainsFunc(here, func(t Target) bool { return !t.Draining }) {
		all = here
	}
	slices.SortFunc(all, func(a, b Target) int { return cmp.Compare(a.Address, b.Address) })
	return all
}

// port is the one of the name or number, or the only one over TCP.
func (s *slice) port(wanted string) (int, error) {
	var has []string
	found := 0
	for _, p := range s.Ports {
		if p.Protocol != "" && p.Protocol != "TCP" || p.Port < 1 || p.Port > 65535 {
			continue
		}
		number := strconv.Itoa(p.Port)
		has = append(has, strings.TrimPrefix(p.Name+":"+number, ":"))
		if wanted == "" || wanted == p.Name || wanted == number {
			found = p.Port
		}
	}
	switch {
	case found == 0:
		return 0, fmt.Errorf("it has no TCP port %s, but %s", wanted, among(has))
	case wanted == "" && len(has) > 1:
		return 0, fmt.Errorf("it has the ports %s; say which by port in the document", cut(strings.Join(has, ", ")))
	}
	return found, nil
}
