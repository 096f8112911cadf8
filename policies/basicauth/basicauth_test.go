package basicauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// users checks passwords with bcrypt, as the gateway's own index does, and remembers the pairs that were right.
type users struct {
	hashes  map[string][]byte
	nobody  []byte
	mu      sync.Mutex
	lately  map[string]bool
	slow    atomic.Int64
	running atomic.Int64
	most    atomic.Int64
	hold    chan struct{} // when there is one, slow checks wait for it
}

func newUsers(t testing.TB, pairs ...string) *users {
	t.Helper()
	u := &users{hashes: map[string][]byte{}, lately: map[string]bool{}}
	hash := func(password string) []byte {
		h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	u.nobody = hash("nobody's")
	for _, p := range pairs {
		name, password, _ := strings.Cut(p, ":")
		u.hashes[name] = hash(password)
	}
	return u
}

func (u *users) ByPassword(username, password string, slow bool) (*exchange.Consumer, bool) {
	u.mu.Lock()
	known := u.lately[username+":"+password]
	u.mu.Unlock()
	if known {
		return &exchange.Consumer{Name: username}, true
	}
	if !slow {
		return nil, false
	}
	u.slow.Add(1)
	u.most.Store(max(u.most.Load(), u.running.Add(1)))
	defer u.running.Add(-1)
	if u.hold != nil {
		<-u.hold
	}
	hash, ok := u.hashes[username]
	if !ok {
		hash = u.nobody
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !ok {
		return nil, true
	}
	u.mu.Lock()
	u.lately[username+":"+password] = true
	u.mu.Unlock()
	return &exchange.Consumer{Name: username}, true
}
func (u *users) ByKey([32]byte) *exchange.Consumer            { return nil }
func (u *users) BySubject(string) *exchange.Consumer          { return nil }
func (u *users) ByCertificate(_, _ string) *exchange.Consumer { return nil }
func (u *users) Generation() uint64                           { return 0 }

func open(t testing.TB, c Config, u *users) policy.Hooks {
	t.Helper()
	hooks, err := build(c, policy.Env{
		Instance: "apis/shop/policies/basic-auth", Metrics: metric.NewRegistry(), Consumers: u,
		Keep: policy.NewKeeper().Lease(), Slots: new(policy.Slots),
	})
	if err != nil {
		t.Fatal(err)
	}
	return hooks
}

func defaults() Config { return Config{Realm: "headgate", Required: true, Hide: true} }

func basic(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

func request(authorization ...string) *exchange.Exchange {
	x := &exchange.Exchange{}
	x.Client.IP = netip.MustParseAddr("192.0.2.1")
	for _, a := range authorization {
		x.Request.Header.Add("Authorization", a)
	}
	return x
}

// ask runs the step as the engine does.
func ask(ctx context.Context, h policy.Hooks, x *exchange.Exchange) (v policy.Verdict, waited bool) {
	if v = h.Request.Now(x); v.Waits() {
		return h.Request.Later(ctx, x), true
	}
	return v, false
}

func TestWhoLogsIn(t *testing.T) {
	u := newUsers(t, "ann:pass:word", "bob:", "jörg:größe")
	long := basic("ann:" + strings.Repeat("x", maxCredentials))
	for _, c := range []struct {
		name          string
		authorization []string
		code          string
		consumer      string
		slow          bool
	}{
		{"nothing", nil, "basic_auth_missing", "", false},
		{"another scheme", []string{"Bearer abc"}, "basic_auth_missing", "", false},
		{"a password with a colon", []string{basic("ann:pass:word")}, "", "ann", true},
		{"the same again, at once", []string{basic("ann:pass:word")}, "", "ann", false},
		{"an empty password", []string{basic("bob:")}, "", "bob", true},
		{"UTF-8", []string{basic("jörg:größe")}, "", "jörg", true},
		{"any case of the scheme, many spaces", []string{"bASIC   " + basic("ann:pass:word")[6:]}, "", "ann", false},
		{"a wrong password", []string{basic("ann:guess")}, "basic_auth_invalid", "", true},
		{"an unknown user costs as much", []string{basic("eve:guess")}, "basic_auth_invalid", "", true},
		{"no colon", []string{basic("ann")}, "basic_auth_invalid", "", false},
		{"Latin-1", []string{basic("j\xf6rg:x")}, "basic_auth_invalid", "", false},
		{"a control character", []string{basic("ann:pass\x00word")}, "basic_auth_invalid", "", false},
		{"not base64", []string{"Basic ann:pass"}, "basic_auth_invalid", "", false},
		{"base64 of the URL kind", []string{"Basic YW5uOj8_Pz8-"}, "basic_auth_invalid", "", false},
		{"endless", []string{long}, "basic_auth_invalid", "", false},
		{"two", []string{basic("ann:pass:word"), basic("ann:pass:word")}, "basic_auth_invalid", "", false},
		{"two of different schemes", []string{basic("ann:pass:word"), "Bearer abc"}, "basic_auth_invalid", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := u.slow.Load()
			x := request(c.authorization...)
			v, waited := ask(t.Context(), open(t, defaults(), u), x)
			code, consumer := "", ""
			if x.Err != nil {
				code = x.Err.Code.Name
			}
			if x.Consumer != nil {
				consumer = x.Consumer.Name
			}
			if code != c.code || consumer != c.consumer || v.Continues() != (c.code == "") {
				t.Errorf("got code %q and consumer %q, want %q and %q", code, consumer, c.code, c.consumer)
			}
			if waited != c.slow || (u.slow.Load() > before) != c.slow {
				t.Errorf("waited %v after %d slow checks, want %v", waited, u.slow.Load()-before, c.slow)
			}
			if len(c.authorization) > 0 && v.Continues() == x.Request.Header.Has("Authorization") {
				t.Errorf("the upstream gets %q", x.Request.Header.Get("Authorization"))
			}
			if want := `Basic realm="headgate", charset="UTF-8"`; !v.Continues() && x.Reply.Header.Get("WWW-Authenticate") != want {
				t.Errorf("challenge %q, want %q", x.Reply.Header.Get("WWW-Authenticate"), want)
			}
		})
	}
}

func TestOptionsDecideWhatIsNeededAndShown(t *testing.T) {
	u := newUsers(t, "ann:a")
	c := defaults()
	c.Required, c.Hide = false, false
	h := open(t, c, u)
	if v, _ := ask(t.Context(), h, request()); !v.Continues() {
		t.Error("credentials are required")
	}
	if v, _ := ask(t.Context(), h, request(basic("ann:b"))); !v.Answers() {
		t.Error("wrong credentials pass where none are needed")
	}
	x := request(basic("ann:a"))
	if v, _ := ask(t.Context(), h, x); !v.Continues() || !x.Request.Header.Has("Authorization") {
		t.Error("the upstream should see the credentials")
	}
}

func TestAFloodOfWrongPasswordsIsBoundedAndOneClientCannotTakeEveryPlace(t *testing.T) {
	u := newUsers(t, "ann:a")
	u.hold = make(chan struct{})
	h := open(t, defaults(), u)
	const callers = 400
	codes := make(chan string, callers)
	var wg sync.WaitGroup
	for n := range callers {
		wg.Go(func() {
			x := request(basic(fmt.Sprintf("ann:guess %d", n)))
			if n%2 == 0 { // half of them from many addresses, half from one
				x.Client.IP = netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
			}
			ask(t.Context(), h, x)
			if code := x.Err.Code.Name; code != "basic_auth_invalid" && x.Reply.Header.Get("Retry-After") != "1" {
				t.Errorf("%s without Retry-After", code)
			}
			codes <- x.Err.Code.Name
		})
	}
	seen := map[string]int{}
	inside := maxWaiting + cap(newGate().room)
	for range callers - inside { // these are refused while the others are held
		seen[<-codes]++
	}
	if seen["basic_auth_busy"] == 0 || seen["basic_auth_too_many"] < callers/2-maxPerClient-inside || seen["basic_auth_invalid"] != 0 {
		t.Errorf("refused: %v", seen)
	}
	close(u.hold)
	wg.Wait()
	if most := u.most.Load(); most > int64(cap(newGate().room)) {
		t.Errorf("%d passwords were checked at one time", most)
	}
	if v, _ := ask(t.Context(), h, request(basic("ann:a"))); !v.Continues() {
		t.Error("after the flood a right password is refused")
	}
}

func TestWhoeverGivesUpMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		ip := netip.MustParseAddr("2001:db8::1")
		for range cap(g.room) {
			if err := g.enter(t.Context(), netip.MustParseAddr("192.0.2.9")); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for n := range maxPerClient {
			wg.Go(func() {
				if err := g.enter(ctx, netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n+1))); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("entered a full gate: %v", err)
				}
			})
		}
		synctest.Wait()
		if err := g.enter(ctx, ip); !errors.Is(err, errClientBusy) {
			t.Errorf("one network has more than its share: %v", err)
		}
		wg.Wait()
		for range cap(g.room) {
			g.leave(netip.MustParseAddr("192.0.2.9"))
		}
		if g.inside != 0 || len(g.clients) != 0 || len(g.room) != 0 {
			t.Errorf("%d are still inside, %d clients, %d places taken", g.inside, len(g.clients), len(g.room))
		}
	})
}

func FuzzCredentials(f *testing.F) {
	f.Add("Basic YW5uOmE=")
	f.Add("basic  YTo=")
	f.Fuzz(func(t *testing.T, value string) {
		x := request(value)
		username, password, r := credentials(&x.Request.Header)
		if r != present && username+password != "" {
			t.Fatalf("refused with %q", username+password)
		}
		if r == present && !strings.HasSuffix(value, base64.StdEncoding.EncodeToString([]byte(username+":"+password))) {
			t.Fatalf("%q was read as %q and %q", value, username, password)
		}
	})
}

func TestAPairVerifiedLatelyCostsOneString(t *testing.T) {
	u := newUsers(t, "ann:a")
	h := open(t, defaults(), u)
	x := request(basic("ann:a"))
	ask(t.Context(), h, x)
	h2 := exchange.Header{}
	h2.Add("Authorization", basic("ann:a"))
	if n := testing.AllocsPerRun(100, func() {
		if _, _, r := credentials(&h2); r != present {
			t.Fatal("not read")
		}
	}); n > 1 {
		t.Errorf("%v allocations to read the credentials, want at most the decoded text", n)
	}
}
