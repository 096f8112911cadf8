package jwks

import (
	"time"

	"headgate/internal/jose"
)

// Set is the keys of a provider at one time. It is immutable.
type Set struct {
	Version uint64    // changes when the keys do
	Fetched time.Time // when the provider last gave it
	keys    []*jose.Key
	sum     [32]byte // of what the provider sent
}

// NewSet returns a set of keys that never change.
func NewSet(keys []*jose.Key) *Set { return &Set{keys: keys} }

// Knows reports whether a key of the set has the id. A nil set knows none.
func (s *Set) Knows(id string) bool {
	if s == nil {
		return false
	}
	for _, k := range s.keys {
		if k.ID == id {
			return true
		}
	}
	return false
}

// maxTries stops a token that names no key from being tried with every key of a large set.
const maxTries = 4

// Verify checks the token with the keys that its head can mean: those of its key id, and those without an id; all of them
// when it names none. tried is false when there was no such key for its algorithm.
func (s *Set) Verify(t jose.Token) (payload []byte, tried bool, err error) {
	if s == nil {
		return nil, false, nil
	}
	tries := 0
	for _, k := range s.keys {
		if !k.Allows(t.Algorithm) || (t.KeyID != "" && k.ID != "" && k.ID != t.KeyID) {
			continue
		}
		if payload, err = t.Verify(k); err == nil {
			return payload, true, nil
		}
		if tries++; tries == maxTries {
			break
		}
	}
	return nil, tries > 0, err
}
