package jwks

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	josev4 "github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"headgate/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// idp is an identity provider: a real server whose answer can be changed.
type idp struct {
	*httptest.Server
	mu      sync.Mutex
	handler http.HandlerFunc
	asked   atomic.Int64
}

func newIDP(t *testing.T, kids ...string) *idp {
	t.Helper()
	i := &idp{}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		i.mu.Lock()
		h := i.handler
		i.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(i.Close)
	i.publish(t, kids...)
	return i
}

func (i *idp) answer(h http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.handler = h
}

func (i *idp) publish(t *testing.T, kids ...string) {
	t.Helper()
	set := josev4.JSONWebKeySet{}
	for _, kid := range kids {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		set.Keys = append(set.Keys, josev4.JSONWebKey{Key: k.Public(), KeyID: kid})
	}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	i.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
}

func (i *idp) fail(status int) {
	i.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// subject is a provider under test with the clock that it goes by and the ends of its fetches.
type subject struct {
	*Provider
	now     *clock.Manual
	fetched chan error
}

func newSubject(t *testing.T, o Options) *subject {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Refresh == 0 {
		o.Refresh = 5 * time.Minute
	}
	s := &subject{now: clock.NewManual(start), fetched: make(chan error, 1000)}
	s.Provider = New(o, http.DefaultClient, s.now, slog.New(slog.DiscardHandler), func(err error) { s.fetched <- err })
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *subject) lookup(t *testing.T, client string) (*Set, error) {
	t.Helper()
	return s.Lookup(t.Context(), s.now.Now(), netip.MustParseAddr(client))
}

// noticed is a context that tells when somebody begins to wait for it.
type noticed struct {
	context.Context
	waiting chan struct{}
}

func (n *noticed) Done() <-chan struct{} {
	n.waiting <- struct{}{}
	return n.Context.Done()
}

func TestKeysAreFetchedOnceForAllWhoWait(t *testing.T) {
	i := newIDP(t, "a")
	s := newSubject(t, Options{URL: i.URL})
	if s.Current(start) != nil {
		t.Fatal("there are keys before the first fetch")
	}
	release := make(chan struct{})
	i.mu.Lock()
	h := i.handler
	i.mu.Unlock()
	i.answer(func(w http.ResponseWriter, r *http.Request) { <-release; h(w, r) })
	var wg sync.WaitGroup
	waiting := make(chan struct{}, 50)
	for n := range 50 {
		wg.Go(func() {
			ctx := &noticed{t.Context(), waiting}
			set, err := s.Lookup(ctx, s.now.Now(), netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}))
			if err != nil || !set.Knows("a") {
				t.Errorf("got %v, %v", set, err)
			}
		})
	}
	for range 50 {
		<-waiting
	}
	close(release)
	wg.Wait()
	if i.asked.Load() != 1 {
		t.Errorf("the provider was asked %d times", i.asked.Load())
	}
}

