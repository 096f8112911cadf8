// Package jose verifies signed tokens in the compact form (JWS, RFC 7515) as RFC 8725 advises: the key says which
// algorithms it may be used with and the token only names one of them, headers that bring keys along are ignored, and
// whatever two programs could read differently is refused.
package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes that crypto.Hash.New finds
	_ "crypto/sha512"
	"errors"
	"math/big"
	"slices"
)

// Algorithms lists every algorithm that is supported (RFC 7518 section 3.1, RFC 8037 section 3.1). "none" is not one.
func Algorithms() []string {
	return []string{
		"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
	}
}

// ErrSignature says that the signature was not made with the key.
var ErrSignature = errors.New("the signature does not match")

// hashes of the algorithms by their last three characters.
var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

func hashOf(alg string) crypto.Hash { return hashes[alg[2:]] }

// verify checks a signature over input. alg is one that the material may be used with.
func verify(material any, alg string, input, signature []byte) error {
	switch key := material.(type) {
	case *rsa.PublicKey:
		return verifyRSA(key, alg, input, signature)
	case *ecdsa.PublicKey:
		return verifyECDSA(key, alg, input, signature)
	case ed25519.PublicKey:
		if ed25519.Verify(key, input, signature) {
			return nil
		}
	case []byte:
		mac := hmac.New(hashOf(alg).New, key)
		mac.Write(input)
		if hmac.Equal(mac.Sum(nil), signature) {
			return nil
		}
	}
	return ErrSignature
}

func verifyRSA(key *rsa.PublicKey, alg string, input, signature []byte) error {
	hash := hashOf(alg)
	digest := sum(hash, input)
	var err error
	if alg[0] == 'P' { // the salt is as long as the hash (RFC 7518 section 3.5)
		err = rsa.VerifyPSS(key, hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		err = rsa.VerifyPKCS1v15(key, hash, digest, signature)
	}
	if err != nil {
		return ErrSignature
	}
	return nil
}

// verifyECDSA reads the signature as R and S of fixed length (RFC 7518 section 3.4).
func verifyECDSA(key *ecdsa.PublicKey, alg string, input, signature []byte) error {
	size := (key.Curve.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return ErrSignature
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	if !ecdsa.Verify(key, sum(hashOf(alg), input), r, s) {
		return ErrSignature
	}
	return nil
}

func sum(hash crypto.Hash, input []byte) []byte {
	h := hash.New()
	h.Write(input)
	return h.Sum(nil)
}

// fitting returns the algorithms that a key of this kind can be used with. There are no others, whatever a token says:
// that is what keeps a public key from being taken for an HMAC secret.
func fitting(material any) []string {
	switch key := material.(type) {
	case *rsa.PublicKey:
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return []string{"ES256"}
		case 384:
			return []string{"ES384"}
		case 521:
			return []string{"ES512"}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	case []byte: // a secret is at least as long as the hash (RFC 7518 section 3.2)
		return slices.DeleteFunc([]string{"HS256", "HS384", "HS512"}, func(alg string) bool { return len(key) < hashOf(alg).Size() })
	}
	return nil
}
