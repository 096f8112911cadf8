package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/gateway/engine"
	"headgate/gateway/exchange"
	"headgate/gateway/listen"
	"headgate/gateway/listen/proxyheader"
	"headgate/gateway/tcp"
	"headgate/gateway/wire/h1"
	"headgate/gateway/wire/h2"
	"headgate/internal/metric"
)

// door is one listener with the servers behind it.
type door struct {
	listener *listen.Listener
	entrance *engine.Entrance
	h1       *h1.Server
	h2       *h2.Server
	tcp      *tcp.Server
	metrics  *metric.Registry
	servers  []server      // all of them, h1 first
	accepts  chan struct{} // closed when its accept loop has ended
}

// server carries the connections of one protocol.
type server interface {
	// Announce makes every reply from now on the last one of its connection, which it says.
	Announce()
	// Drain makes every connection end after what it carries, idle ones at once.
	Drain()
	// Wait returns when every connection has ended; those that have not when the context is done are cut off.
	Wait(ctx context.Context) (cut int)
}

// doors are the open listeners, by address, so that one may get another name. A reload opens new ones before the document
// goes live, so that a port in use refuses the document, and closes those that are gone afterwards.
type doors struct {
	parts    *parts
	ctx      context.Context // of the accept loops; set by run before the first apply
	failed   chan error      // an accept loop that broke
	draining atomic.Bool

	mu      sync.Mutex
	open    map[string]*door
	leaving map[*door]bool // closed by a reload; they still have connections
	quic    map[string]*quicDoor
	parting map[*quicDoor]bool
	runs    sync.WaitGroup
}

// fresh are the doors that a snapshot has and we have not: open already, so that a port in use refuses the document.
type fresh struct {
	doors map[string]*door
	quic  map[string]*quicDoor
}

// discard closes doors that were never run.
func (f *fresh) discard() (err error) {
	for _, n := range f.doors {
		err = errors.Join(err, n.listener.Close())
	}
	for _, n := range f.quic {
		n.discard()
	}
	return err
}

func newDoors(p *parts) *doors {
	d := &doors{
		parts: p, failed: make(chan error, 1), open: map[string]*door{}, leaving: map[*door]bool{},
		quic: map[string]*quicDoor{}, parting: map[*quicDoor]bool{},
	}
	p.metrics.Collect("listeners", d.collect)
	return d
}

// prepare opens the doors that the snapshot has and we have not. They take no connection before commit.
func (d *doors) prepare(s *engine.Snapshot) (*fresh, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &fresh{doors: map[string]*door{}}
	var err error
	for _, name := range slices.Sorted(maps.Keys(s.Doors)) {
		address := s.Doors[name].Config.Address
		if d.open[address] != nil {
			continue
		}
		n, openErr := d.new(name, s.Doors[name])
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		f.doors[address] = n
	}
	if err == nil {
		f.quic, err = d.prepareQUIC(s, f.doors)
	}
	if err != nil {
		return nil, errors.Join(err, f.discard())
	}
	return f, nil
}

func (d *doors) new(name string, config *engine.Door) (*door, error) {
	n := &door{entrance: &engine.Entrance{Engine: d.parts.engine}, accepts: make(chan struct{})}
	n.h1 = &h1.Server{
		Handler: n.entrance, Sweeper: d.parts.sweeper, Clock: d.parts.clock, Log: d.parts.log.With("address", config.Config.Address),
	}
	n.tcp = tcp.New(engine.Stream{Entrance: n.entrance}, d.parts.clock, n.h1.Log, d.parts.metrics)
	n.h2 = &h2.Server{
		Handler: n.entrance, Sweeper: d.parts.sweeper, Clock: d.parts.clock, Log: n.h1.Log, Metrics: h2.NewMetrics(d.parts.metrics),
	}
	n.servers, n.metrics = []server{n.h1, n.h2, n.tcp}, d.parts.metrics
	l, err := listen.Open(name, config.Config.Address, listen.Env{
		Sweeper: d.parts.sweeper, Log: d.parts.log, Metrics: d.parts.metrics, Rooms: d.parts.guard.Rooms,
	})
	if err != nil {
		return nil, err
	}
	n.listener = l
	n.configure(name, config)
	return n, nil
}

