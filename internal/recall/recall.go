// Package recall remembers what was verified lately, so that a repeated credential costs one look-up instead of a hash,
// a signature or a password check. Reading takes no lock and writes nothing that cores share; memory is bounded by count
// and by bytes and grows only as it is used.
package recall

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Key is a hash of the credential, wide enough that nobody finds another credential with the same one: keyed, or of a
// collision-resistant function.
type Key [4]uint64

// Sum returns the SHA-256 of a credential, for what is too long or too public for a keyed hash. It allocates nothing.
func Sum(credential string) Key {
	// SHA-256 only reads the bytes, so they need not be copied out of the string.
	sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(credential), len(credential)))
	return Key{
		binary.LittleEndian.Uint64(sum[0:]), binary.LittleEndian.Uint64(sum[8:]),
		binary.LittleEndian.Uint64(sum[16:]), binary.LittleEndian.Uint64(sum[24:]),
	}
}

// Version is the state of the world in which something was verified, such as the generation of the consumers. What was
// remembered in another one is forgotten.
type Version [2]uint64

const (
	// ways is how many entries compete for one place. Nobody knows which credentials share a place, so nobody can push
	// out a chosen one.
	ways = 4
	// spread is how many slots there are for each entry. With fewer, some places have more entries than ways while others
	// are empty, and those would push each other out for ever.
	spread = 4
	// smallest is the size of a table at first; most policies of a large document see little traffic.
	smallest = 64
	// sweepLimit stops one large entry from searching the whole table for room.
	sweepLimit = 256
)

// Memory is bounded. It is safe for concurrent use.
type Memory[V any] struct {
	table    atomic.Pointer[table[V]]
	maxCount int
	maxBytes int
	seed     [2]uint64

	writing sync.Mutex // guards what follows and every write to the table
	count   int
	bytes   int
	hand    int // where the next sweep for room begins
}

type table[V any] struct{ slots []atomic.Pointer[entry[V]] }

type entry[V any] struct {
	key     Key
	version Version
	until   int64 // nanoseconds since 1970; 0: for ever
	bytes   int
	used    atomic.Bool // since the last entry that looked for a place here
	value   V
}

// New returns a memory of at most count entries (rounded up to a power of two, at least 64) that together say that they
// take at most bytes.
func New[V any](count, bytes int) *Memory[V] {
	m := &Memory[V]{maxCount: smallest, maxBytes: bytes, seed: [2]uint64{rand.Uint64(), rand.Uint64()}}
	for m.maxCount < count {
		m.maxCount *= 2
	}
	m.table.Store(&table[V]{make([]atomic.Pointer[entry[V]], smallest)})
	return m
}

// Get returns what was remembered under the key in this version and has not run out by now (nanoseconds since 1970).
func (m *Memory[V]) Get(key Key, version Version, now int64) (v V, ok bool) {
	set := m.place(m.table.Load(), key)
	for i := range set {
		e := set[i].Load()
		if e == nil || e.key != key {
			continue
		}
		if e.version != version || e.over(now) {
			return v, false
		}
		if !e.used.Load() { // a popular entry is only read
			e.used.Store(true)
		}
		return e.value, true
	}
	return v, false
}

// Put remembers a value until a time (nanoseconds since 1970; 0: for ever). bytes is about what it takes. It never
// blocks: when another goroutine is writing, or there is no room, nothing is remembered and the next repeat pays again.
func (m *Memory[V]) Put(key Key, version Version, now, until int64, bytes int, value V) {
	if bytes > m.maxBytes || !m.writing.TryLock() {
		return
	}
	defer m.writing.Unlock()
	t := m.table.Load()
	if m.count >= len(t.slots)/spread && len(t.slots) < m.maxCount*spread {
		t = m.grow(t)
	}
	slot := m.choose(m.place(t, key), key, version, now)
	m.drop(slot)
	for range sweepLimit {
		if m.fits(bytes) {
			break
		}
		m.hand = (m.hand + 1) % len(t.slots)
		if e := t.slots[m.hand].Load(); e != nil && e.version == version && e.used.Swap(false) {
			continue // read lately: second chance
		}
		m.drop(&t.slots[m.hand])
	}
	if !m.fits(bytes) {
		return
	}
	m.count++
	m.bytes += bytes
	slot.Store(&entry[V]{key: key, version: version, until: until, bytes: bytes, value: value})
}

func (m *Memory[V]) fits(bytes int) bool { return m.bytes+bytes <= m.maxBytes && m.count < m.maxCount }

// Len returns how many entries there are, and how many bytes they say that they take.
func (m *Memory[V]) Len() (count, bytes int) {
	m.writing.Lock()
	defer m.writing.Unlock()
	return m.count, m.bytes
}

func (e *entry[V]) over(now int64) bool { return e.until != 0 && now >= e.until }

// place returns the slots that the key may stand in. The secret seed decides, also where the key itself is no secret.
func (m *Memory[V]) place(t *table[V], key Key) []atomic.Pointer[entry[V]] {
	hi, lo := bits.Mul64(key[0]^m.seed[0], key[1]^m.seed[1]|1)
	sets := uint64(len(t.slots) / ways)
	at := (hi ^ lo) & (sets - 1) * ways
	return t.slots[at : at+ways : at+ways]
}

// choose picks the slot to be written: the key's own, an empty or outlived one, else one not read lately (second chance).
func (m *Memory[V]) choose(set []atomic.Pointer[entry[V]], key Key, version Version, now int64) *atomic.Pointer[entry[V]] {
	var free, idle *atomic.Pointer[entry[V]]
	for i := range set {
		switch e := set[i].Load(); {
		case e == nil || e.version != version || e.over(now):
			free = &set[i]
		case e.key == key:
			return &set[i]
		case !e.used.Load():
			idle = &set[i]
		}
	}
	if free != nil {
		return free
	}
	for i := range set {
		set[i].Load().used.Store(false)
	}
	if idle != nil {
		return idle
	}
	return &set[key[3]%ways]
}

func (m *Memory[V]) drop(slot *atomic.Pointer[entry[V]]) {
	if e := slot.Load(); e != nil {
		m.count--
		m.bytes -= e.bytes
		slot.Store(nil)
	}
}

// grow doubles the table. Each set is split in two, so every entry finds a slot again. Readers of the old table see the
// old entries.
func (m *Memory[V]) grow(old *table[V]) *table[V] {
	t := &table[V]{make([]atomic.Pointer[entry[V]], 2*len(old.slots))}
	for i := range old.slots {
		e := old.slots[i].Load()
		if e == nil {
			continue
		}
		set := m.place(t, e.key)
		for j := range set {
			if set[j].Load() == nil {
				set[j].Store(e)
				break
			}
		}
	}
	m.table.Store(t)
	return t
}
