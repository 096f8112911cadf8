package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/gateway/engine"
	"headgate/gateway/listen"
	"headgate/gateway/wire/h1"
)

// door is one listener with the server behind it.
type door struct {
	listener *listen.Listener
	server   *h1.Server
	entrance *engine.Entrance
}

// doors are the open listeners, by name. A reload opens new ones before the document goes live, so that a port in use
// refuses the document, and closes those that are gone afterwards.
type doors struct {
	parts    *parts
	ctx      context.Context // of the accept loops; set by run before the first apply
	failed   chan error      // an accept loop that broke
	draining atomic.Bool

	mu   sync.Mutex
	open map[string]*door
	runs sync.WaitGroup
}

func newDoors(p *parts) *doors {
	return &doors{parts: p, failed: make(chan error, 1), open: map[string]*door{}}
}

// prepare opens the doors that the snapshot has and we have not. They take no connection before commit.
func (d *doors) prepare(s *engine.Snapshot) (fresh map[string]*door, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh = map[string]*door{}
	for _, name := range slices.Sorted(maps.Keys(s.Doors)) {
		if old := d.open[name]; old != nil && old.listener.Address() == s.Doors[name].Config.Address {
			continue
		}
		n, openErr := d.new(name, s.Doors[name])
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		fresh[name] = n
	}
	if err != nil {
		for _, n := range fresh {
			err = errors.Join(err, n.listener.Close())
		}
		return nil, err
	}
	return fresh, nil
}

func (d *doors) new(name string, config *engine.Door) (*door, error) {
	n := &door{entrance: &engine.Entrance{Engine: d.parts.engine}}
	n.entrance.Door.Store(config)
	n.server = &h1.Server{
		Handler: n.entrance, Sweeper: d.parts.sweeper, Clock: d.parts.clock, Log: d.parts.log.With("listener", name),
	}
	n.server.Limits.Store(wireLimits(&config.Config.Limits))
	l, err := listen.Open(name, config.Config.Address, n.server, openLimits(&config.Config.Limits), d.parts.log, d.parts.metrics)
	n.listener = l
	return n, err
}

func openLimits(l *model.ListenerLimits) listen.Limits {
	return listen.Limits{Connections: l.Connections, PerClient: l.ConnectionsPerClient}
}

func wireLimits(l *model.ListenerLimits) *h1.Limits {
	return &h1.Limits{
		Head: int(l.Head), Fields: l.HeaderFields, Target: int(l.Target), Body: int64(l.Body), HeadTime: l.HeaderTimeout,
		IdleTime: l.IdleTimeout, BodyTime: l.BodyTimeout, MinBodyRate: int64(l.MinBodyRate), Requests: l.RequestsPerConnection,
	}
}

// commit lets the fresh doors in, gives the others their new settings and closes those that the document no longer has.
func (d *doors) commit(s *engine.Snapshot, fresh map[string]*door) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, old := range d.open {
		config, kept := s.Doors[name]
		if _, moved := fresh[name]; kept && !moved {
			old.entrance.Door.Store(config)
			old.server.Limits.Store(wireLimits(&config.Config.Limits))
			old.listener.Configure(openLimits(&config.Config.Limits))
			continue
		}
		delete(d.open, name)
		d.closeDoor(old)
		old.server.Drain()
	}
	for name, n := range fresh {
		d.open[name] = n
		d.parts.log.Info("listening", "listener", name, "address", n.listener.Bound())
		d.runs.Go(func() {
			if err := n.listener.Run(d.ctx); err != nil {
				select {
				case d.failed <- err:
				default: // one is enough to stop
				}
			}
		})
	}
}

func (d *doors) closeDoor(n *door) {
	if err := n.listener.Close(); err != nil {
		d.parts.log.Warn("a listener did not close cleanly", "error", err)
	}
}

// drain stops gently: after the delay, in which readiness is false already, the doors close, connections end with their
// exchange, and those that have not at the timeout are cut off.
func (d *doors) drain(c model.Drain) {
	d.draining.Store(true)
	d.parts.log.Info("draining", "open", d.connections(), "timeout", c.Timeout)
	if c.Delay > 0 {
		<-time.After(c.Delay)
	}
	d.mu.Lock()
	all := slices.Collect(maps.Values(d.open))
	d.mu.Unlock()
	for _, n := range all {
		d.closeDoor(n)
		n.server.Drain()
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	var waits sync.WaitGroup
	for _, n := range all {
		waits.Go(func() {
			if cut := n.server.Wait(ctx); cut > 0 {
				d.parts.log.Warn("connections were cut off at the end of the drain", "listener", n.listener.Name, "connections", cut)
			}
		})
	}
	waits.Wait()
	d.runs.Wait()
}

func (d *doors) connections() (n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.open {
		n += o.listener.OpenConnections()
	}
	return n
}

// doorStatus is what operators see of a listener.
type doorStatus struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	Connections int64  `json:"connections"`
}

func (d *doors) status() []doorStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []doorStatus{}
	for _, name := range slices.Sorted(maps.Keys(d.open)) {
		l := d.open[name].listener
		list = append(list, doorStatus{name, l.Bound(), l.OpenConnections()})
	}
	return list
}