// configure gives the door the settings of a document. Open connections stay as they are.
func (n *door) configure(name string, config *engine.Door) {
	n.entrance.Door.Store(stillForgotten(n.entrance.Door.Load(), config))
	limits := wireLimits(&config.Config.Limits)
	n.h1.Limits.Store(limits)
	n.h2.Limits.Store(limits)
	var prior *h1.Prior
	if config.TLS == nil && speaks(config, "h2") {
		p := h1.Prior(n.h2.Serve)
		prior = &p
	}
	n.h1.Prior.Store(prior)
	n.configureTCP(name, config)
	n.listener.Configure(name, openLimits(&config.Config.Limits), n.greeting(config))
}

// greeting is what a connection of the door goes through before it is served, and by whom.
func (n *door) greeting(config *engine.Door) *listen.Greeting {
	g := &listen.Greeting{TLS: handshake(config), Server: n.chooser(config)}
	if config.TCP != nil {
		g.Wordless, g.Server = true, func(*exchange.Client) listen.Server { return n.tcp }
	}
	if p := config.Config.Proxy; p != nil {
		o := proxyheader.Options{From: config.Balancers, Optional: p.Optional, Timeout: p.Timeout}
		gate := proxyheader.New(config.Name, o, n.metrics)
		g.Proxy, g.Balancer = gate.Greet, gate.Sends
	}
	return g
}

// chooser returns who carries a connection of HTTP: what the client agreed on, or the one version that is spoken.
func (n *door) chooser(config *engine.Door) func(*exchange.Client) listen.Server {
	if !speaks(config, "h1") {
		return func(*exchange.Client) listen.Server { return n.h2 }
	}
	return func(client *exchange.Client) listen.Server {
		if client.TLS != nil && client.TLS.ALPN == "h2" {
			return n.h2
		}
		return n.h1
	}
}

// speaks reports whether a door speaks a version of HTTP, by its name in the document.
func speaks(config *engine.Door, version string) bool {
	spoken := config.Config.Protocols
	return len(spoken) == 0 && version != "h3" || slices.Contains(spoken, version)
}

// handshake returns the step that encrypts a connection; nil: the door is in clear.
func handshake(config *engine.Door) listen.Step {
	if config.TLS == nil {
		return nil
	}
	return config.TLS.Greet
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
func (d *doors) commit(s *engine.Snapshot, f *fresh) {
	d.mu.Lock()
	defer d.mu.Unlock()
	stay := map[string]bool{}
	for name, config := range s.Doors {
		address := config.Config.Address
		stay[address] = true
		if old := d.open[address]; old != nil {
			old.configure(name, config)
		}
	}
	for address, old := range d.open {
		if !stay[address] {
			delete(d.open, address)
			d.leave(old)
		}
	}
	for address, n := range f.doors {
		d.open[address] = n
		d.parts.log.Info("listening", "listener", n.listener.Name(), "address", n.listener.Bound())
		d.runs.Go(func() {
			defer close(n.accepts)
			d.broke(n.listener.Run(d.ctx))
		})
	}
	d.commitQUIC(s, f.quic)
}

// broke stops the gateway when an accept loop has ended with an error.
func (d *doors) broke(err error) {
	if err == nil {
		return
	}
	select {
	case d.failed <- err:
	default: // one is enough to stop
	}
}

// leave closes a door that the document no longer has. What came through it may take as long as it needs, until a drain.
func (d *doors) leave(n *door) {
	d.leaving[n] = true
	d.closeDoor(n)
	d.runs.Go(func() {
		n.wait(context.Background())
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.leaving, n)
	})
}

// closeDoor lets nobody in any more and makes connections end with their exchange.
func (d *doors) closeDoor(n *door) {
	if err := n.listener.Close(); err != nil {
		d.parts.log.Warn("a listener did not close cleanly", "error", err)
	}
	<-n.accepts
	for _, s := range n.servers {
		s.Drain()
	}
}

