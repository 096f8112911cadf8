package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	josev4 "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	minRSA = 2048 // bits; RFC 7518 section 3.3
	// maxRSA stops providers from publishing keys that take a processor milliseconds for each token.
	maxRSA = 8192
	// maxKeys stops a key set from filling memory. Providers publish two or three.
	maxKeys = 256
	// minSecret is the shortest HMAC secret: as long as the shortest hash (RFC 7518 section 3.2).
	minSecret = 32
)

// Key checks signatures, with the algorithms that it is pinned to and no others. It is immutable.
type Key struct {
	ID       string // "": it has none
	algs     []string
	material any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or, for HMAC, []byte
}

// Allows reports whether the key may be used with the algorithm.
func (k *Key) Allows(alg string) bool { return slices.Contains(k.algs, alg) }

// Algorithms returns the algorithms that the key may be used with.
func (k *Key) Algorithms() []string { return k.algs }

// As returns the key under another id, pinned to one algorithm. An empty id or algorithm changes nothing.
func (k *Key) As(id, alg string) (*Key, error) {
	c := *k
	if id != "" {
		c.ID = id
	}
	if alg != "" {
		if !k.Allows(alg) {
			return nil, fmt.Errorf("the key cannot be used with %s; it fits %s", alg, strings.Join(k.algs, ", "))
		}
		c.algs = []string{alg}
	}
	return &c, nil
}

func newKey(id string, material any) (*Key, error) {
	switch m := material.(type) {
	case *rsa.PublicKey:
		if bits := m.N.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, fmt.Errorf("the RSA key has %d bits; %d to %d are accepted", bits, minRSA, maxRSA)
		}
	case []byte:
		if len(m) < minSecret {
			return nil, fmt.Errorf("the secret has %d bytes; HMAC needs at least %d, made at random", len(m), minSecret)
		}
	}
	algs := fitting(material)
	if len(algs) == 0 {
		return nil, fmt.Errorf("keys of this kind are not supported; use RSA, EC on P-256, P-384 or P-521, or Ed25519")
	}
	return &Key{id, algs, material}, nil
}

// Secret returns the key for HMAC with that secret.
func Secret(secret []byte) (*Key, error) { return newKey("", slices.Clone(secret)) }

// PEM reads one public key or certificate.
func PEM(text string) (*Key, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("there is no PEM block in it; give a PUBLIC KEY or CERTIFICATE")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("there is more behind the first PEM block; give each key an entry of its own")
	}
	switch {
	case block.Type == "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the certificate cannot be read: %w", err)
		}
		return newKey("", cert.PublicKey)
	case block.Type == "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the public key cannot be read: %w", err)
		}
		return newKey("", key)
	case block.Type == "RSA PUBLIC KEY":
		key, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the public key cannot be read: %w", err)
		}
		return newKey("", key)
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("it is a private key, which only the issuer may have; give its public key")
	}
	return nil, fmt.Errorf("a PEM block of type %q is no key; give a PUBLIC KEY or CERTIFICATE", block.Type)
}

// Set reads a key set or a single key in JSON (RFC 7517). Keys that are not for signatures, of an unknown kind, too weak or
// broken are left out (section 5) and told in skipped; secrets and private keys too, for such a set is public.
func Set(data []byte) (keys []*Key, skipped []error, err error) {
	var doc struct {
		Keys *[]json.RawMessage `json:"keys"`
		Kty  string             `json:"kty"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, nil, fmt.Errorf("it is not a key set in JSON: %w", err)
	}
	raw := []json.RawMessage{data}
	switch {
	case doc.Keys != nil:
		raw = *doc.Keys
	case doc.Kty == "":
		return nil, nil, errors.New(`it has neither "keys" nor "kty", so it is no key set (RFC 7517)`)
	}
	if len(raw) > maxKeys {
		return nil, nil, fmt.Errorf("it has %d keys; at most %d are accepted", len(raw), maxKeys)
	}
	for i, r := range raw {
		k, err := jwk(r)
		if err != nil {
			skipped = append(skipped, fmt.Errorf("key %d: %w", i+1, err))
			continue
		}
		keys = append(keys, k)
	}
	return keys, skipped, nil
}

// jwk reads one JSON Web Key.
func jwk(data []byte) (*Key, error) {
	var use struct {
		Use string   `json:"use"`
		Ops []string `json:"key_ops"`
		Kty string   `json:"kty"`
	}
	if err := json.Unmarshal(data, &use); err != nil {
		return nil, err
	}
	switch {
	case use.Use != "" && use.Use != "sig":
		return nil, fmt.Errorf("its use is %q, not sig", use.Use)
	case use.Ops != nil && !slices.Contains(use.Ops, "verify"):
		return nil, errors.New("its key_ops do not have verify")
	case use.Kty == "oct":
		return nil, errors.New("it is a secret, which has no place in a public key set")
	}
	var parsed josev4.JSONWebKey
	if err := json.Unmarshal(data, &parsed); err != nil {
		return nil, err
	}
	switch parsed.Key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, errors.New("it is not a public key")
	}
	k, err := newKey(parsed.KeyID, parsed.Key)
	if err != nil {
		return nil, err
	}
	return k.As("", parsed.Algorithm)
}
