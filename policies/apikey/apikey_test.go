package apikey

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v4"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// known is a set of consumers by key, and counts how often it is asked.
type known struct {
	byKey      map[[32]byte]*exchange.Consumer
	generation atomic.Uint64
	asked      atomic.Int64
}

func newKnown(names ...string) *known {
	k := &known{byKey: map[[32]byte]*exchange.Consumer{}}
	for _, n := range names {
		k.byKey[sha256.Sum256([]byte("key of "+n))] = &exchange.Consumer{Name: n}
	}
	return k
}

func (k *known) ByKey(sum [32]byte) *exchange.Consumer { k.asked.Add(1); return k.byKey[sum] }
func (k *known) ByPassword(string, string, bool) (*exchange.Consumer, bool) {
	return nil, true
}
func (k *known) BySubject(string) *exchange.Consumer          { return nil }
func (k *known) ByCertificate(_, _ string) *exchange.Consumer { return nil }
func (k *known) Generation() uint64                           { return k.generation.Load() }

func env(k *known, keeper *policy.Keeper) policy.Env {
	return policy.Env{
		Instance: "apis/shop/policies/api-key", Metrics: metric.NewRegistry(), Consumers: k,
		Keep: keeper.Lease(), Slots: new(policy.Slots),
	}
}

// open builds the policy from its options in YAML.
func open(t testing.TB, k *known, options string) policy.Hooks {
	t.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(options), &node); err != nil {
		t.Fatal(err)
	}
	hooks, problems := Kind.Build(node.Content[0], env(k, policy.NewKeeper()))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return hooks
}

func request(lines ...string) *exchange.Exchange {
	x := &exchange.Exchange{ID: "1"}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		x.Request.Header.Add(name, value)
	}
	return x
}

func TestWhoCallsAndWhatTheUpstreamSees(t *testing.T) {
	for _, c := range []struct {
		name, options string
		lines         []string
		code          string // of the refusal
		consumer      string
		left          string // header fields that the upstream gets
	}{
		{"no key", "{}", nil, "api_key_missing", "", ""},
		{"no key, and none is needed", "{required: false}", []string{"Accept: a"}, "", "", "Accept"},
		{"a wrong key, and none is needed", "{required: false}", []string{"X-Api-Key: guess"}, "api_key_invalid", "", "X-Api-Key"},
		{"a good key", "{}", []string{"X-Api-Key: key of app", "Accept: a"}, "", "app", "Accept"},
		{"a good key that is not hidden", "{hide: false}", []string{"X-Api-Key: key of app"}, "", "app", "X-Api-Key"},
		{"a key twice", "{}", []string{"X-Api-Key: key of app", "X-Api-Key: key of app"}, "api_key_invalid", "", "X-Api-Key,X-Api-Key"},
		{"an endless key", "{}", []string{"X-Api-Key: " + strings.Repeat("k", maxKey+1)}, "api_key_invalid", "", "X-Api-Key"},
		{"a cookie", "{from: [{cookie: k}]}", []string{"Cookie: a=b; k=key of web"}, "", "web", "Cookie"},
		{"only where it may stand", "{from: [{cookie: k}]}", []string{"X-Api-Key: key of app"}, "api_key_missing", "", "X-Api-Key"},
		{"a scheme", "{from: [{header: Authorization, scheme: ApiKey}]}", []string{"Authorization: ApiKey key of app"}, "", "app", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			hooks := open(t, newKnown("app", "web"), c.options)
			for range 2 { // the second time from memory
				x := request(c.lines...)
				v := hooks.Request.Now(x)
				code, consumer := "", ""
				if x.Err != nil {
					code = x.Err.Code.Name
				}
				if x.Consumer != nil {
					consumer = x.Consumer.Name
				}
				if code != c.code || consumer != c.consumer || v.Answers() != (c.code != "") {
					t.Errorf("got code %q and consumer %q, want %q and %q", code, consumer, c.code, c.consumer)
				}
				if v.Answers() && (x.Reply.Status != 401 || x.Reply.Header.Get("WWW-Authenticate") != `ApiKey realm="headgate"`) {
					t.Errorf("refused with %d and %q", x.Reply.Status, x.Reply.Header.Get("WWW-Authenticate"))
				}
				var left []string
				for name := range x.Request.Header.All() {
					left = append(left, name)
				}
				if strings.Join(left, ",") != c.left {
					t.Errorf("the upstream gets %q, want %q", left, c.left)
				}
			}
		})
	}
}

