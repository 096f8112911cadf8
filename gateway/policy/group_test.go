package policy_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// group returns a chain of one group.
func (b *bench) group(all bool, members ...*policy.Instance) *policy.Chain {
	slots := new(policy.Slots)
	i := b.instance("group", policy.Identify, nil)
	i.Hooks = policy.Group(members, all, policy.Slot[*policy.Paused](policy.Env{Slots: slots}))
	return policy.NewChain([]*policy.Instance{i})
}

func (b *bench) named(name string, f func(*exchange.Exchange) policy.Verdict) *policy.Instance {
	return b.instance(name, policy.Identify, f)
}

func TestAGroupDecides(t *testing.T) {
	never := func(*exchange.Exchange) (bool, error) { return false, nil }
	tests := map[string]struct {
		all        bool
		members    func(*bench) []*policy.Instance
		goesOn     bool
		calls      string
		code       string   // of the refusal
		challenges []string // in it
	}{
		"any: the first yes is enough": {false, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", refuse(missing, "A")), b.named("b", pass), b.named("c", pass)}
		}, true, "a, b", "", nil},
		"any: a wrong credential says more than a missing one; every way to log in is listed": {false, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", refuse(missing, "A")), b.named("b", refuse(wrong, "B")), b.named("c", refuse(missing, "C"))}
		}, false, "a, b, c", "key_wrong", []string{"A", "B", "C"}},
		"any: the first of several missing ones": {false, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", refuse(missing, "A")), b.named("b", refuse(missing, "B"))}
		}, false, "a, b", "key_missing", []string{"A", "B"}},
		"any: a failure outweighs a refusal": {false, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", refuse(missing, "A")), b.named("b", down)}
		}, false, "a, b", "policy_unavailable", nil},
		"any: a yes outweighs a failure": {false, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", down), b.named("b", pass)}
		}, true, "a, b", "", nil},
		"any: one that waits is asked, and one that says yes behind it counts": {false, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", refuse(missing, "A")), b.waiting("b", refuse(missing, "B")), b.named("c", pass)}
		}, true, "a, b, b, b later, c", "", nil},
		"any: the refusals before one that waits are not forgotten": {false, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", refuse(wrong, "A")), b.waiting("b", refuse(missing, "B")), b.waiting("c", refuse(missing, "C"))}
		}, false, "a, b, b, b later, c, c later", "key_wrong", []string{"A", "B", "C"}},
		"any: one that waits and says yes": {false, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", refuse(missing, "A")), b.waiting("b", pass)}
		}, true, "a, b, b, b later", "", nil},
		"any: members whose condition does not hold have no say": {false, func(b *bench) []*policy.Instance {
			off := b.named("a", pass)
			off.When = never
			return []*policy.Instance{off, b.named("b", refuse(missing, "B"))}
		}, false, "b", "key_missing", []string{"B"}},
		"any: a member without a request step has no say": {false, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", nil), b.named("b", refuse(missing, "B"))}
		}, false, "b", "key_missing", []string{"B"}},
		"any: nobody in force": {false, func(b *bench) []*policy.Instance {
			off := b.named("a", refuse(missing, "A"))
			off.When = never
			return []*policy.Instance{off}
		}, true, "", "", nil},
		"all: each says yes": {true, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", pass), b.waiting("b", pass), b.named("c", nil), b.named("d", pass)}
		}, true, "a, b, b, b later, d", "", nil},
		"all: the first no ends it": {true, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", pass), b.named("b", refuse(wrong, "B")), b.named("c", pass)}
		}, false, "a, b", "key_wrong", []string{"B"}},
		"all: the first failure ends it": {true, func(b *bench) []*policy.Instance {
			return []*policy.Instance{b.named("a", down), b.named("b", pass)}
		}, false, "a", "policy_unavailable", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			goesOn := b.group(test.all, test.members(b)...).Request(b.x)
			if goesOn != test.goesOn {
				t.Errorf("goes on: %v", goesOn)
			}
			expectCalls(t, b, test.calls)
			if goesOn {
				if b.x.Err != nil || b.x.Reply.Status != 0 || b.x.Reply.Header.Len() != 0 || !b.x.Reply.Body.None() {
					t.Errorf("a refusal is left: %v, status %d", b.x.Err, b.x.Reply.Status)
				}
				return
			}
			if b.x.Err.Code.Name != test.code {
				t.Errorf("%v, want %s", b.x.Err, test.code)
			}
			if got := slices.Collect(b.x.Reply.Header.Values("WWW-Authenticate")); !slices.Equal(got, test.challenges) {
				t.Errorf("ways to log in: %q, want %q", got, test.challenges)
			}
		})
	}
}

