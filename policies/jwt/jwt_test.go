package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/clock"
	"headgate/internal/jose"
	"headgate/internal/metric"
	"headgate/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// private keys are made once: RSA keys take long.
var private = sync.OnceValue(func() map[string]any {
	must := func(k any, err error) any {
		if err != nil {
			panic(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	rs := must(rsa.GenerateKey(rand.Reader, 2048))
	return map[string]any{
		"RS": rs, "PS": rs, "Ed": must(ed, err), "HS": []byte(strings.Repeat("s3cret!-", 8)),
		"ES256": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "ES384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ES512": must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), "new": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
	}
})

func keyFor(alg string) any {
	if k, ok := private()[alg]; ok {
		return k
	}
	return private()[alg[:2]]
}

func publicPEM(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.(crypto.Signer).Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

type claims map[string]any

// with returns the claims with some changed; nil removes one.
func (c claims) with(more claims) claims {
	c = maps.Clone(c)
	maps.Copy(c, more)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

var good = claims{"sub": "ann", "iss": "https://id.example.com", "aud": "shop", "exp": start.Add(time.Hour).Unix(), "scope": "read"}

// token signs claims, or a payload as it is, with another implementation than the one under test.
func token(t testing.TB, alg string, key any, kid string, payload any) string {
	t.Helper()
	headers := map[josev4.HeaderKey]any{}
	if kid != "" {
		headers["kid"] = kid
	}
	return sign(t, alg, key, headers, payload)
}

func sign(t testing.TB, alg string, key any, headers map[josev4.HeaderKey]any, payload any) string {
	t.Helper()
	with := josev4.SigningKey{Algorithm: josev4.SignatureAlgorithm(alg), Key: key}
	s, err := josev4.NewSigner(with, &josev4.SignerOptions{ExtraHeaders: headers})
	if err != nil {
		t.Fatal(err)
	}
	data, ok := payload.([]byte)
	if !ok {
		if data, err = json.Marshal(payload); err != nil {
			t.Fatal(err)
		}
	}
	jws, err := s.Sign(data)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// people know one subject.
type people struct {
	generation atomic.Uint64
	asked      atomic.Int64
}

var ann = &exchange.Consumer{Name: "ann's app"}

func (p *people) BySubject(s string) *exchange.Consumer {
	p.asked.Add(1)
	if s == "ann" {
		return ann
	}
	return nil
}
func (p *people) ByKey([32]byte) *exchange.Consumer                          { return nil }
func (p *people) ByPassword(string, string, bool) (*exchange.Consumer, bool) { return nil, true }
func (p *people) ByCertificate(_, _ string) *exchange.Consumer               { return nil }
func (p *people) Generation() uint64                                         { return p.generation.Load() }

// bench is the policy under test with what it stands on.
type bench struct {
	policy.Hooks
	people  *people
	clock   *clock.Manual
	metrics *metric.Registry
}

func env(t testing.TB, b *bench) policy.Env {
	t.Helper()
	lease := policy.NewKeeper().Lease()
	t.Cleanup(func() {
		if err := lease.Release(); err != nil {
			t.Error(err)
		}
	})
	return policy.Env{
		Instance: "apis/shop/policies/jwt", Log: slog.New(slog.DiscardHandler), Clock: b.clock, Metrics: b.metrics,
		Consumers: b.people, HTTP: http.DefaultClient, Keep: lease, Slots: new(policy.Slots),
	}
}

func newBench(t testing.TB, change func(*Config)) *bench {
	t.Helper()
	c := defaults()
	change(&c)
	if err := check(c); err != nil {
		t.Fatal(err)
	}
	b := &bench{people: &people{}, clock: clock.NewManual(start), metrics: metric.NewRegistry()}
	var err error
	if b.Hooks, err = build(c, env(t, b)); err != nil {
		t.Fatal(err)
	}
	return b
}

// ask runs the step as the engine does.
func (b *bench) ask(t testing.TB, x *exchange.Exchange) (v policy.Verdict, waited bool) {
	t.Helper()
	x.Start = b.clock.Now()
	if b.Strip != nil {
		b.Strip(x)
	}
	if v = b.Request.Now(x); v.Waits() {
		return b.Request.Later(t.Context(), x), true
	}
	return v, false
}

// code asks with a token in Authorization and returns the code of the refusal, or "".
func (b *bench) code(t testing.TB, raw string) string {
	t.Helper()
	x := bearer(raw)
	v, _ := b.ask(t, x)
	var e *exchange.Error
	switch {
	case v.Continues():
		return ""
	case errors.As(v.Err(), &e):
		return e.Code.Name
	case v.Answers():
		return x.Err.Code.Name
	}
	t.Fatalf("verdict %+v", v)
	return ""
}

func bearer(raw string) *exchange.Exchange {
	x := &exchange.Exchange{}
	x.Client.IP = netip.MustParseAddr("192.0.2.1")
	x.Request.Header.Add("Authorization", "Bearer "+raw)
	return x
}

func withKey(key any) func(*Config) {
	return func(c *Config) {
		c.Keys = []jose.Material{{JWKS: keySet(map[string]any{"k": key}), Encoding: "text"}}
	}
}

// keySet publishes the public keys of private ones.
func keySet(keys map[string]any) string {
	set := josev4.JSONWebKeySet{}
	for kid, k := range keys {
		set.Keys = append(set.Keys, josev4.JSONWebKey{Key: k.(crypto.Signer).Public(), KeyID: kid})
	}
	data, err := json.Marshal(set)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func TestEveryAlgorithm(t *testing.T) {
	for _, alg := range jose.Algorithms() {
		t.Run(alg, func(t *testing.T) {
			var options string
			if secret, ok := keyFor(alg).([]byte); ok {
				t.Setenv("JWT_TEST_SECRET", string(secret))
				options = "keys: [{secret: '${env:JWT_TEST_SECRET}'}]"
			} else {
				options = fmt.Sprintf("keys: [%q]", publicPEM(t, keyFor(alg)))
			}
			var node yaml.Node
			if err := yaml.Unmarshal([]byte(options), &node); err != nil {
				t.Fatal(err)
			}
			b := &bench{people: &people{}, clock: clock.NewManual(start), metrics: metric.NewRegistry()}
			var problems decode.Problems
			if b.Hooks, problems = Kind.Build(node.Content[0], env(t, b)); len(problems) > 0 {
				t.Fatal(problems)
			}
			raw := token(t, alg, keyFor(alg), "", good)
			for range 2 { // the second time from memory
				x := bearer(raw)
				if v, waited := b.ask(t, x); !v.Continues() || waited || x.Consumer != ann || x.Claims.Claim("scope") != "read" {
					t.Fatalf("refused: %v", x.Err)
				}
			}
			if code := b.code(t, raw[:len(raw)-6]+"AAAAAA"); code != "token_invalid" {
				t.Errorf("a changed signature: %q", code)
			}
		})
	}
}

func TestWhatATokenMustSay(t *testing.T) {
	at := func(d time.Duration) int64 { return start.Add(d).Unix() }
	strict := func(c *Config) {
		c.Issuer, c.Audience = "https://id.example.com", []string{"shop", "store"}
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		claims any
		code   string
	}{
		{"all that is asked", strict, good, ""},
		{"expired a second ago, which clocks may differ by", strict, good.with(claims{"exp": at(-time.Second)}), ""},
		{"expired at the leeway's end", strict, good.with(claims{"exp": at(-30 * time.Second)}), "token_expired"},
		{"no exp", strict, good.with(claims{"exp": nil}), "token_claim_missing"},
		{"no exp, where none is needed", func(c *Config) { c.Claims = nil }, good.with(claims{"exp": nil}), ""},
		{"exp in text", strict, good.with(claims{"exp": "tomorrow"}), "token_invalid"},
		{"exp null", strict, good.with(claims{"exp": json.RawMessage("null")}), "token_claim_missing"},
		{"exp at the end of time", strict, good.with(claims{"exp": 1e300}), ""},
		{"exp before all time", strict, good.with(claims{"exp": -1e300}), "token_expired"},
		{"from now on", strict, good.with(claims{"nbf": at(30 * time.Second)}), ""},
		{"not yet", strict, good.with(claims{"nbf": at(31 * time.Second)}), "token_not_yet_valid"},
		{"made in the future", strict, good.with(claims{"iat": at(time.Minute)}), "token_not_yet_valid"},
		{"too old", func(c *Config) { c.MaxAge = time.Minute }, good.with(claims{"iat": at(-2 * time.Minute)}), "token_expired"},
		{"of unknown age", func(c *Config) { c.MaxAge = time.Minute }, good, "token_claim_missing"},
		{"another issuer", strict, good.with(claims{"iss": "https://id.example.com/"}), "token_wrong_issuer"},
		{"no issuer", strict, good.with(claims{"iss": nil}), "token_wrong_issuer"},
		{"issuers in a list", strict, good.with(claims{"iss": []string{"https://id.example.com"}}), "token_wrong_issuer"},
		{"another audience", strict, good.with(claims{"aud": "shops"}), "token_wrong_audience"},
		{"one of its audiences", strict, good.with(claims{"aud": []string{"bank", "store"}}), ""},
		{"none of its audiences", strict, good.with(claims{"aud": []string{"bank"}}), "token_wrong_audience"},
		{"no audience", strict, good.with(claims{"aud": nil}), "token_wrong_audience"},
		{"any audience", func(c *Config) { c.Audience = []string{"*"} }, good.with(claims{"aud": nil}), ""},
		{"audience of another type", strict, good.with(claims{"aud": 7}), "token_invalid"},
		{"a claim that must be there", func(c *Config) { c.Claims = []string{"realm.id"} }, good, "token_claim_missing"},
		{"a claim that is there", func(c *Config) { c.Claims = []string{"realm.id"} }, good.with(claims{"realm": claims{"id": 1}}), ""},
		{"nobody's, where one is needed", func(c *Config) { c.Consumer.Required = true }, good.with(claims{"sub": "eve"}), "consumer_unknown"},
		{"nobody's, where none is needed", strict, good.with(claims{"sub": "eve"}), ""},
		{"a claim twice", strict, []byte(`{"sub":"ann","exp":4102444800,"aud":"shop","sub":"eve"}`), "token_invalid"},
		{"claims that are no object", strict, []byte(`["sub"]`), "token_invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, func(o *Config) { withKey(keyFor("ES256"))(o); c.change(o) })
			raw := token(t, "ES256", keyFor("ES256"), "k", c.claims)
			for range 2 {
				if code := b.code(t, raw); code != c.code {
					t.Errorf("got %q, want %q", code, c.code)
				}
			}
		})
	}
}

func TestTypesOfTokens(t *testing.T) {
	b := newBench(t, withKey(keyFor("ES256")))
	for typ, code := range map[any]string{
		nil: "", "JWT": "", "jwt": "", "at+jwt": "", "application/at+jwt": "", "Application/AT+JWT": "",
		"dpop+jwt": "token_wrong_type", "logout+jwt": "token_wrong_type", "application/": "token_wrong_type",
	} {
		headers := map[josev4.HeaderKey]any{"kid": "k"}
		if typ != nil {
			headers["typ"] = typ
		}
		if got := b.code(t, sign(t, "ES256", keyFor("ES256"), headers, good)); got != code {
			t.Errorf("typ %v: %q, want %q", typ, got, code)
		}
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	enc := base64.RawURLEncoding.EncodeToString
	payload, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	brought := map[josev4.HeaderKey]any{"kid": "k", "jwk": josev4.JSONWebKey{Key: keyFor("new").(crypto.Signer).Public()}}
	b := newBench(t, withKey(keyFor("RS256")))
	for name, raw := range map[string]string{
		"alg none":                  enc([]byte(`{"alg":"none","kid":"k"}`)) + "." + enc(payload) + ".",
		"alg none with a signature": enc([]byte(`{"alg":"none","kid":"k"}`)) + "." + enc(payload) + ".AAAA",
		"HMAC with the public key":  token(t, "HS256", []byte(publicPEM(t, keyFor("RS256"))), "k", good),
		"a key of its own":          sign(t, "ES256", keyFor("new"), brought, good),
		"another key of the kind":   token(t, "ES256", keyFor("ES256"), "k", good),
		"crit":                      sign(t, "RS256", keyFor("RS256"), map[josev4.HeaderKey]any{"kid": "k", "crit": []string{"exp"}}, good),
		"nonsense":                  "abc",
		"longer than allowed":       token(t, "RS256", keyFor("RS256"), "k", good.with(claims{"x": strings.Repeat("x", 8192)})),
	} {
		if code := b.code(t, raw); code != "token_invalid" && code != "token_key_unknown" {
			t.Errorf("%s: %q", name, code)
		}
	}
	for _, kid := range []string{"../../dev/null", "' OR 1=1 --", "K", "k\x00", "k ", strings.Repeat("k", 2000)} {
		if code := b.code(t, token(t, "RS256", keyFor("RS256"), kid, good)); code != "token_key_unknown" {
			t.Errorf("kid %.20q: %q", kid, code)
		}
	}
	pinned := newBench(t, func(c *Config) {
		c.Keys = []jose.Material{{PEM: publicPEM(t, keyFor("RS256")), Algorithm: "RS256"}}
	})
	if code := pinned.code(t, token(t, "PS256", keyFor("RS256"), "", good)); code != "token_key_unknown" {
		t.Errorf("an algorithm that the key is not pinned to: %q", code)
	}
	narrow := newBench(t, func(c *Config) { withKey(keyFor("RS256"))(c); c.Algorithms = []string{"ES256"} })
	if code := narrow.code(t, token(t, "RS256", keyFor("RS256"), "k", good)); code != "token_invalid" {
		t.Errorf("an algorithm that is not accepted: %q", code)
	}
}

func TestWhatTheUpstreamAndTheCallerSee(t *testing.T) {
	raw := token(t, "ES256", keyFor("ES256"), "k", good.with(claims{"roles": []string{"a,b", "c"}, "bad": "x\r\ny", "n": 7}))
	headers := func(c *Config) {
		withKey(keyFor("ES256"))(c)
		c.ClaimHeaders = map[string]string{"X-User": "sub", "X-Roles": "roles", "X-Bad": "bad", "X-N": "n", "X-None": "none"}
	}
	t.Run("claims become fields and forged ones are gone", func(t *testing.T) {
		b := newBench(t, headers)
		for range 2 {
			x := bearer(raw)
			for _, forged := range []string{"X-User", "x_user", "X-None", "X-Bad"} {
				x.Request.Header.Add(forged, "admin")
			}
			if v, _ := b.ask(t, x); !v.Continues() {
				t.Fatal(x.Err)
			}
			h := &x.Request.Header
			if h.Get("X-User") != "ann" || h.Get("X-Roles") != `["a,b","c"]` || h.Get("X-N") != "7" || h.Len() != 4 {
				t.Errorf("the upstream gets %+v", *h)
			}
		}
	})
	t.Run("forged fields are gone without a token too", func(t *testing.T) {
		b := newBench(t, func(c *Config) { headers(c); c.Required = false })
		x := &exchange.Exchange{}
		x.Request.Header.Add("X-User", "admin")
		if v, _ := b.ask(t, x); !v.Continues() || x.Request.Header.Len() != 0 || x.Consumer != nil || x.Claims != nil {
			t.Errorf("the upstream gets %+v", x.Request.Header)
		}
	})
	t.Run("the token is hidden when it shall be", func(t *testing.T) {
		b := newBench(t, func(c *Config) { withKey(keyFor("ES256"))(c); c.Forward = false })
		x := bearer(raw)
		if v, _ := b.ask(t, x); !v.Continues() || x.Request.Header.Has("Authorization") {
			t.Errorf("the upstream gets %+v", x.Request.Header)
		}
	})
	t.Run("challenges", func(t *testing.T) {
		b := newBench(t, withKey(keyFor("ES256")))
		twice := bearer(raw)
		twice.Request.Header.Add("Authorization", "Bearer "+raw)
		for _, c := range []struct {
			x         *exchange.Exchange
			status    int
			challenge string
		}{
			{&exchange.Exchange{}, 401, `Bearer realm="headgate"`},
			{twice, 400, `Bearer realm="headgate", error="invalid_request"`},
			{bearer("abc"), 401, `Bearer realm="headgate", error="invalid_token", error_description="The token is not valid."`},
		} {
			b.ask(t, c.x)
			if got := c.x.Reply.Header.Get("WWW-Authenticate"); c.x.Reply.Status != c.status || got != c.challenge {
				t.Errorf("%d %s, want %d %s", c.x.Reply.Status, got, c.status, c.challenge)
			}
		}
	})
}

func TestVerifiedTokensAreRememberedAsLongAsTheyHold(t *testing.T) {
	b := newBench(t, withKey(keyFor("ES256")))
	raw := token(t, "ES256", keyFor("ES256"), "k", good)
	verified := func() uint64 {
		return b.metrics.Counter("headgate_jwt_verifications_total", "").Value()
	}
	for range 3 {
		if code := b.code(t, raw); code != "" {
			t.Fatal(code)
		}
	}
	if verified() != 1 {
		t.Errorf("verified %d times", verified())
	}
	b.people.generation.Add(1)
	if b.code(t, raw); verified() != 2 || b.people.asked.Load() != 2 {
		t.Error("after the consumers changed the token was not looked at again")
	}
	b.clock.Advance(time.Hour) // exp, but within the leeway
	if code := b.code(t, raw); code != "" || verified() != 3 {
		t.Errorf("at exp: %q after %d verifications", code, verified())
	}
	b.clock.Advance(30 * time.Second)
	if code := b.code(t, raw); code != "token_expired" {
		t.Errorf("after exp and leeway: %q", code)
	}
}

// provider is an identity provider: a real server whose keys can be changed.
type provider struct {
	*httptest.Server
	keys  atomic.Pointer[string] // nil: it fails
	asked atomic.Int64
}

func newProvider(t testing.TB, keys map[string]any) *provider {
	t.Helper()
	p := &provider{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		keys := p.keys.Load()
		switch {
		case keys == nil:
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": p.URL, "jwks_uri": p.URL + "/keys"})
		default:
			_, _ = w.Write([]byte(*keys))
		}
	}))
	t.Cleanup(p.Close)
	p.publish(keys)
	return p
}

func (p *provider) publish(keys map[string]any) {
	set := keySet(keys)
	p.keys.Store(&set)
}

func (p *provider) options(c *Config) {
	c.JWKS.URL, c.Audience = p.URL+"/keys", []string{"shop"}
}

func TestFetchedKeys(t *testing.T) {
	p := newProvider(t, map[string]any{"a": keyFor("ES256")})
	b := newBench(t, p.options)
	old := token(t, "ES256", keyFor("ES256"), "a", good)
	x := bearer(old)
	if v, waited := b.ask(t, x); !v.Continues() || !waited {
		t.Fatalf("the first token: waited %v, %v", waited, x.Err)
	}
	if v, waited := b.ask(t, bearer(token(t, "ES256", keyFor("ES256"), "a", good.with(claims{"n": 1})))); !v.Continues() || waited {
		t.Error("who knows the key waits")
	}
	p.publish(map[string]any{"b": keyFor("new")})
	if v, waited := b.ask(t, bearer(token(t, "ES256", keyFor("new"), "b", good))); !v.Continues() || !waited {
		t.Error("a new key is not found")
	}
	if code := b.code(t, old); code != "token_key_unknown" {
		t.Errorf("a remembered token of a key that was withdrawn: %q", code)
	}
	if p.asked.Load() > 4 {
		t.Errorf("the provider was asked %d times", p.asked.Load())
	}
}

func TestDiscovery(t *testing.T) {
	p := newProvider(t, map[string]any{"a": keyFor("ES256")})
	b := newBench(t, func(c *Config) { c.Issuer, c.Audience = p.URL, []string{"*"} })
	if code := b.code(t, token(t, "ES256", keyFor("ES256"), "a", good.with(claims{"iss": p.URL}))); code != "" {
		t.Error(code)
	}
	if code := b.code(t, token(t, "ES256", keyFor("ES256"), "a", good)); code != "token_wrong_issuer" {
		t.Error(code)
	}
}

func TestAFloodOfInventedKeyIDsDoesNotReachTheProviderNorOthers(t *testing.T) {
	p := newProvider(t, map[string]any{"a": keyFor("ES256")})
	b := newBench(t, p.options)
	known := token(t, "ES256", keyFor("ES256"), "a", good)
	if code := b.code(t, known); code != "" {
		t.Fatal(code)
	}
	before := p.asked.Load()
	for n := range 500 {
		x := bearer(token(t, "HS256", keyFor("HS256"), fmt.Sprint("invented ", n), good))
		x.Client.IP = netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
		if v, _ := b.ask(t, x); !v.Answers() || x.Err.Code != tokenKeyUnknown {
			t.Fatalf("%v", x.Err)
		}
	}
	if n := p.asked.Load() - before; n > 10 {
		t.Errorf("500 invented ids caused %d fetches", n)
	}
	x := bearer(token(t, "ES256", keyFor("ES256"), "a", good.with(claims{"n": 2})))
	if v, waited := b.ask(t, x); !v.Continues() || waited {
		t.Error("the flood holds up who knows the key")
	}
}

func TestProviderAway(t *testing.T) {
	p := newProvider(t, map[string]any{"a": keyFor("ES256")})
	p.keys.Store(nil)
	b := newBench(t, p.options)
	raw := token(t, "ES256", keyFor("ES256"), "a", good)
	if code := b.code(t, raw); code != "keys_unavailable" {
		t.Errorf("without keys: %q", code)
	}
	p.publish(map[string]any{"a": keyFor("ES256")})
	b.clock.Advance(time.Second)
	if code := b.code(t, raw); code != "" {
		t.Errorf("once it is there: %q", code)
	}
	p.keys.Store(nil)
	b.clock.Advance(30 * time.Minute)
	if code := b.code(t, token(t, "ES256", keyFor("ES256"), "a", good.with(claims{"n": 1}))); code != "" {
		t.Errorf("with the last good keys: %q", code)
	}
	if code := b.code(t, token(t, "ES256", keyFor("new"), "b", good)); code != "token_key_unknown" {
		t.Errorf("an unknown key: %q", code)
	}
}

func TestStaticKeysWorkWhileTheProviderIsAway(t *testing.T) {
	p := newProvider(t, nil)
	p.keys.Store(nil)
	b := newBench(t, func(c *Config) { withKey(keyFor("ES384"))(c); p.options(c) })
	x := bearer(token(t, "ES384", keyFor("ES384"), "k", good))
	if v, waited := b.ask(t, x); !v.Continues() || waited {
		t.Error(x.Err)
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Setenv("JWT_TEST_SHORT", "short")
	t.Setenv("JWT_TEST_STARS", "***")
	for _, c := range []struct{ options, want string }{
		{"{}", "has no keys"},
		{"{jwks: {url: https://id.example.com/keys}}", "has no audience"},
		{`{jwks: {url: "http://id.example.com/keys"}, audience: [shop]}`, "not encrypted"},
		{"{issuer: shop, audience: [shop]}", "not a URL"},
		{"{keys: [{secret: '${env:JWT_TEST_SHORT}'}]}", "32"},
		{"{keys: [{}]}", "one of pem, jwks or secret"},
		{"{keys: [{secret: a-secret-that-is-long-enough-for-hmac}]}", "keys[0].secret" + "this secret stands in the document as text"},
		{"{keys: [{pem: x, secret: '${env:JWT_TEST_SHORT}'}]}", "one of pem, jwks or secret"},
		{"{keys: [{secret: '${env:JWT_TEST_STARS}', encoding: base64}]}", "not base64"},
		{`{keys: ['{"kty":"oct","k":"c2VjcmV0"}']}`, "secret"},
		{fmt.Sprintf("{keys: [{pem: %q, algorithm: HS256}]}", publicPEM(t, keyFor("RS256"))), "cannot be used with HS256"},
		{fmt.Sprintf("{keys: [%q], algorithms: [none]}", publicPEM(t, keyFor("RS256"))), "algorithms"},
		{fmt.Sprintf("{keys: [%q], from: [{header: Authorization}]}", publicPEM(t, keyFor("RS256"))), "scheme"},
		{fmt.Sprintf("{keys: [%q], claim_headers: {'X User': sub}}", publicPEM(t, keyFor("RS256"))), "header field"},
	} {
		var node yaml.Node
		if err := yaml.Unmarshal([]byte(c.options), &node); err != nil {
			t.Fatal(err)
		}
		b := &bench{people: &people{}, clock: clock.NewManual(start), metrics: metric.NewRegistry()}
		_, problems := Kind.Build(node.Content[0], env(t, b))
		if len(problems) != 1 || !strings.Contains(problems[0].Path+problems[0].Message, c.want) {
			t.Errorf("%.60s: %v, want %q", c.options, problems, c.want)
		}
	}
}

func TestSecretsOfKeysDoNotShowInWhatIsKept(t *testing.T) {
	one, two := defaults(), defaults()
	one.Keys = []jose.Material{{Secret: secret.New("one secret")}}
	two.Keys = []jose.Material{{Secret: secret.New("two secrets")}}
	if one.fingerprint() == two.fingerprint() {
		t.Error("tokens that were verified with one secret would be remembered for another")
	}
	if f := one.fingerprint(); len(f) != 32 || strings.Contains(f, "secret") {
		t.Errorf("the fingerprint shows what it is made of: %s", f)
	}
}

func TestARememberedTokenAllocatesNothing(t *testing.T) {
	b := newBench(t, func(c *Config) {
		withKey(keyFor("RS256"))(c)
		c.Forward = false
		c.ClaimHeaders = map[string]string{"X-User": "sub"}
	})
	raw := "Bearer " + token(t, "RS256", keyFor("RS256"), "k", good)
	x := bearer(raw[7:])
	b.ask(t, x)
	if n := testing.AllocsPerRun(100, func() {
		x.Request.Header.Set("Authorization", raw)
		b.Strip(x)
		if !b.Request.Now(x).Continues() || x.Consumer != ann || x.Request.Header.Get("X-User") != "ann" {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRememberedToken(b *testing.B) {
	s := newBench(b, withKey(keyFor("RS256")))
	x := bearer(token(b, "RS256", keyFor("RS256"), "k", good.with(claims{"x": strings.Repeat("x", 300)})))
	s.ask(b, x)
	b.ReportAllocs()
	for b.Loop() {
		s.Request.Now(x)
	}
}
