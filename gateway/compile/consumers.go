package compile

import (
	"crypto/sha256"
	"crypto/subtle"
	"runtime"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/internal/recall"
)

const (
	// maxVerified bounds the passwords that are remembered as verified. Only good ones get in, so strangers can neither fill
	// the memory nor push anybody out.
	maxVerified = 1 << 14
	// verifiedSize is about what one of them takes, in bytes.
	verifiedSize = 160
	// maxPassword is what bcrypt looks at: it refuses more, so more is never good.
	maxPassword = 72
)

// directory is every consumer of one document, by what it proves itself with. It is immutable.
type directory struct {
	hash       decode.Hash // of the document's section
	generation uint64
	keys       map[[sha256.Size]byte]*exchange.Consumer
	passwords  map[string]password // by user name
	subjects   map[string]*exchange.Consumer
	certs      map[certificateKey]*exchange.Consumer
	cost       int // the highest cost of a bcrypt hash; 0: there is none
}

// password is what verifies one user's password.
type password struct {
	owner  *exchange.Consumer
	bcrypt []byte            // nil: sum verifies it
	sum    [sha256.Size]byte // of the password that came by reference, with the consumers' salt
}

// Consumers implements policy.Consumers over the directory of the current snapshot. Policies keep it over reloads.
type Consumers struct {
	current  atomic.Pointer[directory]
	salt     [sha256.Size]byte // secret: what it goes into cannot be searched for
	verified *recall.Memory[*exchange.Consumer]
	slow     chan struct{}
	decoys   atomic.Pointer[decoy]
}

// decoy is a hash that nobody has the password of. Unknown users are verified against it, so that the time of the answer
// does not tell which users there are.
type decoy struct {
	cost int
	hash []byte
}

var _ policy.Consumers = (*Consumers)(nil)

func newConsumers(random func([]byte)) *Consumers {
	c := &Consumers{
		verified: recall.New[*exchange.Consumer](maxVerified, maxVerified*verifiedSize),
		// Verifying passwords must leave at least half of the cores to everybody else: bcrypt is made to be slow, and
		// anybody can ask for it.
		slow: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	random(c.salt[:])
	c.current.Store(&directory{})
	return c
}

// publish makes d the directory that is looked into. A directory with the same content as the last keeps the generation.
func (c *Consumers) publish(d *directory) {
	old := c.current.Load()
	if old == d {
		return
	}
	d.generation = old.generation + 1
	c.current.Store(d)
}

// ByKey implements policy.Consumers.
func (c *Consumers) ByKey(sum [sha256.Size]byte) *exchange.Consumer {
	return c.current.Load().keys[sum]
}

// BySubject implements policy.Consumers.
func (c *Consumers) BySubject(subject string) *exchange.Consumer {
	return c.current.Load().subjects[subject]
}

// ByCertificate implements policy.Consumers.
func (c *Consumers) ByCertificate(kind, value string) *exchange.Consumer {
	return c.current.Load().certs[certificateKey{kind, value}]
}

// Generation implements policy.Consumers.
func (c *Consumers) Generation() uint64 { return c.current.Load().generation }

// ByPassword implements policy.Consumers. With slow it may wait for its turn: only some cores verify at one time.
func (c *Consumers) ByPassword(username, word string, slow bool) (owner *exchange.Consumer, ready bool) {
	d := c.current.Load()
	p, known := d.passwords[username]
	switch {
	case len(word) > maxPassword || !known && d.cost == 0:
		return nil, true
	case known && p.bcrypt == nil:
		if sum := c.sum(username, word); subtle.ConstantTimeCompare(sum[:], p.sum[:]) == 1 {
			return p.owner, true
		}
		return nil, true
	}
	sum := c.sum(username, word)
	key, version := recallKey(sum), recall.Version{d.generation}
	if owner, ok := c.verified.Get(key, version, 0); ok {
		return owner, true
	}
	if !slow {
		return nil, false
	}
	hash := p.bcrypt
	if !known {
		hash = c.decoy(d.cost)
	}
	c.slow <- struct{}{}
	err := bcrypt.CompareHashAndPassword(hash, []byte(word))
	<-c.slow
	if err != nil || !known {
		return nil, true
	}
	c.verified.Put(key, version, 0, 0, verifiedSize, p.owner)
	return p.owner, true
}

// sum is a digest of user name and password with the secret salt.
func (c *Consumers) sum(username, word string) (sum [sha256.Size]byte) {
	b := make([]byte, 0, 256)
	b = append(b, c.salt[:]...)
	b = append(b, username...)
	b = append(b, 0) // a user name has no NUL
	b = append(b, word...)
	return sha256.Sum256(b)
}

func recallKey(sum [sha256.Size]byte) (k recall.Key) {
	for i, b := range sum {
		k[i/8] |= uint64(b) << (i % 8 * 8)
	}
	return k
}

// decoy returns a hash of that cost, made once.
func (c *Consumers) decoy(cost int) []byte {
	if d := c.decoys.Load(); d != nil && d.cost == cost {
		return d.hash
	}
	hash, err := bcrypt.GenerateFromPassword(c.salt[:16], cost)
	if err != nil {
		return nil // compares as wrong, at once
	}
	c.decoys.Store(&decoy{cost, hash})
	return hash
}
