package policytest

import (
	"crypto/sha256"
	"sync"

	"headgate/gateway/exchange"
)

// Consumers is who is known in a world. It is safe for concurrent use.
type Consumers struct {
	mu         sync.RWMutex
	keys       map[[32]byte]*exchange.Consumer
	passwords  map[string]*exchange.Consumer
	subjects   map[string]*exchange.Consumer
	certs      map[[2]string]*exchange.Consumer
	verified   map[string]bool
	generation uint64
}

// NewConsumers returns an empty set.
func NewConsumers() *Consumers {
	return &Consumers{
		keys: map[[32]byte]*exchange.Consumer{}, passwords: map[string]*exchange.Consumer{},
		subjects: map[string]*exchange.Consumer{}, certs: map[[2]string]*exchange.Consumer{}, verified: map[string]bool{},
	}
}

// Proof is what a consumer shows to be known by.
type Proof func(*Consumers, *exchange.Consumer)

// Key is an API key.
func Key(key string) Proof {
	return func(c *Consumers, who *exchange.Consumer) { c.keys[sha256.Sum256([]byte(key))] = who }
}

// Password is a user name and a password.
func Password(username, password string) Proof {
	return func(c *Consumers, who *exchange.Consumer) { c.passwords[username+":"+password] = who }
}

// Subject is a token's subject.
func Subject(subject string) Proof {
	return func(c *Consumers, who *exchange.Consumer) { c.subjects[subject] = who }
}

// Certificate is a property of a certificate, such as dns and ada.example.
func Certificate(kind, value string) Proof {
	return func(c *Consumers, who *exchange.Consumer) { c.certs[[2]string{kind, value}] = who }
}

// Add makes a consumer known, as a reload does.
func (c *Consumers) Add(who *exchange.Consumer, proofs ...Proof) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range proofs {
		p(c, who)
	}
	c.generation++
}

// Clear makes nobody known, as a reload does.
func (c *Consumers) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.keys)
	clear(c.passwords)
	clear(c.subjects)
	clear(c.certs)
	clear(c.verified)
	c.generation++
}

// ByKey implements policy.Consumers.
func (c *Consumers) ByKey(sum [32]byte) *exchange.Consumer {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.keys[sum]
}

// ByPassword implements policy.Consumers: like the real one it knows a pair without waiting only once it has verified it.
func (c *Consumers) ByPassword(username, password string, slow bool) (*exchange.Consumer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pair := username + ":" + password
	if !c.verified[pair] && !slow {
		return nil, false
	}
	who := c.passwords[pair]
	if who != nil {
		c.verified[pair] = true
	}
	return who, true
}

// BySubject implements policy.Consumers.
func (c *Consumers) BySubject(subject string) *exchange.Consumer {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.subjects[subject]
}

// ByCertificate implements policy.Consumers.
func (c *Consumers) ByCertificate(kind, value string) *exchange.Consumer {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.certs[[2]string{kind, value}]
}

// Generation implements policy.Consumers.
func (c *Consumers) Generation() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.generation
}
