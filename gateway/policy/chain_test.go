package policy_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/size"
)

func TestStagesOrderAChainAndListsOrderAStage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []*policy.Instance
		stages := rapid.SliceOfN(rapid.IntRange(int(policy.Admit), int(policy.Cache)), 0, 20).Draw(t, "stages")
		place := map[*policy.Instance]int{}
		for n, s := range stages {
			i := &policy.Instance{Stage: policy.Stage(s)}
			list, place[i] = append(list, i), n
		}
		got := policy.NewChain(list).Instances()
		if len(got) != len(list) {
			t.Fatalf("%d of %d instances", len(got), len(list))
		}
		for n := 1; n < len(got); n++ {
			a, b := got[n-1], got[n]
			if a.Stage > b.Stage || (a.Stage == b.Stage && place[a] > place[b]) {
				t.Fatalf("instance %d of stage %v runs before %d of %v", place[a], a.Stage, place[b], b.Stage)
			}
		}
	})
}

func TestTheReplyMeetsThePoliciesInReverse(t *testing.T) {
	b := newBench()
	wrap := func(name string) func(*exchange.Exchange, io.Reader) io.Reader {
		return func(_ *exchange.Exchange, r io.Reader) io.Reader {
			return io.MultiReader(strings.NewReader(name+"("), r, strings.NewReader(")"))
		}
	}
	var list []*policy.Instance
	for _, name := range []string{"a", "b", "c"} {
		i := b.instance(name, policy.Shape, pass)
		i.Hooks.Response.Now = func(*exchange.Exchange) policy.Verdict {
			b.calls = append(b.calls, name+" reply")
			return policy.Continue
		}
		i.Hooks.RequestBody, i.Hooks.ResponseBody = wrap(name), wrap(name)
		list = append(list, i)
	}
	c := policy.NewChain(list)
	if !c.Request(b.x) {
		t.Fatal("stopped")
	}
	c.Response(b.x)
	expectCalls(t, b, "a, b, c, c reply, b reply, a reply")
	read := func(r io.Reader) string {
		p, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(p)
	}
	// The first policy's wrapper is next to the sender each way: what it adds, the others see.
	if got := read(c.RequestBody(b.x, strings.NewReader("x"))); got != "c(b(a(x)))" {
		t.Errorf("the upstream reads %s", got)
	}
	if got := read(c.ResponseBody(b.x, strings.NewReader("x"))); got != "a(b(c(x)))" {
		t.Errorf("the client reads %s", got)
	}
}

func TestAnAnswerEndsTheChain(t *testing.T) {
	b := newBench()
	c := policy.NewChain([]*policy.Instance{
		b.instance("a", policy.Admit, pass),
		b.instance("b", policy.Identify, refuse(missing, "Key")),
		b.instance("c", policy.Authorize, pass),
	})
	if c.Request(b.x) {
		t.Error("the exchange goes on")
	}
	expectCalls(t, b, "a, b")
	if b.x.Reply.Status != 401 || b.x.Err.Code != missing || b.x.Err.Source != exchange.FromClient {
		t.Errorf("%d, %v", b.x.Reply.Status, b.x.Err)
	}
	if b.decisions("b", "answered") != 1 || b.decisions("a", "answered") != 0 {
		t.Error("the answer is not counted where it was made")
	}
}

func TestLaterIsAskedOnlyWhenNowCannotTell(t *testing.T) {
	b := newBench()
	i := b.waiting("a", pass)
	if !policy.NewChain([]*policy.Instance{i}).Request(b.x) {
		t.Error("stopped")
	}
	expectCalls(t, b, "a, a later")
	i.Hooks.Request.Now = nil // one that always waits
	if !policy.NewChain([]*policy.Instance{i}).Request(b.x) {
		t.Error("stopped")
	}
	expectCalls(t, b, "a later")
}

func TestLaterIsGivenTheExchangesContext(t *testing.T) {
	b := newBench()
	b.x.Cancel = new(exchange.Canceler)
	i := b.waiting("a", pass)
	i.Hooks.Request.Later = func(ctx context.Context, x *exchange.Exchange) policy.Verdict {
		x.Cancel.Cancel() // the client goes
		return policy.Fail(ctx.Err())
	}
	if policy.NewChain([]*policy.Instance{i}).Request(b.x) || !errors.Is(b.x.Err, context.Canceled) {
		t.Errorf("%v", b.x.Err)
	}
}

