package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"time"

	"headgate/bench/peers"
)

const (
	issuer   = "https://login.example.com"
	audience = "shop"
)

// sign makes a key pair for the case, and its tokens.
func sign(algorithm string) func(*peers.Settings) error {
	return func(s *peers.Settings) error {
		key, err := newKey(algorithm)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return err
		}
		s.JWT = &peers.JWT{
			Algorithm: algorithm, Issuer: issuer, Audience: audience,
			PEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		}
		for i := range consumers {
			token, err := newToken(key, algorithm, i, time.Now())
			if err != nil {
				return err
			}
			s.JWT.Tokens = append(s.JWT.Tokens, token)
		}
		return nil
	}
}

func newKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "RS256":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return nil, fmt.Errorf("no key for %s", algorithm)
}

// newToken signs a token (RFC 7519) of one subject that lives for a day.
func newToken(key crypto.Signer, algorithm string, subject int, now time.Time) (string, error) {
	part := base64.RawURLEncoding.EncodeToString
	signed := part([]byte(`{"alg":"`+algorithm+`","typ":"JWT"}`)) + "." + part(fmt.Appendf(nil,
		`{"iss":"%s","aud":"%s","sub":"user-%04d","iat":%d,"exp":%d,"scope":"orders:read orders:write","email":"user-%04d@example.com"}`,
		issuer, audience, subject, now.Unix(), now.Add(24*time.Hour).Unix(), subject))
	digest := sha256.Sum256([]byte(signed))
	var signature []byte
	switch k := key.(type) {
	case *ecdsa.PrivateKey: // RFC 7518, section 3.4: r and s, 32 bytes each
		r, s, err := ecdsa.Sign(rand.Reader, k, digest[:])
		if err != nil {
			return "", err
		}
		signature = make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
	default:
		var err error
		if signature, err = key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			return "", err
		}
	}
	return signed + "." + part(signature), nil
}

func tokenRequests(s *peers.Settings) ([][]byte, error) {
	var all [][]byte
	for _, t := range s.JWT.Tokens {
		all = append(all, request("GET", "/api/orders/42?expand=items", "Authorization: Bearer "+t+"\r\n"))
	}
	return all, nil
}
