package jose

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

// Token is a token whose head has been read. Nothing about it has been verified.
type Token struct {
	Algorithm string
	KeyID     string // "": it names none
	Type      string // typ; "": it has none
	raw       string
	dot       int // where the signature's dot is
}

// head is what is read of a token's head. Members that bring keys along (jwk, jku, x5c, x5u) are not even looked at.
type head struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Type      string          `json:"typ"`
	Critical  json.RawMessage `json:"crit"`
	Base64    json.RawMessage `json:"b64"`
	Zip       json.RawMessage `json:"zip"`
}

// encoding is base64url without padding, and refuses stray bits in the last character, so that a token has one spelling.
var encoding = base64.RawURLEncoding.Strict()

// Parse reads a token's head. It refuses what is not exactly three parts of base64url, a head that is not one JSON object
// with every member once, critical extensions (RFC 7515 section 4.1.11: none is understood here) and unencoded payloads.
func Parse(raw string) (Token, error) {
	first, last := strings.IndexByte(raw, '.'), strings.LastIndexByte(raw, '.')
	if first <= 0 || last <= first+1 || strings.IndexByte(raw[first+1:], '.') != last-first-1 {
		return Token{}, errors.New("it is not three parts with dots between them")
	}
	if strings.ContainsAny(raw, "\r\n") { // which the decoder would skip
		return Token{}, errors.New("there are line breaks in it")
	}
	data, err := encoding.DecodeString(raw[:first])
	if err != nil || !utf8.Valid(data) {
		return Token{}, errors.New("its head is not base64url of UTF-8")
	}
	var h head
	if err := json.Unmarshal(data, &h); err != nil {
		return Token{}, fmt.Errorf("its head cannot be read: %w", err)
	}
	switch {
	case h.Critical != nil:
		return Token{}, errors.New("its head asks for extensions (crit), and none is supported")
	case h.Base64 != nil || h.Zip != nil:
		return Token{}, errors.New("its head has b64 or zip, which is not supported")
	case h.Algorithm == "":
		return Token{}, errors.New("its head names no algorithm")
	}
	return Token{h.Algorithm, h.KeyID, h.Type, raw, last}, nil
}

// Verify checks the signature with the key and returns the payload. The key must allow the token's algorithm.
func (t Token) Verify(k *Key) ([]byte, error) {
	if !k.Allows(t.Algorithm) {
		return nil, fmt.Errorf("the key is not for %.20q", t.Algorithm)
	}
	signature, err := encoding.DecodeString(t.raw[t.dot+1:])
	if err != nil {
		return nil, errors.New("its signature is not base64url")
	}
	if err := verify(k.material, t.Algorithm, []byte(t.raw[:t.dot]), signature); err != nil {
		return nil, err
	}
	payload, err := encoding.DecodeString(t.raw[strings.IndexByte(t.raw, '.')+1 : t.dot])
	if err != nil {
		return nil, errors.New("its payload is not base64url")
	}
	return payload, nil
}
