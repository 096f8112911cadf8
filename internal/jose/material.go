package jose

import (
	"encoding/base64"
	"errors"

	"headgate/internal/secret"
)

// Material is a key as a document gives it: exactly one of PEM, JWKS and Secret.
type Material struct {
	ID        string        `yaml:"id" doc:"Its key id, as tokens name it in kid. Without one it is tried with every token."`
	Algorithm string        `yaml:"algorithm" doc:"The only one that it is used with; otherwise all that fit its kind."`
	PEM       string        `yaml:"pem" doc:"A public key or certificate, inline or by ${file:PATH}."`
	JWKS      string        `yaml:"jwks" doc:"A JSON Web Key or key set, inline or by ${file:PATH}."`
	Secret    secret.String `yaml:"secret" literal:"never" doc:"The secret of HS256, HS384 or HS512, at least as long as the hash, by reference."`
	Encoding  string        `yaml:"encoding" oneof:"text base64" doc:"How the secret is written."`
}

// SetDefaults says that secrets are text.
func (m *Material) SetDefaults() { m.Encoding = "text" }

// FromScalar reads a key written alone: JSON, or else PEM.
func (m *Material) FromScalar(s string) error {
	if s != "" && s[0] == '{' {
		m.JWKS = s
	} else {
		m.PEM = s
	}
	return nil
}

// Keys returns the key, or the keys of the set, under the id and pinned to the algorithm that are given. Unlike a set from
// elsewhere, one in the document must not have a key that cannot be used.
func (m *Material) Keys() ([]*Key, error) {
	keys, err := m.read()
	if err != nil {
		return nil, err
	}
	if len(keys) > 1 && m.ID != "" {
		return nil, errors.New("id would name several keys; leave it out, the keys of a set have their own")
	}
	for i, k := range keys {
		if keys[i], err = k.As(m.ID, m.Algorithm); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func (m *Material) read() ([]*Key, error) {
	given := 0
	for _, there := range []bool{m.PEM != "", m.JWKS != "", !m.Secret.Empty()} {
		if there {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, errors.New("give one of pem, jwks or secret")
	case m.JWKS != "":
		keys, skipped, err := Set([]byte(m.JWKS))
		return keys, errors.Join(append(skipped, err)...)
	case m.PEM != "":
		return one(PEM(m.PEM))
	case m.Encoding == "base64":
		raw, err := base64.StdEncoding.DecodeString(m.Secret.Reveal())
		if err != nil {
			return nil, errors.New("the secret is not base64; write it so, or leave encoding out")
		}
		return one(Secret(raw))
	}
	return one(Secret([]byte(m.Secret.Reveal())))
}

func one(k *Key, err error) ([]*Key, error) { return []*Key{k}, err }