// wait returns when every connection of a closed door has ended, or has been cut off when the context is done. The servers
// are waited for in their order, since h1 hands those over to h2 that begin with its preface.
func (n *door) wait(ctx context.Context) (cut int) {
	n.listener.Settle(ctx)
	for _, s := range n.servers {
		cut += s.Wait(ctx)
	}
	return cut
}

// drain stops gently: after the delay, in which readiness is false already, the doors close, connections end with their
// exchange, and those that have not at the timeout are cut off.
func (d *doors) drain(c model.Drain) {
	d.parts.log.Info("draining", "open", d.connections(), "timeout", c.Timeout)
	d.mu.Lock()
	for _, n := range d.open {
		n.entrance.Door.Store(n.entrance.Door.Load().WithAltSvc(""))
		for _, s := range n.servers {
			s.Announce()
		}
	}
	for _, n := range d.quic {
		n.Announce()
	}
	d.mu.Unlock()
	if c.Delay > 0 {
		<-time.After(c.Delay)
	}
	d.mu.Lock()
	for _, n := range d.open {
		d.closeDoor(n)
	}
	all := slices.AppendSeq(slices.Collect(maps.Values(d.open)), maps.Keys(d.leaving))
	quic := d.leaveQUIC()
	d.mu.Unlock()
	ctx, cancel := d.deadline(c.Timeout)
	defer cancel()
	var waits sync.WaitGroup
	for _, n := range all {
		waits.Go(func() {
			if cut := n.wait(ctx); cut > 0 {
				d.parts.log.Warn("connections were cut off at the end of the drain", "listener", n.listener.Name(), "connections", cut)
			}
		})
	}
	for _, n := range quic {
		waits.Go(func() {
			if cut := n.Wait(ctx); cut > 0 {
				d.parts.log.Warn("connections were cut off at the end of the drain", "listener", n.Name(), "protocol", "h3", "connections", cut)
			}
		})
	}
	waits.Wait()
	d.runs.Wait()
}

// farewellTime is how much longer than the drain's timeout WebSockets have to answer the close frame that they get at it.
const farewellTime = time.Second

// deadline returns a context that is done when what has not ended is to be cut off: at the timeout or, where connections
// are switched to another protocol then, when these have been told so and have had a moment to close.
func (d *doors) deadline(timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	late := time.AfterFunc(timeout, func() {
		defer cancel()
		if n := d.parts.tunnels.Len(); n > 0 {
			d.parts.log.Warn("switched connections, such as WebSockets, are closed at the end of the drain", "connections", n)
			answers, stop := context.WithTimeout(ctx, farewellTime)
			defer stop()
			d.parts.tunnels.Farewell(answers)
		}
	})
	return ctx, func() { late.Stop(); cancel() }
}

func (d *doors) connections() (n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.open {
		n += o.listener.OpenConnections()
	}
	for o := range d.leaving {
		n += o.listener.OpenConnections()
	}
	for _, q := range d.quic {
		n += q.OpenConnections()
	}
	for q := range d.parting {
		n += q.OpenConnections()
	}
	return n
}

func (d *doors) collect(emit metric.Emit) {
	for _, s := range d.status() {
		emit("headgate_connections_open", "Connections open now.", metric.TypeGauge, float64(s.Connections),
			metric.Label{Name: "listener", Value: s.Name})
	}
}

// doorStatus is what operators see of a listener.
type doorStatus struct {
	Name        string      `json:"name"`
	Address     string      `json:"address"`
	Connections int64       `json:"connections"`
	TCP         []tcpStatus `json:"tcp,omitempty"`
}

func (d *doors) status() []doorStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []doorStatus{}
	for address, o := range d.open {
		n := o.listener.OpenConnections()
		if q := d.quic[address]; q != nil {
			n += q.OpenConnections()
		}
		list = append(list, doorStatus{o.listener.Name(), o.listener.Bound(), n, tcpStatuses(o.entrance.Door.Load().TCP)})
	}
	slices.SortFunc(list, func(a, b doorStatus) int { return strings.Compare(a.Name, b.Name) })
	return list
}