func TestAFailedGroupThatIsAllowedLeavesNoRefusal(t *testing.T) {
	b := newBench()
	i := b.instance("group", policy.Identify, nil)
	i.AllowOnError = true
	members := []*policy.Instance{b.named("a", refuse(missing, "A")), b.named("b", down)}
	i.Hooks = policy.Group(members, false, exchange.NewSlot[*policy.Paused](0))
	if !policy.NewChain([]*policy.Instance{i}).Request(b.x) || b.x.Err != nil || b.x.Reply.Header.Len() != 0 {
		t.Errorf("%v, %d fields", b.x.Err, b.x.Reply.Header.Len())
	}
}

func TestAGroupInAGroupWaitsForItsMember(t *testing.T) {
	b := newBench()
	env := policy.Env{Slots: new(policy.Slots)}
	inner := b.named("inner", nil)
	inner.Hooks = policy.Group([]*policy.Instance{b.named("a", pass), b.waiting("b", pass)}, true, policy.Slot[*policy.Paused](env))
	outer := b.named("outer", nil)
	outer.Hooks = policy.Group([]*policy.Instance{b.named("c", refuse(missing, "C")), inner}, false, policy.Slot[*policy.Paused](env))
	if !policy.NewChain([]*policy.Instance{outer}).Request(b.x) || b.x.Err != nil {
		t.Errorf("%v", b.x.Err)
	}
}

func TestAGroupHandsItsMembersOtherHooksOn(t *testing.T) {
	b := newBench()
	m := b.named("a", pass)
	m.Hooks.Response.Now = func(*exchange.Exchange) policy.Verdict { b.calls = append(b.calls, "reply"); return policy.Continue }
	m.Hooks.RequestBody = func(_ *exchange.Exchange, r io.Reader) io.Reader { b.calls = append(b.calls, "body"); return r }
	m.Hooks.ResponseBody = func(_ *exchange.Exchange, r io.Reader) io.Reader { b.calls = append(b.calls, "reply body"); return r }
	m.Hooks.Done = func(*exchange.Exchange) { b.calls = append(b.calls, "done") }
	m.Hooks.Close = func() error { b.calls = append(b.calls, "close"); return nil }
	m.Hooks.BufferLimit = 10
	c := b.group(true, m)
	c.Request(b.x)
	c.RequestBody(b.x, strings.NewReader(""))
	c.Response(b.x)
	c.ResponseBody(b.x, strings.NewReader(""))
	c.Done(b.x)
	if err := c.Close(); err != nil || c.BufferLimit() != 10 {
		t.Errorf("%v, limit %v", err, c.BufferLimit())
	}
	expectCalls(t, b, "a, body, reply, reply body, done, close")
}

func TestWhatNoClientMaySayIsDroppedHoweverAGroupDecides(t *testing.T) {
	b := newBench()
	winner, owner, off := b.named("a", pass), b.named("b", pass), b.named("c", pass)
	drop := func(name string) func(*exchange.Exchange) {
		return func(x *exchange.Exchange) { x.Request.Header.Del(name) }
	}
	owner.Hooks.Strip, off.Hooks.Strip = drop("X-User"), drop("X-Role")
	off.When = func(*exchange.Exchange) (bool, error) { return false, nil }
	x := &exchange.Exchange{}
	x.MakeSlots(1)
	x.Request.Header.Add("X-User", "admin")
	x.Request.Header.Add("X-Role", "admin")
	if !b.group(false, winner, owner, off).Request(x) || x.Request.Header.Len() != 0 {
		t.Errorf("the upstream would get %v", x.Request.Header)
	}
}
