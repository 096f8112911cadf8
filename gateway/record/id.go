package record

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"
)

// idShards is how many generators there are; more than there are counters' shards, because each is locked for a moment.
const idShards = 32

// maxID is the longest correlation id that is accepted: ids are kept, sent on and logged, so a longer one would let a
// peer inflate every line.
const maxID = 128

// uuidLen is the length of a UUID as text.
const uuidLen = 36

// source makes ids from ChaCha8, which cannot be predicted from its output, seeded by the operating system.
type source struct {
	shards [idShards]struct {
		mu  sync.Mutex
		rng *rand.ChaCha8
		_   [48]byte // a line for each lock
	}
}

func newSource() *source {
	s := new(source)
	for i := range s.shards {
		var seed [32]byte
		_, _ = crand.Read(seed[:]) // never fails: the runtime ends the program if the system has no randomness
		s.shards[i].rng = rand.NewChaCha8(seed)
	}
	return s
}

// draw fills n with random numbers.
func (s *source) draw(shard uint32, n []uint64) {
	g := &s.shards[shard%idShards]
	g.mu.Lock()
	for i := range n {
		n[i] = g.rng.Uint64()
	}
	g.mu.Unlock()
}

// appendUUID appends a UUIDv7 (RFC 9562 section 5.7): 48 bits of Unix milliseconds, then 74 random bits around the
// version and the variant.
func appendUUID(b []byte, t time.Time, random [2]uint64) []byte {
	var u [16]byte
	binary.BigEndian.PutUint64(u[:8], uint64(t.UnixMilli())<<16|0x7000|random[0]&0x0fff)
	binary.BigEndian.PutUint64(u[8:], 1<<63|random[1]>>2)
	var text [uuidLen]byte
	at := 0
	for i, c := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text[at] = '-'
			at++
		}
		text[at], text[at+1] = hexDigits[c>>4], hexDigits[c&15]
		at += 2
	}
	return append(b, text[:]...)
}

// validID reports whether a peer's correlation id may be used: 1 to 128 visible ASCII characters.
func validID(s string) bool {
	if len(s) == 0 || len(s) > maxID {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
