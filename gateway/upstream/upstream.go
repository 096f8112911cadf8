// Package upstream is where requests go: the targets of a service, how one is chosen, its idle connections and its health.
package upstream

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/upstream/balance"
	"headgate/gateway/upstream/discover"
	"headgate/gateway/upstream/gate"
	"headgate/gateway/upstream/health"
	"headgate/gateway/upstream/pool"
	"headgate/gateway/wire/h1"
	"headgate/internal/clock"
	"headgate/internal/metric"
	"headgate/internal/sock"
)

// Env is what an upstream needs besides its part of the document.
type Env struct {
	Sweeper *sock.Sweeper
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics *metric.Registry
	// Discovered keeps the last good answers of discovery; nil: nobody does.
	Discovered *discover.Store
	Expr       Expressions
	Zone       string // the gateway's own; "": not known
	// Respond is what the document's fallback answers, compiled; nil: it has none.
	Respond func(*exchange.Exchange)
}

// Upstream is a service: its targets, ready to be asked. It outlives reloads that do not change it.
type Upstream struct {
	Name     string
	config   model.Upstream
	env      Env
	set      atomic.Pointer[set]
	raw      bool               // carries bytes and no HTTP
	finder   *discover.Follower // nil: the targets stand in the document
	total    *balance.Total     // of requests under way
	health   *health.Group
	key      func(*exchange.Exchange) string
	retries  retries
	hedging  *hedging    // nil: one target is asked at a time
	pools    *pool.Group // of all targets
	identity atomic.Pointer[pool.Identity]
	refs     map[string]*Ref // to upstreams that the document mentions, by name
	loans    loans           // to those that mention this one
	gate     *gate.Gate      // nil: everybody passes
	changing sync.Mutex      // held while the identity, the set or what is watched is replaced
	closed   bool            // under changing, as is
	watching bool            // whether targets are probed
}

const (
	// maxReplyHead and maxReplyFields bound the head of a reply: a service that sends more is broken or hostile.
	maxReplyHead   = 64 << 10
	maxReplyFields = 250
	// maxAttempts bounds how many targets one TCP connection is tried to be opened to.
	maxAttempts = 4
	// maxRefused bounds how often a request is sent where a target says each time that it did not process it (GOAWAY,
	// REFUSED_STREAM): a restart of it may close one connection after another.
	maxRefused = 16
)

var replyLimits = h1.Limits{Head: maxReplyHead, Fields: maxReplyFields}

// New wires an upstream: no connection is made and no goroutine started, but the files that it names are read. Errors
// point into the upstream's document.
func New(name string, m model.Upstream, env Env) (*Upstream, error) {
	u := &Upstream{Name: name, config: m, env: env, refs: refsOf(&m), total: new(balance.Total)}
	u.pools = pool.NewGroup(pool.Settings{
		Upstream: name, Sweeper: env.Sweeper, Clock: env.Clock, Metrics: env.Metrics,
		Protocol: m.Protocol, Proxy: m.Proxy, Connect: m.Timeouts.Connect, Pool: m.Pool, HTTP2: m.HTTP2,
	})
	u.gate = gate.New(&m, env.Clock)
	ends, err := readTargets(&m)
	id, tlsErr := pool.ReadIdentity(m.TLS)
	key, keyErr := checkBalance(&m, env.Expr)
	list, notFound := u.seek()
	again, againErr := newRetries(name, &m.Retry, env.Metrics)
	u.retries, u.hedging = again, newHedging(name, m.Hedge, env.Metrics)
	if err := errors.Join(err, tlsErr, keyErr, againErr, check(&m, expected(&m, ends)), checkDiscover(&m), notFound); err != nil {
		return nil, err
	}
	u.identity.Store(id)
	u.key = key
	if u.health, err = u.newHealth(); err != nil {
		return nil, err
	}
	for i, t := range m.Targets {
		list = append(list, wanted{ends[i], t.Weight, t.Priority, t.Zone})
	}
	u.raw = expected(&m, ends)[0].Raw
	targets := make([]*target, len(list))
	for i, w := range list {
		targets[i] = newTarget(u, w.end)
	}
	s, err := u.newSet(targets, list)
	if err != nil {
		return nil, decode.At("targets", "%w", err)
	}
	u.adopt(s)
	return u, nil
}

// Start begins what runs beside the requests: probes and metrics. It is called when a document that uses the upstream
// goes live; calling it again makes the metrics of that name its own.
func (u *Upstream) Start() {
	u.loans.over.Store(false)
	u.renew()
	u.warn()
	u.env.Metrics.Collect("upstream/"+u.Name, u.collect)
	u.watch()
	u.find()
}

// Close stops the probes and closes idle connections, once nobody has borrowed the upstream any more. Calls that still run
// end by themselves.
func (u *Upstream) Close() error {
	if u.finder != nil {
		u.finder.Stop()
	}
	u.env.Metrics.Collect("upstream/"+u.Name, nil)
	u.loans.over.Store(true)
	u.shutUnlent()
	return nil
}

// Tidy closes connections that have been idle for too long and looks whether files of certificates have changed; it is
// called every few seconds.
func (u *Upstream) Tidy() {
	u.renew()
	u.health.Tidy()
	for _, t := range u.set.Load().targets {
		t.pool.Load().Tidy()
	}
}
