package apikey

import (
	"crypto/sha256"
	"hash/maphash"
	"unsafe"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/metric"
	"headgate/internal/recall"
)

const (
	// maxKey stops senders of huge keys from having them hashed.
	maxKey = 1024
	// maxRemembered bounds the keys that are remembered. Only keys that are good get in, so strangers can neither fill
	// the memory nor push anybody out.
	maxRemembered = 1 << 16
	// entrySize is about what one of them takes, in bytes.
	entrySize = 128
)

// index finds the owner of a key.
type index struct {
	consumers  policy.Consumers
	remembered *memory
	verified   *metric.Counter
}

// memory outlives reloads; the consumers' generation tells whether what it knows still holds.
type memory struct {
	owners *recall.Memory[*exchange.Consumer]
	seeds  [2]maphash.Seed // secret, so that nobody can make a key that hashes like another
}

func newIndex(e policy.Env) *index {
	return &index{
		consumers: e.Consumers,
		remembered: policy.Keep(e, "owners", func() *memory {
			return &memory{
				owners: recall.New[*exchange.Consumer](maxRemembered, maxRemembered*entrySize),
				seeds:  [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
			}
		}),
		verified: e.Metrics.Counter("headgate_api_key_verifications_total",
			"Keys that were looked up by their SHA-256, because they were not remembered.", e.Labels...),
	}
}

// owner returns who owns the key, or nil. A remembered key costs two keyed hashes; any other one SHA-256.
func (i *index) owner(x *exchange.Exchange, key string) *exchange.Consumer {
	if len(key) > maxKey {
		return nil
	}
	m := i.remembered
	hash := recall.Key{maphash.String(m.seeds[0], key), maphash.String(m.seeds[1], key)}
	version := recall.Version{i.consumers.Generation()}
	if c, ok := m.owners.Get(hash, version, 0); ok {
		return c
	}
	i.verified.Inc(x.Shard)
	// SHA-256 only reads the bytes, so they need not be copied out of the string.
	c := i.consumers.ByKey(sha256.Sum256(unsafe.Slice(unsafe.StringData(key), len(key))))
	if c != nil {
		m.owners.Put(hash, version, 0, 0, entrySize, c)
	}
	return c
}
