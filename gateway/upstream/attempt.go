package upstream

import (
	"bytes"
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
	number   int            // of targets asked, the same one twice counted twice
	held     *bytes.Reader  // the request's body from its beginning, if it may have to be sent again; nil: it is not kept
	run      *run           // of a race; nil: it is none
	once     bool           // there is one attempt only
	call     *h1.Call
	shared   *client.Call // over HTTP/2
	overH2   bool         // the last try was
	whole    bool         // the request is in memory and can be sent again
}

// answer gets a reply to the exchange, in as many attempts as it may have.
func (a *attempt) answer() (Call, error) {
	a.upstream.retries.budget.Request(a.x.Shard, a.upstream.coarse())
	if err := a.hold(); err != nil {
		return nil, err
	}
	if a.hedgeable() {
		return a.raced()
	}
	return a.tries()
}

// tries asks one target after another until there is an answer, or no other attempt is right.
func (a *attempt) tries() (Call, error) {
	x, u := a.x, a.upstream
	full := false
	if a.target, full = u.pick(x, a.tried); a.target == nil {
		return nil, noTarget(full)
	}
	for a.number = 1; ; {
		if a.run != nil {
			a.run.at.Store(a.target)
		}
		err := a.ask()
		switch {
		case err == nil && !u.retries.failed(x):
			return a.take(), nil
		case !a.once && a.again(err):
		case err == nil:
			return a.take(), nil
		default:
			a.drop()
			return nil, err
		}
	}
}

// ask asks the target: once more where a connection turns out to have been closed, or where the target says that it has
// not processed the request.
func (a *attempt) ask() error {
	for fresh := false; ; a.target.load.Begin(a.x.Shard, 0) {
		a.x.Usage.Attempts++
		reused, err := a.try(fresh)
		a.target.load.Done(a.x.Shard)
		if err == nil || a.target.gone.Load() || !a.reconnects(err, reused) {
			return err
		}
		fresh = fresh || reused && !a.unprocessed()
	}
}

// reconnects reports whether the target may be asked again on another connection: a reused one died before a byte of a reply,
// the whole request is at hand, and it may be repeated (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1), or the target has
// said that it did nothing about it, whatever the method. Every connection of a target that restarts may say so.
func (a *attempt) reconnects(err error, reused bool) bool {
	var e *exchange.Error
	if !errors.As(err, &e) || !e.Retry || e.Code != exchange.UpstreamClosed {
		return false
	}
	if a.unprocessed() {
		return a.x.Usage.Attempts < maxRefused && a.shared.Repeatable()
	}
	x := a.x
	return reused && a.repeatable() && !a.hasBegun() && a.upstream.retries.rules.Repeats(x.Request.Method, hasKey(x))
}

// noTarget is the error where no target can be asked. full: there would be one, if it had less to do.
func noTarget(full bool) error {
	code := exchange.NoTarget
	if full {
		code = exchange.UpstreamBusy
	}
	return &exchange.Error{Code: code, Source: exchange.FromGateway}
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
		err = a.onConn(p, conn)
	}
	a.learn(err, reused, before)
	return reused, err
}

// onConn makes the call over HTTP/1.1.
func (a *attempt) onConn(p *pool.Pool, conn *h1.Conn) error {
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
	a.target.judge(a.x, err, reused, max(a.took-before-a.uploaded(err), 0))
}

// uploaded returns how much of the last try was spent on a request's body that was still coming: a client that takes its time must
// not make the target look slow.
func (a *attempt) uploaded(err error) time.Duration {
	switch {
	case err != nil:
		return 0
	case a.overH2:
		return a.shared.Uploaded()
	}
	return a.call.Uploaded()
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
