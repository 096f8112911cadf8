package main

import (
	"headgate/gateway/engine"
	"headgate/gateway/tcp"
)

// configureTCP gives the server of a TCP listener the settings of a document.
func (n *door) configureTCP(name string, config *engine.Door) {
	if t := config.Config.TCP; t != nil {
		n.tcp.Configure(name, tcp.Settings{
			ByName: len(t.BySNI) > 0, HelloTime: config.Config.Limits.HeaderTimeout, Idle: t.IdleTimeout, Lifetime: t.MaxLifetime,
			Bytes: int64(t.Bytes), Bandwidth: int64(t.Bandwidth), Rate: t.Rate,
		})
	}
}

// tcpStatus is where connections of a TCP listener go.
type tcpStatus struct {
	Names    []string `json:"names,omitempty"` // none: all others
	Upstream string   `json:"upstream"`
}

// tcpStatuses describes the ways of a TCP listener.
func tcpStatuses(t *engine.TCP) (list []tcpStatus) {
	if t == nil {
		return nil
	}
	for _, w := range t.Ways {
		list = append(list, tcpStatus{w.Names, w.Info.Upstream})
	}
	return list
}