func TestAGoodKeyIsLookedUpOncePerGenerationOfConsumers(t *testing.T) {
	k := newKnown("app")
	hooks := open(t, k, "{}")
	ask := func() *exchange.Consumer {
		x := request("X-Api-Key: key of app")
		hooks.Request.Now(x)
		return x.Consumer
	}
	for range 3 {
		if ask() == nil {
			t.Fatal("refused a good key")
		}
	}
	if k.asked.Load() != 1 {
		t.Errorf("looked up %d times", k.asked.Load())
	}
	delete(k.byKey, sha256.Sum256([]byte("key of app")))
	k.generation.Add(1)
	if ask() != nil {
		t.Error("a key that was taken away still works")
	}
}

func TestUnknownKeysAreNotRemembered(t *testing.T) {
	k := newKnown("app")
	keeper := policy.NewKeeper()
	e := env(k, keeper)
	i := newIndex(e)
	x := request()
	i.owner(x, "key of app")
	for n := range 10_000 {
		if i.owner(x, fmt.Sprint("guess ", n)) != nil {
			t.Fatal("a guess is right")
		}
	}
	if n, _ := i.remembered.owners.Len(); n != 1 {
		t.Errorf("%d keys are remembered, want 1", n)
	}
	asked := k.asked.Load()
	if i.owner(x, "key of app") == nil || k.asked.Load() != asked {
		t.Error("guesses pushed out a good key")
	}
	if got := i.verified.Value(); got != 10_001 {
		t.Errorf("%d verifications are counted, want 10,001", got)
	}
}

func TestMemoryOutlivesAReload(t *testing.T) {
	k, keeper := newKnown("app"), policy.NewKeeper()
	old, next := env(k, keeper), env(k, keeper)
	a := newIndex(old)
	a.owner(request(), "key of app")
	b := newIndex(next)
	if err := old.Keep.Release(); err != nil {
		t.Fatal(err)
	}
	if b.owner(request(), "key of app") == nil || k.asked.Load() != 1 {
		t.Errorf("looked up %d times, want once", k.asked.Load())
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, options := range []string{"{from: []}", "{from: [{}]}", `{realm: 'a"b'}`, "{form: []}"} {
		var node yaml.Node
		if err := yaml.Unmarshal([]byte(options), &node); err != nil {
			t.Fatal(err)
		}
		if _, problems := Kind.Build(node.Content[0], env(newKnown(), policy.NewKeeper())); len(problems) != 1 {
			t.Errorf("%s: %d problems, want 1: %v", options, len(problems), problems)
		}
	}
}

func TestARememberedKeyAllocatesNothing(t *testing.T) {
	hooks := open(t, newKnown("app"), "{}")
	x := request("Host: shop", "X-Api-Key: key of app")
	if n := testing.AllocsPerRun(100, func() {
		if !hooks.Request.Now(x).Continues() {
			t.Fatal("refused")
		}
		x.Request.Header.Add("X-Api-Key", "key of app")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRememberedKey(b *testing.B) {
	hooks := open(b, newKnown("app"), "{hide: false}")
	x := request("Host: shop", "User-Agent: curl", "Accept: */*", "X-Api-Key: key of app")
	b.ReportAllocs()
	for b.Loop() {
		hooks.Request.Now(x)
	}
}

func BenchmarkUnknownKey(b *testing.B) {
	i := newIndex(env(newKnown("app"), policy.NewKeeper()))
	x := request()
	b.ReportAllocs()
	for b.Loop() {
		i.owner(x, "d0a1c7a2d2c0405d8f2b7d83f2f5f1cb")
	}
}
