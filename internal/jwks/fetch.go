package jwks

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4/json"

	"headgate/internal/jose"
)

const (
	// maxResponse stops a provider, or whoever answers in its place, from filling memory.
	maxResponse = 1 << 20
	// maxRedirects stops chains of redirects.
	maxRedirects = 3
)

// CheckURL reports why keys must not be fetched from there, or nil: only https is safe from whoever is on the way, except
// to this machine or where it is allowed.
func CheckURL(raw string, allowHTTP bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return fmt.Errorf("%q is not a URL of a web server; write https://host/path", raw)
	case u.User != nil || u.Fragment != "":
		return fmt.Errorf("%q has a user or a fragment; leave it out", u.Redacted())
	case u.Scheme == "http" && !allowHTTP && !loopback(u.Hostname()):
		return fmt.Errorf("%q is not encrypted, so others on the way could exchange the keys; write https, or set allow_http", raw)
	}
	return nil
}

func loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// guarded returns the client with bounds of its own.
func guarded(client *http.Client, o Options) *http.Client {
	if client == nil {
		client = http.DefaultClient
	}
	c := *client
	c.Jar = nil
	c.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return CheckURL(r.URL.String(), o.AllowHTTP)
	}
	return &c
}

// fetch asks the provider. A set without a usable key is an error: an empty answer never takes good keys away.
func (p *Provider) fetch(ctx context.Context) (*Set, error) {
	address := p.options.URL
	if address == "" {
		var err error
		if address, err = p.discover(ctx); err != nil {
			return nil, fmt.Errorf("discovery of %s: %w", p.options.Issuer, err)
		}
	}
	data, err := p.get(ctx, address)
	if err != nil {
		return nil, err
	}
	keys, skipped, err := jose.Set(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: it has no key that can be used: %w", address, errors.Join(append(skipped, errNoKeys)...))
	}
	return &Set{keys: keys, sum: sha256.Sum256(data)}, nil
}

var errNoKeys = errors.New("give at least one public key for signatures")

// discover finds the key set of an issuer (OpenID Connect Discovery 1.0 section 4). The document must name the very issuer
// that was asked (section 4.3).
func (p *Provider) discover(ctx context.Context) (string, error) {
	data, err := p.get(ctx, strings.TrimSuffix(p.options.Issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	var doc struct {
		Issuer  string `json:"issuer"`
		KeysURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", err
	}
	if doc.Issuer != p.options.Issuer {
		return "", fmt.Errorf("it calls itself %.200q", doc.Issuer)
	}
	if err := CheckURL(doc.KeysURI, p.options.AllowHTTP); err != nil {
		return "", fmt.Errorf("jwks_uri: %w", err)
	}
	return doc.KeysURI, nil
}

func (p *Provider) get(ctx context.Context, address string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json, application/jwk-set+json")
	resp, err := p.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read from: nothing can be lost
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", address, resp.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", address, err)
	case len(data) > maxResponse:
		return nil, fmt.Errorf("%s: the answer is larger than %d bytes", address, maxResponse)
	}
	return data, nil
}