func TestARefreshHappensBehindThoseWhoKnowTheirKey(t *testing.T) {
	i := newIDP(t, "a")
	s := newSubject(t, Options{URL: i.URL})
	if _, err := s.lookup(t, "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	<-s.fetched
	first := s.Current(s.now.Now())
	s.now.Advance(4 * time.Minute)
	s.Current(s.now.Now())
	if i.asked.Load() != 1 {
		t.Fatal("refreshed too early")
	}
	i.publish(t, "b")
	s.now.Advance(time.Minute)
	if s.Current(s.now.Now()) != first {
		t.Error("the keys at hand were not given at once")
	}
	if err := <-s.fetched; err != nil {
		t.Fatal(err)
	}
	if now := s.Current(s.now.Now()); !now.Knows("b") || now.Knows("a") || now.Version == first.Version {
		t.Errorf("after the refresh: %+v", now)
	}
}

func TestKeysThatDidNotChangeKeepTheirVersion(t *testing.T) {
	i := newIDP(t, "a")
	s := newSubject(t, Options{URL: i.URL})
	one, err := s.lookup(t, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.lookup(t, "10.0.0.2")
	if err != nil || one == two || one.Version != two.Version {
		t.Errorf("%+v, then %+v, %v", one, two, err)
	}
}

func TestANewKeyIsFoundAtOnce(t *testing.T) {
	i := newIDP(t, "a")
	s := newSubject(t, Options{URL: i.URL})
	if _, err := s.lookup(t, "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	i.publish(t, "a", "b")
	if set, err := s.lookup(t, "10.0.0.2"); err != nil || !set.Knows("b") {
		t.Errorf("got %v, %v", set, err)
	}
}

func TestAFloodOfUnknownKeysIsCappedAndStarvesNobody(t *testing.T) {
	i := newIDP(t, "a")
	s := newSubject(t, Options{URL: i.URL})
	if _, err := s.lookup(t, "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	before := i.asked.Load()
	for range 1000 { // one client gets one fetch
		set, err := s.lookup(t, "192.0.2.1")
		if set == nil || (err != nil && !errors.Is(err, ErrLimited)) {
			t.Fatal(set, err)
		}
	}
	if n := i.asked.Load() - before; n != 1 {
		t.Errorf("one client caused %d fetches", n)
	}
	i.publish(t, "b")
	other := netip.MustParseAddr("198.51.100.1")
	for s.budget.cell(other) == s.budget.cell(netip.MustParseAddr("192.0.2.1")) {
		other = other.Next()
	}
	if set, err := s.lookup(t, other.String()); err != nil || !set.Knows("b") {
		t.Errorf("another client did not get the new key: %v", err)
	}
	for n := range 5000 { // many clients get what all share
		_, _ = s.lookup(t, fmt.Sprintf("10.1.%d.%d", n>>8, n&255))
	}
	if n := i.asked.Load() - before; n > maxLookups {
		t.Errorf("many clients caused %d fetches at one time", n)
	}
	before = i.asked.Load()
	i.publish(t, "c")
	for n := range 12 {
		s.now.Advance(lookupEvery)
		for m := range 20 {
			_, _ = s.lookup(t, fmt.Sprintf("10.%d.0.%d", n+2, m))
		}
	}
	if n := i.asked.Load() - before; n > 12 || n == 0 {
		t.Errorf("in a minute of flood: %d fetches", n)
	}
	if !s.Current(s.now.Now()).Knows("c") {
		t.Error("the flood kept a new key out")
	}
}

func TestWhenTheProviderIsAwayTheLastKeysAreKept(t *testing.T) {
	for _, c := range []struct {
		name     string
		maxStale time.Duration
		after    time.Duration
		usable   bool
	}{
		{"as long as need be", 0, 1000 * time.Hour, true},
		{"up to max_stale", time.Hour, time.Hour, true},
		{"but not beyond", time.Hour, 2 * time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newIDP(t, "a")
			s := newSubject(t, Options{URL: i.URL, MaxStale: c.maxStale})
			if _, err := s.lookup(t, "10.0.0.1"); err != nil {
				t.Fatal(err)
			}
			<-s.fetched
			i.fail(500)
			s.now.Advance(c.after)
			set := s.Current(s.now.Now())
			if (set != nil) != c.usable {
				t.Errorf("usable: %v", set != nil)
			}
			if err := <-s.fetched; err == nil || !strings.Contains(err.Error(), "answered 500") {
				t.Errorf("the fetch ended with %v", err)
			}
			i.publish(t, "b")
			s.now.Advance(lastRetry)
			if set, err := s.lookup(t, "10.0.0.2"); err != nil || !set.Knows("b") {
				t.Errorf("once it is back: %v", err)
			}
		})
	}
}

func TestWithoutKeysAFailingProviderIsAskedAtGrowingIntervals(t *testing.T) {
	i := newIDP(t)
	i.fail(503)
	s := newSubject(t, Options{URL: i.URL})
	asked := func() int64 {
		before := i.asked.Load()
		for n := range 100 {
			if set, err := s.lookup(t, fmt.Sprintf("10.0.0.%d", n)); set != nil || !errors.Is(err, ErrUnavailable) {
				t.Fatal(set, err)
			}
		}
		return i.asked.Load() - before
	}
	for n, seconds := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 32} {
		step := seconds * time.Second
		s.now.Advance(step - time.Millisecond)
		if n > 0 && asked() != 0 {
			t.Errorf("asked again before %v had passed", step)
		}
		s.now.Advance(time.Millisecond)
		if asked() != 1 {
			t.Errorf("not asked once after %v", step)
		}
	}
}

func TestBadAnswersNeverReplaceGoodKeys(t *testing.T) {
	i := newIDP(t, "a")
	s := newSubject(t, Options{URL: i.URL})
	if _, err := s.lookup(t, "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	n := 1
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"no JSON":             {text("<html>"), "not a key set"},
		"no keys":             {text(`{"keys":[]}`), "no key that can be used"},
		"only keys for other": {text(`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`), "secret"},
		"huge":                {text(`{"keys":[],"x":"` + strings.Repeat("x", maxResponse) + `"}`), "larger than"},
		"not found":           {http.NotFound, "answered 404"},
		"endless redirects":   {redirect("/again"), "redirects"},
		"redirect to http":    {redirect("http://192.0.2.1/keys"), "not encrypted"},
		"redirect elsewhere":  {redirect(elsewhere.URL), "answered 404"},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"keys":`))
		}, "EOF"},
	} {
		i.answer(c.handler)
		s.now.Advance(clientEvery)
		n++
		set, err := s.lookup(t, fmt.Sprintf("10.0.0.%d", n))
		if !set.Knows("a") || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestDiscoveryFollowsOnlyTheIssuerThatWasAsked(t *testing.T) {
	i := newIDP(t, "a")
	i.mu.Lock()
	keys := i.handler
	i.mu.Unlock()
	discovery := func(issuer, uri string) {
		i.answer(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/realm/.well-known/openid-configuration":
				_ = json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": uri})
			case "/keys":
				keys(w, r)
			default:
				http.NotFound(w, r)
			}
		})
	}
	for _, c := range []struct{ name, issuer, uri, want string }{
		{"its own", i.URL + "/realm", i.URL + "/keys", ""},
		{"another issuer", "https://eve.example", i.URL + "/keys", "calls itself"},
		{"with a slash more", i.URL + "/realm/", i.URL + "/keys", "calls itself"},
		{"keys without encryption", i.URL + "/realm", "http://192.0.2.1/keys", "not encrypted"},
		{"no keys", i.URL + "/realm", "", "not a URL"},
	} {
		discovery(c.issuer, c.uri)
		s := newSubject(t, Options{Issuer: i.URL + "/realm"})
		set, err := s.lookup(t, "10.0.0.1")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || set.Knows("a") != (c.want == "") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestWhoeverGivesUpDoesNotEndTheFetchOfOthers(t *testing.T) {
	i := newIDP(t, "a")
	s := newSubject(t, Options{URL: i.URL})
	i.mu.Lock()
	h := i.handler
	i.mu.Unlock()
	arrived, release := make(chan struct{}), make(chan struct{})
	i.answer(func(w http.ResponseWriter, r *http.Request) { close(arrived); <-release; h(w, r) })
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := s.Lookup(ctx, start, netip.MustParseAddr("10.0.0.1"))
		gone <- err
	}()
	<-arrived
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	close(release)
	if set, err := s.lookup(t, "10.0.0.2"); err != nil || !set.Knows("a") {
		t.Errorf("the other got %v", err)
	}
}

func TestClosingEndsWhatIsBeingFetched(t *testing.T) {
	i := newIDP(t, "a")
	s := newSubject(t, Options{URL: i.URL, Timeout: time.Hour})
	arrived := make(chan struct{})
	i.answer(func(_ http.ResponseWriter, r *http.Request) { close(arrived); <-r.Context().Done() })
	ended := make(chan error, 1)
	go func() {
		_, err := s.Lookup(t.Context(), start, netip.MustParseAddr("10.0.0.1"))
		ended <- err
	}()
	<-arrived
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	s.now.Advance(time.Hour)
	if _, err := s.lookup(t, "10.0.0.1"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after closing: %v", err)
	}
}

func TestOnlySafeAddressesAreAsked(t *testing.T) {
	for raw, want := range map[string][2]bool{ // without and with allow_http
		"https://id.example.com/keys": {true, true},
		"http://id.example.com/keys":  {false, true},
		"http://127.0.0.1:8080/keys":  {true, true},
		"http://[::1]/keys":           {true, true},
		"http://localhost/keys":       {true, true},
		"http://localhost.evil.com/":  {false, true},
		"http://127.0.0.1.evil.com/":  {false, true},
		"ftp://id.example.com/":       {false, false},
		"file:///etc/passwd":          {false, false},
		"https://user:pw@id.example/": {false, false},
		"id.example.com/keys":         {false, false},
		"":                            {false, false},
	} {
		if got := [2]bool{CheckURL(raw, false) == nil, CheckURL(raw, true) == nil}; got != want {
			t.Errorf("%s: %v, want %v", raw, got, want)
		}
	}
}
