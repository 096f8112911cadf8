package discover

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// container is what an engine's list says of one (ContainerSummary).
type container struct {
	ID         string `json:"Id"`
	Names      []string
	State      string
	Status     string // in words: "Up 4 minutes (healthy)"
	Labels     map[string]string
	Ports      []dockerPort
	HostConfig struct{ NetworkMode string }
	Health     *struct{ Status string } // since version 1.52 of the API

	NetworkSettings struct {
		Networks map[string]*struct{ IPAddress, GlobalIPv6Address string }
	}
}

// dockerPort is a port that a container exposes, or that its engine publishes (PortSummary).
type dockerPort struct {
	IP                      string
	PrivatePort, PublicPort int
	Type                    string
}

// partial says that some of an answer is no target; the others are used.
type partial struct{ why error }

func (p *partial) Error() string { return p.why.Error() }

// incomplete returns what was left out of an answer; nil: nothing.
func incomplete(why []error) error {
	if len(why) == 0 {
		return nil
	}
	more := ""
	if len(why) > maxTold {
		more = fmt.Sprintf("; and %d more", len(why)-maxTold)
	}
	told := make([]string, 0, maxTold)
	for _, err := range why[:min(len(why), maxTold)] {
		told = append(told, err.Error())
	}
	return &partial{errors.New(strings.Join(told, "; ") + more)}
}

// labelled reports whether there are all the labels: KEY or KEY=VALUE.
func labelled(has map[string]string, want []string) bool {
	for _, w := range want {
		key, value, exact := strings.Cut(w, "=")
		if got, ok := has[key]; !ok || exact && got != value {
			return false
		}
	}
	return true
}

// targets returns those of the containers that can be asked. One that says something wrong is left out: it has nothing to
// do with the others.
func (d *docker) targets(all []container) (list []Target, _ error) {
	var wrong []error
	for i := range all {
		c := &all[i]
		if !labelled(c.Labels, d.is.Labels) || c.State != "running" || !c.well() {
			continue
		}
		t, err := d.target(c)
		if err == nil {
			err = t.check()
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("container %s: %w", c.name(), err))
			continue
		}
		list = append(list, t)
	}
	return staying(list), incomplete(wrong)
}

// staying lets the targets that end take requests if there are no others, as long as they answer: Kubernetes does so
// (KEP-1669), and it is better than to refuse.
func staying(list []Target) []Target {
	if slices.ContainsFunc(list, func(t Target) bool { return !t.Draining }) {
		return list
	}
	for i := range list {
		list[i].Draining = false
	}
	return list
}

// well reports whether a container's own health check has not found it ill, nor is still about to.
func (c *container) well() bool {
	if c.Health != nil {
		return c.Health.Status == "healthy" || c.Health.Status == "none" || c.Health.Status == ""
	}
	return !strings.HasSuffix(c.Status, "(unhealthy)") && !strings.HasSuffix(c.Status, "(health: starting)")
}

func (c *container) name() string {
	if len(c.Names) > 0 {
		return cut(strings.TrimPrefix(c.Names[0], "/"))
	}
	return cut(c.ID[:min(len(c.ID), 12)])
}

// target reads what the labels say.
func (d *docker) target(c *container) (t Target, err error) {
	_, ending := d.leaving[c.ID]
	t = Target{Host: c.Labels[d.is.Prefix+".host"], Zone: c.Labels[d.is.Prefix+".zone"], Draining: ending}
	port, err := d.port(c)
	if err != nil {
		return t, err
	}
	if t.Weight, err = d.number(c, "weight", 1, 0, MaxWeight); err != nil {
		return t, err
	}
	if t.Priority, err = d.number(c, "priority", 0, 0, MaxPriority); err != nil {
		return t, err
	}
	if d.is.Published {
		t.Address, err = d.published(c, port)
		return t, err
	}
	host, err := d.address(c)
	t.Address = net.JoinHostPort(host, strconv.Itoa(port))
	return t, err
}

// number reads a label that is a whole number.
func (d *docker) number(c *container, label string, without, least, most int) (int, error) {
	text, ok := c.Labels[d.is.Prefix+"."+label]
	if !ok {
		return without, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("its label %s.%s is %q; write a whole number from %d to %d", d.is.Prefix, label, cut(text), least, most)
	}
	return n, nil
}

// port is the one of the label, or of the document, or the only one.
func (d *docker) port(c *container) (int, error) {
	if n, err := d.number(c, "port", d.is.Port, 1, 65535); n > 0 || err != nil {
		return n, err
	}
	ports := map[int]bool{}
	for _, p := range c.Ports {
		if p.Type == "tcp" && p.PrivatePort > 0 {
			ports[p.PrivatePort] = true
		}
	}
	if len(ports) != 1 {
		return 0, fmt.Errorf("it exposes %d TCP ports; say which by its label %s.port, or by port in the document", len(ports), d.is.Prefix)
	}
	return slices.Collect(maps.Keys(ports))[0], nil
}

// address is where the container is in its network, or the engine's machine if it shares that one's.
func (d *docker) address(c *container) (string, error) {
	if c.HostConfig.NetworkMode == "host" {
		return d.host, nil
	}
	in := c.NetworkSettings.Networks
	name := c.Labels[d.is.Prefix+".network"]
	if name == "" {
		name = d.is.Network
	}
	names := slices.Sorted(maps.Keys(in))
	switch {
	case name != "" && in[name] == nil:
		return "", fmt.Errorf("it is not in the network %s, but in %s", cut(name), among(names))
	case name != "":
	case len(in) == 1:
		name = names[0]
	default:
		return "", fmt.Errorf("it is in %s; say which network by its label %s.network, or by network in the document", among(names), d.is.Prefix)
	}
	if is := in[name]; is != nil {
		for _, text := range []string{is.IPAddress, is.GlobalIPv6Address} {
			if ip, err := netip.ParseAddr(text); err == nil {
				return ip.String(), nil
			}
		}
	}
	return "", fmt.Errorf("it has no address in the network %s", cut(name))
}

func among(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return cut(strings.Join(names, ", "))
}

// published is where the engine's machine takes what is for the container's port.
func (d *docker) published(c *container, port int) (string, error) {
	for _, p := range c.Ports {
		if p.Type != "tcp" || p.PrivatePort != port || p.PublicPort == 0 {
			continue
		}
		ip, err := netip.ParseAddr(p.IP)
		switch {
		case err != nil || ip.IsUnspecified():
			return net.JoinHostPort(d.host, strconv.Itoa(p.PublicPort)), nil
		case !ip.IsLoopback() || d.host == thisMachine: // another machine's loopback leads nowhere
			return net.JoinHostPort(ip.String(), strconv.Itoa(p.PublicPort)), nil
		}
	}
	return "", fmt.Errorf("its port %d is not published where it can be reached", port)
}
