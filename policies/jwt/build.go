package jwt

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/policy/credential"
	"headgate/internal/jose"
	"headgate/internal/jwks"
	"headgate/internal/metric"
	"headgate/internal/recall"
)

func check(c Config) error {
	_, errKeys := c.keys()
	errs := []error{c.From.Check("from"), errKeys, c.checkRemote(), credential.CheckRealm(c.Realm)}
	for i, s := range c.From {
		if s.Header != "" && s.Scheme == "" && exchange.EqualFold(s.Header, "Authorization") {
			errs = append(errs, decode.At("from."+strconv.Itoa(i), "says no scheme; tokens in Authorization stand behind one: add scheme: Bearer"))
		}
	}
	unknown := func(alg string) bool { return !slices.Contains(jose.Algorithms(), alg) }
	if len(c.Algorithms) == 0 || slices.ContainsFunc(c.Algorithms, unknown) {
		errs = append(errs, decode.At("algorithms", "must list some of %s", strings.Join(jose.Algorithms(), ", ")))
	}
	for _, name := range slices.Sorted(maps.Keys(c.ClaimHeaders)) {
		if !exchange.ValidName(name) || c.ClaimHeaders[name] == "" {
			err := fmt.Errorf("must be a header field's name with a claim, such as X-User: sub")
			errs = append(errs, &decode.PathError{Path: []string{"claim_headers", name}, Err: err})
		}
	}
	return errors.Join(errs...)
}

// remote reports whether keys are fetched, and discover whether they must be found first.
func (c *Config) remote() (fetched, discover bool) {
	discover = c.JWKS.URL == "" && len(c.Keys) == 0
	return c.JWKS.URL != "" || discover, discover
}

func (c *Config) checkRemote() error {
	fetched, discover := c.remote()
	switch {
	case !fetched:
		return nil
	case discover && c.Issuer == "":
		return decode.At("", "has no keys; give keys, jwks.url, or the issuer at which they are found")
	case len(c.Audience) == 0:
		return decode.At("", `has no audience, so tokens for other services of the same issuer would pass; list what aud must be, or "*" for any`)
	}
	path, address := "jwks.url", c.JWKS.URL
	if discover {
		path, address = "issuer", c.Issuer
	}
	if err := jwks.CheckURL(address, c.JWKS.AllowHTTP); err != nil {
		return decode.At(path, "%w", err)
	}
	return nil
}

// keys reads the keys that stand in the document.
func (c *Config) keys() ([]*jose.Key, error) {
	var keys []*jose.Key
	var errs []error
	for i, k := range c.Keys {
		read, err := k.Keys()
		if err != nil {
			errs = append(errs, decode.At("keys."+strconv.Itoa(i), "%w", err))
		}
		keys = append(keys, read...)
	}
	return keys, errors.Join(errs...)
}

func build(c Config, e policy.Env) (policy.Hooks, error) {
	keys, err := c.keys()
	if err != nil {
		return policy.Hooks{}, err
	}
	v := &verifier{
		config: c, static: jwks.NewSet(keys), consumers: e.Consumers, own: slices.Sorted(maps.Keys(c.ClaimHeaders)),
		rules: jose.Rules{
			Algorithms: c.Algorithms, Types: c.Types, Issuer: c.Issuer, Audience: c.Audience,
			Required: c.Claims, Leeway: c.Leeway, MaxAge: c.MaxAge,
		},
		challenge: `Bearer realm="` + c.Realm + `"`,
		verified: e.Metrics.Counter("headgate_jwt_verifications_total",
			"Tokens whose signature was checked, because they were not remembered.", e.Labels...),
	}
	if c.Remember.Tokens > 0 {
		// What is remembered was verified under these options; others begin afresh.
		v.memory = policy.Keep(e, "tokens/"+c.fingerprint(), func() *recall.Memory[*identity] {
			return recall.New[*identity](c.Remember.Tokens, int(c.Remember.Size))
		})
	}
	if fetched, discover := c.remote(); fetched {
		o := c.JWKS
		if discover {
			o.Issuer = c.Issuer
		}
		v.provider = policy.Keep(e, fmt.Sprintf("provider/%+v", o), func() *jwks.Provider {
			return jwks.New(o, e.HTTP, e.Clock, e.Log, fetchCounter(e))
		})
	}
	hooks := policy.Hooks{Request: policy.Step{Now: v.now}}
	if len(v.own) > 0 {
		hooks.Strip = v.strip
	}
	if v.provider != nil {
		hooks.Request.Later = v.later
	}
	return hooks, nil
}

// fetchCounter counts how fetches end.
func fetchCounter(e policy.Env) func(error) {
	const name, help = "headgate_jwt_key_fetches_total", "Fetches of an identity provider's keys, by how they ended."
	with := func(outcome string) *metric.Counter {
		return e.Metrics.Counter(name, help, append(slices.Clip(e.Labels), metric.Label{Name: "outcome", Value: outcome})...)
	}
	ok, failed := with("ok"), with("failed")
	return func(err error) {
		if err != nil {
			failed.Inc(0)
			return
		}
		ok.Inc(0)
	}
}

// fingerprint tells one set of options from another, secrets included, without showing them.
func (c *Config) fingerprint() string {
	var all strings.Builder
	if err := json.NewEncoder(&all).Encode(c); err != nil { // plain data always encodes
		all.WriteString(err.Error())
	}
	for _, k := range c.Keys {
		fmt.Fprintf(&all, "%q\n", k.Secret.Reveal())
	}
	sum := sha256.Sum256([]byte(all.String()))
	return hex.EncodeToString(sum[:16])
}