func TestWhatFollowsAFailureIsTheOperatorsChoice(t *testing.T) {
	own := &exchange.Error{Code: exchange.Code{Name: "keys_unavailable", Status: 503, Title: "No keys."}, Cause: errDown}
	tests := map[string]struct {
		allow  bool
		err    error
		goesOn bool
		code   string
	}{
		"refused":                      {false, errDown, false, "policy_unavailable"},
		"refused by a code of its own": {false, own, false, "keys_unavailable"},
		"allowed":                      {true, errDown, true, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			i := b.instance("a", policy.Identify, func(*exchange.Exchange) policy.Verdict { return policy.Fail(test.err) })
			i.AllowOnError = test.allow
			if goesOn := policy.NewChain([]*policy.Instance{i}).Request(b.x); goesOn != test.goesOn {
				t.Errorf("goes on: %v", goesOn)
			}
			if b.decisions("a", "failed") != 1 || !strings.Contains(b.log.String(), "the store is down") {
				t.Errorf("neither silent nor uncounted: %s", b.log.String())
			}
			if test.goesOn {
				if b.x.Err != nil {
					t.Errorf("allowed, and yet %v", b.x.Err)
				}
				return
			}
			if b.x.Err.Code.Name != test.code || !errors.Is(b.x.Err, errDown) || b.x.Err.Source != exchange.FromGateway {
				t.Errorf("%v", b.x.Err)
			}
			body, _ := io.ReadAll(b.x.Reply.Body.Reader)
			if strings.Contains(string(body), "store") {
				t.Errorf("the caller reads the cause: %s", body)
			}
		})
	}
}

func TestAConditionDecidesWhetherAPolicyIsInForce(t *testing.T) {
	for _, test := range []struct {
		name  string
		stage policy.Stage
		yes   bool
		err   error
		runs  bool
	}{
		{"true", policy.Identify, true, nil, true},
		{"false", policy.Identify, false, nil, false},
		{"no answer: what guards does guard", policy.Admit, false, errDown, true},
		{"no answer: what guards does guard", policy.Validate, true, errDown, true},
		{"no answer: what shapes leaves alone", policy.Shape, true, errDown, false},
		{"no answer: what remembers leaves alone", policy.Cache, true, errDown, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench()
			i := b.instance("a", test.stage, pass)
			i.When = func(*exchange.Exchange) (bool, error) { return test.yes, test.err }
			i.Hooks.Response.Now = i.Hooks.Request.Now
			i.Hooks.RequestBody = func(_ *exchange.Exchange, r io.Reader) io.Reader { b.calls = append(b.calls, "body"); return r }
			i.Hooks.ResponseBody = i.Hooks.RequestBody
			c := policy.NewChain([]*policy.Instance{i})
			c.Request(b.x)
			c.RequestBody(b.x, nil)
			c.Response(b.x)
			c.ResponseBody(b.x, nil)
			want := ""
			if test.runs {
				want = "a, body, a, body"
			}
			expectCalls(t, b, want)
		})
	}
}

func TestAShadowIsCountedAndLeavesNoTrace(t *testing.T) {
	spoil := func(x *exchange.Exchange) {
		x.Request.Header.Set("X-Old", "changed")
		x.Request.Header.Add("X-New", "1")
		x.Request.Path, x.Request.Method = "/elsewhere", "DELETE"
		x.Consumer = &exchange.Consumer{Name: "eve"}
	}
	tests := map[string]struct {
		f                func(*exchange.Exchange) policy.Verdict
		answered, failed uint64
	}{
		"that lets pass": {func(x *exchange.Exchange) policy.Verdict { spoil(x); return policy.Continue }, 0, 0},
		"that refuses":   {func(x *exchange.Exchange) policy.Verdict { spoil(x); return refuse(wrong, "Key")(x) }, 1, 0},
		"that fails":     {func(x *exchange.Exchange) policy.Verdict { spoil(x); return policy.Fail(errDown) }, 0, 1},
		"that panics":    {func(x *exchange.Exchange) policy.Verdict { spoil(x); panic("a bug") }, 0, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			b.x.Request.Method, b.x.Request.Path = "GET", "/orders"
			b.x.Request.Header.Add("X-Old", "kept")
			i := b.instance("a", policy.Identify, test.f)
			i.Shadow = true
			touch := func(*exchange.Exchange, io.Reader) io.Reader { t.Error("a shadow touched a body"); return nil }
			i.Hooks.Response.Now = func(*exchange.Exchange) policy.Verdict { t.Error("a shadow saw a reply"); return policy.Continue }
			i.Hooks.RequestBody, i.Hooks.ResponseBody = touch, touch
			c := policy.NewChain([]*policy.Instance{i, b.instance("b", policy.Authorize, pass)})
			if !c.Request(b.x) {
				t.Error("a shadow stopped the exchange")
			}
			c.Response(b.x)
			c.RequestBody(b.x, nil)
			c.ResponseBody(b.x, nil)
			expectCalls(t, b, "a, b")
			x := b.x
			if x.Request.Method != "GET" || x.Request.Path != "/orders" || x.Consumer != nil || x.Err != nil {
				t.Errorf("%s %s by %v, %v", x.Request.Method, x.Request.Path, x.Consumer, x.Err)
			}
			if got := string(x.Request.Header.AppendTo(nil)); got != "X-Old: kept\r\n" {
				t.Errorf("the request's header is %q", got)
			}
			if x.Reply.Status != 0 || x.Reply.Header.Len() != 0 || !x.Reply.Body.None() {
				t.Errorf("a reply is left: %d", x.Reply.Status)
			}
			if a, f := b.decisions("a", "shadow_answered"), b.decisions("a", "shadow_failed"); a != test.answered || f != test.failed {
				t.Errorf("counted %d answers and %d failures, want %d and %d", a, f, test.answered, test.failed)
			}
		})
	}
}

