package upstream

import (
	"errors"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream/balance"
	"headgate/gateway/upstream/pool"
	"headgate/gateway/wire/h1"
	"headgate/gateway/wire/h2/client"
)

// attempt is the way of one exchange to a reply.
type attempt struct {
	upstream *Upstream
	x        *exchange.Exchange
	began    time.Time
	took     time.Duration // until the last try had ended
	target   *target
	tried    *balance.Tried // nil: nobody yet
	call     *h1.Call
	shared   *client.Call // over HTTP/2
	overH2   bool         // the last try was
	whole    bool         // the request is in memory and can be sent again
}

func (a *attempt) run() (Call, error) {
	var err error
	for fresh, same := false, false; a.x.Usage.Attempts < a.most(); {
		if same && !a.target.gone.Load() {
			a.target.load.Begin(a.x.Shard, 0)
		} else if next, full := a.upstream.pick(a.x, a.tried); next != nil {
			a.target = next
		} else {
			if err == nil {
				err = noTarget(full)
			}
			break // nobody is left to ask
		}
		a.x.Usage.Attempts++
		var reused bool
		reused, err = a.try(fresh)
		a.target.load.Done(a.x.Shard)
		if err == nil {
			return a.take(), nil
		}
		if a.tried == nil {
			a.tried = new(balance.Tried)
		}
		a.tried.Add(a.target.load)
		if !a.again(err, reused) {
			break
		}
		fresh, same = fresh || reused && !a.unprocessed(), reused
	}
	a.drop()
	return nil, err
}

// noTarget is the error where no target can be asked. full: there would be one, if it had less to do.
func noTarget(full bool) error {
	code := exchange.NoTarget
	if full {
		code = exchange.UpstreamBusy
	}
	return &exchange.Error{Code: code, Source: exchange.FromGateway}
}

// most bounds the tries. What a target says that it did not process costs it nothing, and is tried more often: every
// connection of a target that restarts may say so.
func (a *attempt) most() int {
	if a.unprocessed() {
		return maxRefused
	}
	return maxAttempts
}

// take returns the call that has its reply. The other one, of a target that has changed what it speaks, is of no use.
func (a *attempt) take() Call {
	if !a.overH2 {
		if a.shared != nil {
			a.shared.Close()
		}
		return a.call
	}
	if a.call != nil {
		a.call.Close()
	}
	return a.shared
}

// drop ends what has not led to a reply.
func (a *attempt) drop() {
	if a.call != nil {
		a.call.Close()
	}
	if a.shared != nil {
		a.shared.Close()
	}
}

// try makes one call on an idle connection or, with fresh or when there is none, on a new one.
func (a *attempt) try(fresh bool) (reused bool, err error) {
	t, x := a.target, a.x
	p := t.pool.Load()
	if p.Shares() {
		return a.tryMux(p, fresh)
	}
	var conn *h1.Conn
	if !fresh {
		conn = p.Take(x.Shard)
	}
	before := a.took // by tries that were another target's doing
	if reused = conn != nil; !reused {
		conn, err = p.Dial(x)
	}
	if err == nil {
		err = a.ask(p, conn)
	}
	a.learn(err, reused, before)
	return reused, err
}

// ask makes the call over HTTP/1.1.
func (a *attempt) ask(p *pool.Pool, conn *h1.Conn) error {
	if a.call == nil {
		a.call = h1.NewCall(&a.target.plan)
		a.whole = a.call.Prepare(a.x)
	}
	a.overH2 = false
	return a.call.Do(a.x, conn, p.Owner(a.x.Shard), a.whole)
}

// learn judges the target by how a try went.
func (a *attempt) learn(err error, reused bool, before time.Duration) {
	a.took = a.upstream.env.Clock.Now().Sub(a.began)
	a.target.judge(a.x, err, reused, a.took-before)
}

// again reports whether the exchange may be tried once more: nothing was done yet, because no connection was made, or
// because a reused one died before a byte of a reply, the whole request is at hand, and it may be repeated
// (RFC 9110 section 9.2.2), or because the target has said so.
func (a *attempt) again(err error, reused bool) bool {
	var e *exchange.Error
	if !errors.As(err, &e) || !e.Retry {
		return false
	}
	targets := len(a.upstream.set.Load().targets)
	switch e.Code { // not sent there: worth a try where there is somebody else to ask
	case exchange.UpstreamUnreachable, exchange.UpstreamBusy:
		return (targets > 1 || a.target.gone.Load()) && a.suitsAll()
	case exchange.UpstreamUntrusted: // which will not be another answer the second time
		return a.x.Usage.Attempts < targets && a.suitsAll()
	}
	if a.unprocessed() {
		return a.shared.Repeatable()
	}
	return reused && a.repeatable() && !a.hasBegun() && idempotent(a.x.Request.Method)
}

// unprocessed reports whether the target has said that it did nothing about the last try, whatever the method.
func (a *attempt) unprocessed() bool { return a.overH2 && a.shared.Unprocessed() }

func (a *attempt) repeatable() bool {
	if a.overH2 {
		return a.shared.Repeatable()
	}
	return a.whole
}

func (a *attempt) hasBegun() bool {
	if a.overH2 {
		return a.shared.Begun()
	}
	return a.call != nil && a.call.Begun()
}

// suitsAll reports whether another target may be asked the same: the prepared request, if there is one, names none.
func (a *attempt) suitsAll() bool {
	if a.call == nil && a.shared == nil {
		return true
	}
	return a.upstream.config.Host != "target" && a.x.Request.Host != ""
}

func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}
