package compile

import (
	"slices"
	"testing"
	"time"

	"headgate/gateway/wire/tunnel"
	"headgate/internal/metric"
)

func TestUpgradesOfARouteAreCountedAcrossReloads(t *testing.T) {
	w := newWorld(t)
	w.options.Tunnels = tunnel.NewRegistry(metric.NewRegistry())
	document := func(upgrade string) string {
		return "upstreams: {echo: \"http://127.0.0.1:9101\"}\napis: {chat: {upstream: echo, upgrade: {" + upgrade + "}}}\n"
	}
	first := w.load(document("connections: 1")).Routes[0].Upgrades
	if !first.Allows("websocket") || first.Allows("chat") || first.Idle != time.Hour || first.Connections != 1 {
		t.Errorf("by default: %+v", first)
	}
	second := w.load(document("protocols: [Chat], idle_timeout: 5m, max_lifetime: 24h")).Routes[0].Upgrades
	if second.Group != first.Group {
		t.Error("a reload counts anew")
	}
	if !slices.Equal(second.Protocols, []string{"chat"}) || second.Idle != 5*time.Minute || second.Lifetime != 24*time.Hour {
		t.Errorf("got %+v", second)
	}
	if off := w.load(document("off: true")).Routes[0].Upgrades; off.Allows("websocket") {
		t.Error("off allows")
	}
}
