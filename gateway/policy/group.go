package policy

import (
	"context"
	"io"
	"strings"

	"headgate/gateway/exchange"
)

// Group makes one policy of several: with all, each must let the exchange go on; without, the first that does is enough,
// and when none does the caller gets the refusal that says most, with every way to log in listed in WWW-Authenticate.
func Group(members []*Instance, all bool, at exchange.Slot[int]) Hooks {
	g := group{members, all, at}
	h := Hooks{Request: Step{Now: g.now, Later: g.later}}
	chain := NewChain(members)
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
	at      exchange.Slot[int] // the member that asked to wait
}

func (g *group) now(x *exchange.Exchange) Verdict { return g.ask(nil, x, 0) }

func (g *group) later(ctx context.Context, x *exchange.Exchange) Verdict {
	from, _ := g.at.Get(x)
	return g.ask(ctx, x, from)
}

// ask goes through the members from one on. Without a context it stops at the first that must wait. A restart repeats
// only that member's Now; the refusals of members before it are gathered anew only in so far as they came after it,
// which matters to nobody: the reply is made from those that are left.
func (g *group) ask(ctx context.Context, x *exchange.Exchange, from int) Verdict {
	var best refusal
	for n, m := range g.members[from:] {
		if !m.applies(x) {
			continue
		}
		step := &m.Hooks.Request
		v := Wait
		if step.Now != nil {
			v = step.Now(x)
		}
		if v.Waits() {
			if ctx == nil {
				g.at.Set(x, from+n)
				return Wait
			}
			v = step.Later(ctx, x)
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
		x.Reply.Header.Reset("")
		x.Reply.Status, x.Reply.Body, x.Err = 0, exchange.Body{}, nil
	}
	return v
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
