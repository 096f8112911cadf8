package compile

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
)

// certificateKey is a property of a certificate by which a consumer is known.
type certificateKey struct{ kind, value string }

// parseCertificate reads KIND:VALUE, and brings the value into the form in which certificates are looked up.
func parseCertificate(s string) (k certificateKey, err error) {
	kind, value, _ := strings.Cut(s, ":")
	if value == "" {
		return k, fmt.Errorf("%q is no property of a certificate; write thumbprint:SHA256, subject:DN, dns:NAME, uri:URI or email:ADDRESS", s)
	}
	switch kind {
	case "thumbprint":
		value, err = parseThumbprint(value)
	case "subject":
		if !strings.Contains(value, "=") {
			err = fmt.Errorf("%q is not a distinguished name; write it as openssl x509 -noout -subject -nameopt RFC2253 does, such as "+
				"CN=orders,O=Example", value)
		}
	case "dns":
		value = strings.ToLower(value)
	case "email":
		if value = strings.ToLower(value); !strings.Contains(value, "@") {
			err = fmt.Errorf("%q is not an address of mail", value)
		}
	case "uri":
		if u, parseErr := url.Parse(value); parseErr != nil || u.Scheme == "" {
			err = fmt.Errorf("%q is not a URI; write one such as spiffe://example.com/orders", value)
		}
	default:
		err = fmt.Errorf("%q is not a property of certificates; write thumbprint, subject, dns, uri or email", kind)
	}
	return certificateKey{kind, value}, err
}

// parseThumbprint reads a SHA-256 as tools print it, hexadecimal with or without colons, or as x5t#S256 has it.
func parseThumbprint(s string) (string, error) {
	if sum, err := hex.DecodeString(strings.ReplaceAll(s, ":", "")); err == nil && len(sum) == sha256.Size {
		return base64.RawURLEncoding.EncodeToString(sum), nil
	}
	if sum, err := base64.RawURLEncoding.Strict().DecodeString(s); err == nil && len(sum) == sha256.Size {
		return s, nil
	}
	return "", fmt.Errorf("%q is not the SHA-256 of a certificate; write 64 hexadecimal digits (openssl x509 -noout -fingerprint -sha256) "+
		"or base64url", s)
}
