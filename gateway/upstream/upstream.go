// Package upstream is where requests go: the targets of a service, how one is chosen, its idle connections and its health.
package upstream

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
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
}

// Upstream is a service: its targets, ready to be asked. It outlives reloads that do not change it.
type Upstream struct {
	Name       string
	config     model.Upstream
	env        Env
	targets    []*target
	balance    balancer
	probes     *probes
	handshakes handshakes
	identity   atomic.Pointer[identity]
	renewing   sync.Mutex // held while the identity is replaced
	closed     bool       // under renewing
}

const (
	// maxReplyHead and maxReplyFields bound the head of a reply: a service that sends more is broken or hostile.
	maxReplyHead   = 64 << 10
	maxReplyFields = 250
	// maxAttempts bounds how often one exchange tries to reach a target, each time because nothing had been done yet: a
	// reused connection that had died, its target that is gone, and another one that is gone with it, leave one more.
	maxAttempts = 4
)

var replyLimits = h1.Limits{Head: maxReplyHead, Fields: maxReplyFields}

// New wires an upstream: no connection is made and no goroutine started, but the files that it names are read. Errors
// point into the upstream's document.
func New(name string, m model.Upstream, env Env) (*Upstream, error) {
	u := &Upstream{Name: name, config: m, env: env, handshakes: handshakes{name, env.Metrics}}
	ends, err := readTargets(&m)
	id, tlsErr := readIdentity(m.TLS)
	if err := errors.Join(err, tlsErr, check(&m, ends)); err != nil {
		return nil, err
	}
	u.identity.Store(id)
	for i, t := range m.Targets {
		u.targets = append(u.targets, newTarget(u, t, ends[i]))
	}
	u.balance = newBalancer(m.Balance, u.targets, rand.Uint64)
	if m.Health != nil {
		u.probes = &probes{upstream: u}
	}
	return u, nil
}

// Start begins what runs beside the requests: probes and metrics. It is called when a document that uses the upstream
// goes live; calling it again makes the metrics of that name its own.
func (u *Upstream) Start() {
	u.env.Metrics.Collect("upstream/"+u.Name, u.collect)
	if u.probes != nil {
		u.probes.start()
	}
}

// Close stops the probes and closes idle connections. Calls that still run end by themselves.
func (u *Upstream) Close() error {
	if u.probes != nil {
		u.probes.stop()
	}
	u.env.Metrics.Collect("upstream/"+u.Name, nil)
	for _, t := range u.targets {
		t.pool.Load().close()
	}
	return nil
}

// Tidy closes connections that have been idle for too long; it is called every few seconds.
func (u *Upstream) Tidy() {
	for _, t := range u.targets {
		t.pool.Load().prune(u.env.Sweeper.Coarse() - u.config.Pool.IdleTimeout)
	}
}

// Call is a request that an upstream is answering. Close ends it, whether or not its reply was read to the end.
type Call interface{ Close() }

// Send asks a target and fills x.Reply up to its head; the body is read from it afterwards. Close the call at the end of
// the exchange. The error is always an *exchange.Error, and then there is no call.
func (u *Upstream) Send(x *exchange.Exchange) (Call, error) {
	began := u.env.Clock.Now()
	x.Usage.UpstreamStart = began.Sub(x.Start)
	a := attempt{upstream: u, x: x, began: began}
	call, err := a.run()
	if a.target != nil {
		x.Usage.Target = a.target.end.address
	}
	x.Usage.UpstreamTime = a.took
	if err != nil {
		return nil, err
	}
	return call, nil
}

// attempt is the way of one exchange to a reply.
type attempt struct {
	upstream *Upstream
	x        *exchange.Exchange
	began    time.Time
	took     time.Duration // until the last try had ended
	target   *target
	call     *h1.Call
	whole    bool // the request is in memory and can be sent again
}

func (a *attempt) run() (*h1.Call, error) {
	var err error
	for fresh, same := false, false; a.x.Usage.Attempts < maxAttempts; {
		previous := a.target
		if a.target = a.upstream.balance.pick(a.upstream.env.Sweeper.Coarse(), previous, same); a.target == nil {
			err = &exchange.Error{Code: exchange.NoTarget, Source: exchange.FromGateway}
			break
		}
		if a.target == previous && !same { // it has just failed, and there is nobody else to ask
			break
		}
		a.x.Usage.Attempts++
		var reused bool
		if reused, err = a.try(fresh); err == nil {
			return a.call, nil
		}
		if !a.again(err, reused) {
			break
		}
		fresh, same = fresh || reused, reused
	}
	if a.call != nil {
		a.call.Close()
	}
	return nil, err
}

// try makes one call on an idle connection or, with fresh or when there is none, on a new one.
func (a *attempt) try(fresh bool) (reused bool, err error) {
	t, x := a.target, a.x
	p := t.pool.Load()
	var conn *h1.Conn
	if !fresh {
		conn = p.idle.take(x.Shard, a.upstream.env.Sweeper.Coarse()-a.upstream.config.Pool.IdleTimeout)
	}
	before := a.took // by tries that were another target's doing
	t.inFlight.Add(1)
	if reused = conn != nil; !reused {
		conn, err = p.dial(x)
	}
	if err == nil {
		if a.call == nil {
			a.call = h1.NewCall(&t.plan)
			a.whole = a.call.Prepare(x)
		}
		err = a.call.Do(x, conn, p.ownerOf(x.Shard), a.whole)
	}
	t.inFlight.Add(-1)
	a.took = a.upstream.env.Clock.Now().Sub(a.began)
	t.judge(x, err, reused, a.took-before)
	return reused, err
}

// again reports whether the exchange may be tried once more: nothing was done yet, because no connection was made, or
// because a reused one died before a byte of a reply, the whole request is at hand, and it may be repeated
// (RFC 9110 section 9.2.2).
func (a *attempt) again(err error, reused bool) bool {
	var e *exchange.Error
	if !errors.As(err, &e) || !e.Retry {
		return false
	}
	targets := len(a.upstream.targets)
	switch e.Code { // not sent there: worth a try where there is somebody else to ask
	case exchange.UpstreamUnreachable:
		return targets > 1 && (a.call == nil || a.suitsAll())
	case exchange.UpstreamUntrusted: // which will not be another answer the second time
		return a.x.Usage.Attempts < targets && (a.call == nil || a.suitsAll())
	}
	return reused && a.whole && !a.call.Begun() && idempotent(a.x.Request.Method)
}

// suitsAll reports whether the prepared request names no target of its own, so that another one may be asked the same.
func (a *attempt) suitsAll() bool {
	return a.upstream.config.Host != "target" && a.x.Request.Host != ""
}

func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}
