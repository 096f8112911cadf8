// Package sticky is the cookie by which a client comes back to the variant and to the target that answered it before.
//
// Its value is a digit for its version and, in base64url, one encrypted block and its tag:
//
//	number (2 bytes) | minute of expiry (4) | target (8) | zero (2), under AES-128; then 16 bytes of HMAC-SHA256
//
// The number, drawn once for each client, is what a split assigns by; 65,536 of them are too few to know anybody again by.
// Encryption keeps a client from learning how many targets there are and which of them it has. Both keys are derived from
// the operator's key and from the upstream's name, so that the cookie of one upstream is worth nothing to another.
package sticky

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// Pin is what a client is pinned to.
type Pin struct {
	Number uint16 // by which a split assigns it
	Target uint64 // affinity of the target; 0: none yet
	Old    bool   // that says so is signed by a key that signs no more: to be set anew
}

// Cookie reads and sets the cookie of one upstream. Before Use it knows no client.
type Cookie struct {
	upstream   string
	name       string
	attributes string // what follows the value
	lifetime   time.Duration
	keys       atomic.Pointer[[]*keys] // the first one signs
}

// MinKey is the fewest characters of a key in the document.
const MinKey = 32

// maxKeys bounds what a cookie is tried by: one that is forged costs as many tags.
const maxKeys = 4

const (
	// version is the first character of a value. A value of another version is none.
	version   = '1'
	blockSize = aes.BlockSize
	// tagSize is half of a SHA-256, and the least that RFC 2104 section 5 allows: to guess one takes 2^127 requests.
	tagSize = sha256.Size / 2
	// valueSize is the length of every value, and the bound of what is looked at.
	valueSize = 1 + ((blockSize+tagSize)*8+5)/6
)

// encoding has one spelling for each value.
var encoding = base64.RawURLEncoding.Strict()

// keys are those of one upstream.
type keys struct {
	block   cipher.Block
	sealers sync.Pool // of *sealer, which nobody can observe
}

// sealer is what it takes to make or to check one value without an allocation.
type sealer struct {
	mac   hash.Hash
	plain [blockSize]byte
	bytes [blockSize + tagSize]byte
	text  [valueSize]byte
	sum   [sha256.Size]byte
}

// New returns the cookie of an upstream.
func New(upstream string, m *model.Sticky) *Cookie {
	c := &Cookie{upstream: upstream, name: m.Cookie, lifetime: m.MaxAge}
	c.attributes = "; Path=/; HttpOnly; SameSite=" + map[string]string{"strict": "Strict", "lax": "Lax", "none": "None"}[m.SameSite]
	if m.MaxAge > 0 {
		c.attributes += "; Max-Age=" + strconv.FormatInt(int64(max(1, m.MaxAge/time.Second)), 10)
	}
	return c
}

// Name is the cookie's.
func (c *Cookie) Name() string { return c.name }

// Use makes the first key that of all values from now on, and believes those of the others, of which there are at most three.
// What was signed by any other key is not believed any more.
func (c *Cookie) Use(list ...[]byte) {
	var all []*keys
	for _, key := range list[:min(len(list), maxKeys)] {
		block, err := aes.NewCipher(derive(key, "block", c.upstream)[:16])
		if err != nil { // 16 bytes are always a key
			return
		}
		macKey := derive(key, "tag", c.upstream)
		k := &keys{block: block}
		k.sealers.New = func() any { return &sealer{mac: hmac.New(sha256.New, macKey)} }
		all = append(all, k)
	}
	c.keys.Store(&all)
}

// known returns the keys, the one that signs first; none before Use.
func (c *Cookie) known() []*keys {
	if all := c.keys.Load(); all != nil {
		return *all
	}
	return nil
}

// derive makes a key for one purpose.
func derive(key []byte, purpose, upstream string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("headgate sticky " + string(rune(version)) + " " + purpose + "\x00" + upstream))
	return h.Sum(nil)
}

// Take reads the pin of a request and removes the cookie from it: it is the gateway's own business. What is forged, of
// another upstream, expired or no value at all is no pin.
func (c *Cookie) Take(x *exchange.Exchange) (p Pin, ok bool) {
	value, there := x.Request.Header.Cookie(c.name)
	if !there {
		return p, false
	}
	x.Request.Header.DropCookie(c.name)
	return c.read(value, x.Start)
}

func (c *Cookie) read(value string, now time.Time) (p Pin, ok bool) {
	if len(value) != valueSize || value[0] != version {
		return p, false
	}
	for i, k := range c.known() {
		if p, ok = k.read(value, now); ok {
			p.Old = i > 0
			return p, true
		}
	}
	return p, false
}

func (k *keys) read(value string, now time.Time) (p Pin, ok bool) {
	s := k.sealers.Get().(*sealer)
	defer k.sealers.Put(s)
	copy(s.text[:], value)
	if _, err := encoding.Decode(s.bytes[:], s.text[1:]); err != nil {
		return p, false
	}
	if !hmac.Equal(s.tag(), s.bytes[blockSize:]) {
		return p, false
	}
	k.block.Decrypt(s.plain[:], s.bytes[:blockSize])
	if until := binary.BigEndian.Uint32(s.plain[2:]); until != 0 && now.Unix()/60 >= int64(until) {
		return p, false
	}
	return Pin{Number: binary.BigEndian.Uint16(s.plain[:]), Target: binary.BigEndian.Uint64(s.plain[6:])}, true
}

// tag authenticates the encrypted block.
func (s *sealer) tag() []byte {
	s.mac.Reset()
	s.mac.Write(s.bytes[:blockSize])
	return s.mac.Sum(s.sum[:0])[:tagSize]
}

// Set adds the field that gives the client a pin to the reply.
func (c *Cookie) Set(x *exchange.Exchange, p Pin) {
	all := c.known()
	if len(all) == 0 {
		return
	}
	field := c.name + "=" + c.value(all[0], p, x.Start) + c.attributes
	if x.Client.Secure {
		field += "; Secure"
	}
	x.Reply.Header.Add("Set-Cookie", field)
}

func (c *Cookie) value(k *keys, p Pin, now time.Time) string {
	s := k.sealers.Get().(*sealer)
	defer k.sealers.Put(s)
	s.plain = [blockSize]byte{}
	binary.BigEndian.PutUint16(s.plain[:], p.Number)
	if c.lifetime > 0 { // up to the next minute: the client's own clock has the seconds
		binary.BigEndian.PutUint32(s.plain[2:], uint32(now.Add(c.lifetime).Unix()/60+1))
	}
	binary.BigEndian.PutUint64(s.plain[6:], p.Target)
	k.block.Encrypt(s.bytes[:blockSize], s.plain[:])
	copy(s.bytes[blockSize:], s.tag())
	s.text[0] = version
	encoding.Encode(s.text[1:], s.bytes[:])
	return string(s.text[:])
}
