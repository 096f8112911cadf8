package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"headgate/gateway/exchange"
	"headgate/gateway/wire/tunnel"
)

// checkUpgrades checks which protocols an API may switch to.
func (b *apiJob) checkUpgrades() {
	for i, p := range b.model.Upgrade.Protocols {
		at := []string{"apis", b.name, "upgrade", "protocols", strconv.Itoa(i)}
		name, version, versioned := strings.Cut(p, "/")
		switch {
		case !exchange.ValidName(name) || versioned && !exchange.ValidName(version):
			b.problem("invalid_value", fmt.Sprintf("%q is not a protocol; write a name, such as websocket, or NAME/VERSION", p), at...)
		case slices.Contains(connectionOwn[:], strings.ToLower(name)):
			b.problem("invalid_value", fmt.Sprintf("%q is between a client and the gateway: see the listener's protocols and tls", p), at...)
		}
	}
}

// connectionOwn are the protocols that a connection itself speaks, and that no upstream is asked for on behalf of a client.
var connectionOwn = [...]string{"h2c", "h2", "http", "tls"}

// upgrading compiles what a route does with requests to switch to another protocol.
func (b *apiJob) upgrading(c *compiled) *tunnel.Plan {
	m, registry := b.model.Upgrade, b.compiler.options.Tunnels
	if m.Off || registry == nil {
		return nil
	}
	p := &tunnel.Plan{
		Registry: registry, Group: registry.Group(c.info.API, c.info.Name), Protocols: []string{tunnel.WebSocket},
		Idle: m.IdleTimeout, Lifetime: m.MaxLifetime, Connections: m.Connections, PerConsumer: m.PerConsumer,
	}
	b.api.close = append(b.api.close, func() error { p.Group.Release(); return nil })
	if len(m.Protocols) > 0 {
		p.Protocols = nil
		for _, name := range m.Protocols {
			p.Protocols = append(p.Protocols, strings.ToLower(name))
		}
	}
	return p
}
