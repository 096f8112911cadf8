package policy_test

import (
	"errors"
	"sync"
	"testing"

	"headgate/gateway/policy"
)

type closer struct {
	closed int
	err    error
}

func (c *closer) Close() error { c.closed++; return c.err }

func TestAKeptValueLivesFromReloadToReload(t *testing.T) {
	k := policy.NewKeeper()
	env := func() policy.Env { return policy.Env{Instance: "apis/shop/policies/a", Keep: k.Lease()} }
	made := 0
	fresh := func() *closer { made++; return &closer{err: errors.New("broken")} }
	first := env()
	v := policy.Keep(first, "bucket", fresh)
	second := env() // the next document is compiled before the last one is closed
	if policy.Keep(second, "bucket", fresh) != v || made != 1 {
		t.Error("another value after a reload")
	}
	if err := first.Keep.Release(); err != nil || v.closed != 0 {
		t.Errorf("closed while it is in use: %v", err)
	}
	if err := second.Keep.Release(); err == nil || v.closed != 1 {
		t.Errorf("closed %d times, %v", v.closed, err)
	}
	if err := second.Keep.Release(); err != nil || v.closed != 1 {
		t.Errorf("a second release: closed %d times, %v", v.closed, err)
	}
	if policy.Keep(env(), "bucket", fresh) == v {
		t.Error("a value that was closed came back")
	}
}

func TestKeptValuesAreApartByInstanceNameAndType(t *testing.T) {
	k := policy.NewKeeper()
	env := func(instance string) policy.Env { return policy.Env{Instance: instance, Keep: k.Lease()} }
	one := func() *int { return new(int) }
	a := policy.Keep(env("a"), "x", one)
	if a == policy.Keep(env("b"), "x", one) || a == policy.Keep(env("a"), "y", one) {
		t.Error("shared")
	}
	if s := policy.Keep(env("a"), "x", func() string { return "another type starts afresh" }); s == "" {
		t.Error("lost")
	}
}

func TestKeepingIsSafeForConcurrentCompilations(t *testing.T) {
	k := policy.NewKeeper()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				l := k.Lease()
				c := policy.Keep(policy.Env{Instance: "a", Keep: l}, "x", func() *closer { return new(closer) })
				if c.closed != 0 {
					t.Error("a closed value was handed out")
				}
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestSlotsGoOnBehindThoseOfOthers(t *testing.T) {
	s := policy.NewSlots(3)
	env := policy.Env{Slots: s}
	a, b := policy.Slot[string](env), policy.Slot[int](env)
	if s.Len() != 5 {
		t.Fatalf("%d slots", s.Len())
	}
	x := newBench().x
	x.MakeSlots(s.Len())
	if _, ok := a.Get(x); ok {
		t.Error("a fresh slot holds something")
	}
	a.Set(x, "one")
	b.Set(x, 2)
	if v, ok := a.Get(x); !ok || v != "one" {
		t.Errorf("%q, %v", v, ok)
	}
	if v, ok := b.Get(x); !ok || v != 2 {
		t.Errorf("%d, %v", v, ok)
	}
}
