package policy

import (
	"context"
	"io"
	"strings"

	"headgate/gateway/exchange"
)

// Group makes one policy of several: with all, each must let the exchange go on; without, the first that does is enough,
// and when none does the caller gets the refusal that says most, with every way to log in listed in WWW-Authenticate.
func Group(members []*Instance, all bool, at exchange.Slot[*Paused]) Hooks {
	g := group{members, all, at}
	h := Hooks{Request: Step{Now: g.now, Later: g.later}}
	chain := NewChain(members)
	if len(chain.strip) > 0 {
		h.Strip = chain.stripAll
	}
	if len(chain.requestBody) > 0 {
		h.RequestBody = func(x *exchange.Exchange, r io.Reader) io.Reader { return chain.RequestBody(x, r) }
	}
	if len(chain.response) > 0 {
		h.Response.Now = func(x *exchange.Exchange) Verdict { chain.Response(x); return Continue }
	}
	if len(chain.responseBody) > 0 {
		h.ResponseBody = func(x *exchange.Exchange, r io.Reader) io.Reader { return chain.ResponseBody(x, r) }
	}
	if len(chain.done) > 0 {
		h.Done = chain.Done
	}
	h.Close, h.BufferLimit = chain.Close, chain.bufferLimit
	return h
}

type group struct {
	members []*Instance
	all     bool
	at      exchange.Slot[*Paused]
}

// Paused is how far a group had come when one of its members asked to wait.
type Paused struct {
	member int
	best   refusal // of the members before it
}

// waiter asks a step that must wait, under the context that the group was given.
type waiter func(later func(context.Context, *exchange.Exchange) Verdict) Verdict

func (g *group) now(x *exchange.Exchange) Verdict { return g.ask(x, 0, refusal{}, nil) }

func (g *group) later(ctx context.Context, x *exchange.Exchange) Verdict {
	wait := func(later func(context.Context, *exchange.Exchange) Verdict) Verdict { return later(ctx, x) }
	p, ok := g.at.Get(x)
	if !ok {
		return g.ask(x, 0, refusal{}, wait)
	}
	return g.ask(x, p.member, p.best, wait)
}

// ask goes through the members from one on. Without a way to wait it stops at the first that must; going on from there
// repeats only that member's Now. A member without a request step has no say.
func (g *group) ask(x *exchange.Exchange, from int, best refusal, wait waiter) Verdict {
	for n, m := range g.members[from:] {
		step := &m.Hooks.Request
		if (step.Now == nil && step.Later == nil) || !m.applies(x) {
			continue
		}
		v := Wait
		if step.Now != nil {
			v = step.Now(x)
		}
		if v.Waits() && step.Later != nil {
			if wait == nil {
				g.at.Set(x, &Paused{from + n, best})
				return Wait
			}
			v = wait(step.Later)
		}
		if v.Continues() != g.all { // any: the first yes; all: the first no
			return g.decide(x, v, &best)
		}
		if !g.all {
			best.consider(x, v)
		}
	}
	if g.all {
		return Continue
	}
	return best.verdict(x)
}

func (g *group) decide(x *exchange.Exchange, v Verdict, best *refusal) Verdict {
	if !g.all && best.any {
		unanswer(x)
	}
	return v
}

// unanswer takes back what a refusal that does not count has left.
func unanswer(x *exchange.Exchange) {
	x.Reply.Header.Reset("")
	x.Reply.Status, x.Reply.Source, x.Reply.Body, x.Err = 0, 0, exchange.Body{}, nil
}

// refusal is the most telling of several: a wrong credential says more than a missing one.
type refusal struct {
	any        bool
	reply      exchange.Reply
	err        *exchange.Error
	failure    error
	challenges []string
}

func (r *refusal) consider(x *exchange.Exchange, v Verdict) {
	if v.err != nil {
		r.failure = v.err
		return
	}
	for challenge := range x.Reply.Header.Values("WWW-Authenticate") {
		r.challenges = append(r.challenges, challenge)
	}
	if !r.any || (x.Err != nil && r.err != nil && !strings.HasSuffix(x.Err.Code.Name, "_missing") &&
		strings.HasSuffix(r.err.Code.Name, "_missing")) {
		r.any, r.err = true, x.Err
		r.reply = exchange.Reply{Status: x.Reply.Status, Source: x.Reply.Source, Body: x.Reply.Body}
		r.reply.Header.CopyFrom(&x.Reply.Header)
	}
}

func (r *refusal) verdict(x *exchange.Exchange) Verdict {
	switch {
	case r.failure != nil:
		unanswer(x)
		return Fail(r.failure)
	case !r.any:
		return Continue // no member applied
	}
	x.Err = r.err
	x.Reply.Status, x.Reply.Source, x.Reply.Body = r.reply.Status, r.reply.Source, r.reply.Body
	x.Reply.Header.CopyFrom(&r.reply.Header)
	x.Reply.Header.Del("WWW-Authenticate")
	for _, challenge := range r.challenges {
		x.Reply.Header.Add("WWW-Authenticate", challenge)
	}
	return Answered
}
