package counter

import "sync"

// Buckets live in small open-addressed tables without pointers, so that the garbage collector has nothing to look at.
// A bucket that is full again says the same as no bucket: its slot is free for the next key that comes by. That makes
// forgetting part of inserting, with no sweep of its own.
const (
	shardBits  = 6
	shards     = 1 << shardBits
	firstSlots = 16 // of a shard that is used for the first time

	// maxSlots bounds one limiter's table to 64 × 16,384 slots of 24 bytes: 24 MiB, however many keys are invented.
	maxSlots = 1 << 14

	// maxProbes bounds how many slots are looked at for one key, so that a crowded table costs no more than an empty one.
	maxProbes = 32
)

// slot is one key's bucket. Keys are told apart by a 64-bit hash under a secret seed: a million live keys meet once in
// forty million such tables, and nobody outside can make two meet.
type slot struct {
	hash     uint64 // 0: never used
	full     int64  // when the bucket is full again, Unix nanoseconds
	interval int64  // of the pace that wrote it
}

// shard is a part of a table under its own lock, on its own cache line.
type shard struct {
	mu     sync.Mutex
	slots  []slot
	shared slot // for the keys that find no place
	_      [8]byte
}

// find returns the key's slot, or a fresh one. placed is false when there is no place among live buckets: then the slot
// is shared with all other keys of the shard that find none. No live bucket is ever given up for a new key, so inventing
// keys does not reset anybody's limit; and the inventor does not get around it either.
func (s *shard) find(hash uint64, now int64) (p *slot, placed bool) {
	if s.slots == nil {
		s.slots = make([]slot, firstSlots)
	}
	for {
		if p := probe(s.slots, hash, now); p != nil {
			return p, true
		}
		if !s.grow(now) {
			return &s.shared, false
		}
	}
}

// probe returns the slot that has the hash or, failing that, takes the first free one; nil: neither is near.
func probe(slots []slot, hash uint64, now int64) *slot {
	mask := uint64(len(slots) - 1)
	var free *slot
	for i := range uint64(min(maxProbes, len(slots))) {
		p := &slots[(hash>>shardBits+i)&mask]
		if p.hash == hash {
			return p
		}
		if free == nil && (p.hash == 0 || p.full <= now) {
			free = p
		}
		if p.hash == 0 {
			break
		}
	}
	if free != nil {
		*free = slot{hash: hash, full: now}
	}
	return free
}

// grow doubles the shard and leaves out the buckets that are full again. It returns false at the limit.
func (s *shard) grow(now int64) bool {
	if len(s.slots) >= maxSlots {
		return false
	}
	bigger := make([]slot, 2*len(s.slots))
	for _, old := range s.slots {
		if old.full <= now {
			continue
		}
		p := probe(bigger, old.hash, now)
		if p == nil {
			return false // all in one corner: keep what there is
		}
		*p = old
	}
	s.slots = bigger
	return true
}
