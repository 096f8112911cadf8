package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"headgate/gateway/engine"
	"headgate/gateway/wire/h3"
)

// quicDoor is the part of a door that is on UDP.
type quicDoor struct {
	*h3.Server
	accepts chan struct{} // closed when it takes no connection any more
}

// speaksH3 reports whether a listener is to have HTTP/3.
func speaksH3(config *engine.Door) bool {
	return config.TLS != nil && slices.Contains(config.Config.Protocols, "h3")
}

// openQUIC opens the UDP side of a door, whose TCP side is bound already. It takes no connection before runQUIC.
func (d *doors) openQUIC(name string, config *engine.Door, bound string, entrance *engine.Entrance) (*quicDoor, error) {
	address := config.Config.Address
	if _, port, _ := net.SplitHostPort(address); port == "0" {
		address = bound // the same as over TCP
	}
	for n := range d.parting {
		if n.Address() == address {
			return nil, fmt.Errorf("listeners.%s: %s over UDP still answers requests from before h3 was taken away; load the document again "+
				"when they have ended, or restart", name, address)
		}
	}
	s, err := h3.Open(address, h3.Env{
		Handler: entrance, Sweeper: d.parts.sweeper, Clock: d.parts.clock, Log: d.parts.log.With("address", address), Metrics: d.parts.metrics,
		Rooms: d.parts.guard.Rooms,
	}, quicSettings(name, config))
	if err != nil {
		return nil, err
	}
	return &quicDoor{Server: s, accepts: make(chan struct{})}, nil
}

// quicSettings are what the document says about a door's UDP side.
func quicSettings(name string, config *engine.Door) h3.Settings {
	l, t := &config.Config.Limits, config.Config.TLS
	return h3.Settings{
		Name: name, TLS: config.TLS.QUIC(), Describe: config.TLS.Describe,
		Limits: h3.Limits{
			Limits: *wireLimits(l), Connections: l.Connections, PerClient: l.ConnectionsPerClient, Handshakes: t.Handshakes,
			HandshakeTime: t.Timeout, EarlyData: t.EarlyData,
		},
	}
}

// prepareQUIC opens the UDP sides that the snapshot has and we have not; fresh are the doors that are new altogether.
func (d *doors) prepareQUIC(s *engine.Snapshot, fresh map[string]*door) (map[string]*quicDoor, error) {
	opened := map[string]*quicDoor{}
	var failed error
	for name, config := range s.Doors {
		address := config.Config.Address
		if !speaksH3(config) || d.quic[address] != nil {
			continue
		}
		beside := fresh[address]
		if beside == nil {
			beside = d.open[address]
		}
		n, err := d.openQUIC(name, config, beside.listener.Bound(), beside.entrance)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		opened[address] = n
	}
	if failed != nil {
		for _, n := range opened {
			n.discard()
		}
		return nil, failed
	}
	return opened, nil
}

// discard closes a UDP side that was never run.
func (n *quicDoor) discard() {
	_ = n.Close() // nobody has come in
	n.Wait(context.Background())
}

// commitQUIC lets the fresh UDP sides in, gives the others their new settings and closes those that are gone.
func (d *doors) commitQUIC(s *engine.Snapshot, fresh map[string]*quicDoor) {
	stay := map[string]bool{}
	for name, config := range s.Doors {
		address := config.Config.Address
		if stay[address] = speaksH3(config); stay[address] && d.quic[address] != nil {
			d.quic[address].Configure(quicSettings(name, config))
		}
	}
	for address, old := range d.quic {
		if !stay[address] {
			delete(d.quic, address)
			d.part(old)
			if beside := d.open[address]; beside != nil {
				beside.entrance.Door.Store(beside.entrance.Door.Load().WithAltSvc(forget))
			}
		}
	}
	for address, n := range fresh {
		d.quic[address] = n
		d.parts.log.Info("listening", "listener", n.Name(), "address", n.Bound(), "protocol", "h3")
		d.runs.Go(func() {
			defer close(n.accepts)
			d.broke(n.Run(d.ctx))
		})
	}
}

// forget tells clients that there is no HTTP/3 any more (RFC 7838 section 3).
const forget = "clear"

// stillForgotten returns the door as it is put in place of old: clients that have not come since are told to forget, too, however
// often the document has been read again.
func stillForgotten(old, now *engine.Door) *engine.Door {
	if old != nil && old.AltSvc == forget && now.AltSvc == "" {
		return now.WithAltSvc(forget)
	}
	return now
}

// part closes a UDP side that the document no longer has. Its requests may take as long as they need, until a drain.
func (d *doors) part(n *quicDoor) {
	d.parting[n] = true
	d.closeQUIC(n)
	d.runs.Go(func() {
		n.Wait(context.Background())
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.parting, n)
	})
}

// leaveQUIC closes all UDP sides for good and returns them with those that are parting already.
func (d *doors) leaveQUIC() []*quicDoor {
	all := slices.Collect(maps.Keys(d.parting))
	for _, n := range d.quic {
		d.closeQUIC(n)
		all = append(all, n)
	}
	return all
}

// closeQUIC lets nobody in any more and makes connections end with their exchanges.
func (d *doors) closeQUIC(n *quicDoor) {
	if err := n.Close(); err != nil {
		d.parts.log.Warn("a listener did not close cleanly", "error", err)
	}
	<-n.accepts
	n.Drain()
}
