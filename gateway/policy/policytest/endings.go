package policytest

import (
	"errors"
	"io"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// ending is one way in which an exchange can end.
type ending struct {
	name     string
	before   policy.Step // a policy in front of the one that is tested
	after    policy.Step // one behind it
	upstream Upstream
	cancel   bool // the client is gone before anything runs
}

func endings() []ending {
	bomb := policy.Step{Now: func(*exchange.Exchange) policy.Verdict { panic("another policy panics") }}
	refuse := policy.Step{Now: func(x *exchange.Exchange) policy.Verdict { return policy.Refuse(x, exchange.BadRequest, "") }}
	return []ending{
		{name: "a reply", upstream: echo},
		{name: "a refusal by a policy in front", before: refuse, upstream: echo},
		{name: "a refusal by a policy behind", after: refuse, upstream: echo},
		{name: "an upstream that fails", upstream: func(x *exchange.Exchange, _ []byte) {
			x.Problem(exchange.UpstreamUnreachable, "")
			x.Err = &exchange.Error{Code: exchange.UpstreamUnreachable, Source: exchange.FromUpstream}
		}},
		{name: "an upstream that breaks off", upstream: func(x *exchange.Exchange, body []byte) {
			echo(x, body)
			x.Reply.Body.Reader = io.MultiReader(io.LimitReader(x.Reply.Body.Reader, 1000), broken{})
			x.Usage.Aborted = true
		}},
		{name: "a client that is gone", upstream: echo, cancel: true},
		{name: "a panic in front", before: bomb, upstream: echo},
		{name: "a panic behind", after: bomb, upstream: echo},
		{name: "a panic after the policies", upstream: func(*exchange.Exchange, []byte) { panic("the upstream panics") }},
	}
}

// broken is a body that ends early.
type broken struct{}

// Read implements io.Reader.
func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// rounds is how often each ending is repeated: what is not given back each time runs out.
const rounds = 25

// endings proves that Done is called exactly once for each exchange, however it ended, and that afterwards the policy
// treats the next request as it treated the first.
func (c *contract) endings(t *testing.T, options *yaml.Node) {
	for _, e := range endings() {
		w := known(t)
		p, problems := w.build(c.kind, options)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		first := c.probe(w, p)
		done := countDone(p)
		for range rounds {
			w.Clock.Advance(24 * time.Hour) // limits are full again
			*done = 0
			c.end(p, w, e)
			if *done != 1 {
				t.Errorf("%s: Done was called %d times", e.name, *done)
			}
		}
		if again := c.probe(w, p); again != first {
			t.Errorf("after %s, %d times: a request is answered %+v, before it was %+v: what was taken is not given back",
				e.name, rounds, again, first)
		}
		p.Close()
	}
}

// verdict is what a policy does with a request.
type verdict struct {
	asked  bool
	status int
	code   string
}

// probe asks what happens to a request with a key a day later.
func (c *contract) probe(w *World, p *Policy) verdict {
	w.Clock.Advance(24 * time.Hour)
	out := p.Run(samples()[2](), echo)
	return verdict{out.Asked, out.Status, out.Code}
}

// countDone puts a count around the policy's Done hook.
func countDone(p *Policy) *int {
	calls, done := new(int), p.Hooks.Done
	p.Hooks.Done = func(x *exchange.Exchange) {
		*calls++
		if done != nil {
			done(x)
		}
	}
	return calls
}

// end carries one exchange to its ending in a chain with a policy in front and one behind.
func (c *contract) end(p *Policy, w *World, e ending) {
	front := w.instance(c.kind, policy.Hooks{Request: e.before, Done: func(*exchange.Exchange) {}})
	behind := w.instance(c.kind, policy.Hooks{Request: e.after, Done: func(*exchange.Exchange) { panic("another Done panics") }})
	chain := policy.NewChain([]*policy.Instance{front, w.instance(c.kind, p.Hooks), behind})
	x := samples()[2]()
	x.Start = w.Clock.Now()
	x.MakeSlots(p.slots)
	if e.cancel {
		x.Cancel.Cancel()
	}
	defer func() { _ = recover() }() // as the engine does
	defer chain.Done(x)
	carry(chain, x, e.upstream)
}
