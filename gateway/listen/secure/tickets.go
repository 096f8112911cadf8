package secure

import (
	"crypto/hmac"
	"crypto/sha256"
	"io"
	"time"
)

// keptKeys is how many keys of tickets there are at most: the current one, and the two before it, which are still read.
// An older ticket costs its client a full handshake; more keys would be more to steal.
const keptKeys = 3

// ring is the secrets from which the keys of tickets are made, the current one first. The keeper's lock guards it.
type ring struct {
	secrets [][sha256.Size]byte
	made    time.Time // when the current one was
}

// turn makes a new secret when the current one is as old as the rotation. It reports whether it did. After a long sleep the
// old ones are forgotten, as they would have been.
func (r *ring) turn(now time.Time, rotation time.Duration, random io.Reader) (turned bool, err error) {
	if len(r.secrets) > 0 && now.Before(r.made) { // the clock was set back: what was made in the future is made now
		r.made = now
	}
	for len(r.secrets) == 0 || now.Sub(r.made) >= rotation {
		var fresh [sha256.Size]byte
		if _, err := io.ReadFull(random, fresh[:]); err != nil {
			return turned, err
		}
		switch {
		case len(r.secrets) == 0 || now.Sub(r.made) >= keptKeys*rotation:
			r.secrets, r.made = nil, now
		default:
			r.made = r.made.Add(rotation)
		}
		r.secrets = append([][sha256.Size]byte{fresh}, r.secrets...)
		r.secrets = r.secrets[:min(len(r.secrets), keptKeys)]
		turned = true
	}
	return turned, nil
}

// keys returns the keys for listeners that believe the same clients' certificates in the same way. A ticket carries what
// was verified when it was made, so those who would verify something else must not be able to read it.
func (r *ring) keys(identity [sha256.Size]byte) [][32]byte {
	keys := make([][32]byte, len(r.secrets))
	for i, secret := range r.secrets {
		mac := hmac.New(sha256.New, secret[:])
		mac.Write([]byte("headgate session tickets\x00"))
		mac.Write(identity[:])
		keys[i] = [32]byte(mac.Sum(nil))
	}
	return keys
}