func TestAShadowThatDoesNotApplyIsNotEvaluated(t *testing.T) {
	b := newBench()
	i := b.instance("a", policy.Identify, pass)
	i.Shadow, i.When = true, func(*exchange.Exchange) (bool, error) { return false, nil }
	policy.NewChain([]*policy.Instance{i}).Request(b.x)
	expectCalls(t, b, "")
}

func TestEveryDoneRunsOnceThoughOnePanics(t *testing.T) {
	b := newBench()
	var list []*policy.Instance
	for _, name := range []string{"a", "b", "c", "d"} {
		i := b.instance(name, policy.Limit, nil)
		i.Hooks.Done = func(*exchange.Exchange) {
			b.calls = append(b.calls, name)
			if name == "b" || name == "c" {
				panic("in " + name)
			}
		}
		list = append(list, i)
	}
	policy.NewChain(list).Done(b.x)
	expectCalls(t, b, "a, b, c, d")
	for _, want := range []string{"in b", "in c", "id-1", "stack"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

func TestClosingTellsTheFirstErrorAndClosesAll(t *testing.T) {
	b := newBench()
	var list []*policy.Instance
	for _, name := range []string{"a", "b", "c"} {
		i := b.instance(name, policy.Limit, nil)
		i.Hooks.Close = func() error { b.calls = append(b.calls, name); return errors.New(name) }
		list = append(list, i)
	}
	if err := policy.NewChain(append(list, b.instance("d", policy.Limit, nil))).Close(); err == nil || err.Error() != "a" {
		t.Errorf("%v", err)
	}
	expectCalls(t, b, "a, b, c")
}

func TestTheStrictestBufferLimitHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := rapid.SliceOf(rapid.Int64Range(0, 100)).Draw(t, "limits")
		var list []*policy.Instance
		want := size.Bytes(0)
		for _, l := range limits {
			list = append(list, &policy.Instance{Hooks: policy.Hooks{BufferLimit: size.Bytes(l)}})
			if l > 0 && (want == 0 || size.Bytes(l) < want) {
				want = size.Bytes(l)
			}
		}
		if got := policy.NewChain(list).BufferLimit(); got != want {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

func TestStagesAreReadAsTheyAreWritten(t *testing.T) {
	for s := policy.Admit; s <= policy.Cache; s++ {
		if got, ok := policy.ParseStage(s.String()); !ok || got != s {
			t.Errorf("%v: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "Admit", "later"} {
		if _, ok := policy.ParseStage(s); ok {
			t.Errorf("%q is a stage", s)
		}
	}
}

func TestAChainOfPoliciesThatLetPassDoesNotAllocate(t *testing.T) {
	b := newBench()
	i := &policy.Instance{Hooks: policy.Hooks{
		Request: policy.Step{Now: pass}, Response: policy.Step{Now: pass}, Done: func(*exchange.Exchange) {},
	}}
	c := policy.NewChain([]*policy.Instance{i, i, i})
	if n := testing.AllocsPerRun(100, func() { c.Request(b.x); c.Response(b.x); c.Done(b.x) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
