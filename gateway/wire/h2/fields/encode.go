package fields

import (
	"hash/maphash"
	"strings"

	"headgate/gateway/exchange"
)

// MaxTable is the size of the table of either direction, in bytes as RFC 7541 counts: what the fields of one connection
// may make anybody remember while it idles.
const MaxTable = 4 << 10

// maxEntries bounds the encoder's table apart from its bytes, so that looking through it stays cheap.
const maxEntries = 32

// Encoder writes field sections by HPACK (RFC 7541). It differs from x/net's in what it costs: names are lower-cased on
// the way, nothing is hashed twice or kept in maps, and a field gets a place in the table only when it comes for the
// second time, so that the ids and dates of single replies neither cost one nor push out what repeats.
type Encoder struct {
	seed    maphash.Seed
	hashes  [maxEntries]uint32 // of entries; a ring, of which newest is the last that was filled
	entries [maxEntries]entry
	newest  int
	count   int
	size    int
	max     int
	shrunk  bool // which the decoder must be told
	once    [64]uint32
}

type entry struct{ name, value string }

func (e entry) size() int { return len(e.name) + len(e.value) + 32 }

// NewEncoder returns an encoder with the table that every decoder has at first.
func NewEncoder() *Encoder {
	return &Encoder{seed: maphash.MakeSeed(), max: MaxTable}
}

// Resize keeps to the size that the client's decoder allows. Once small it stays so: growing again would have to be said
// in two steps (section 4.2), which not every decoder takes.
func (e *Encoder) Resize(size int) {
	if size < e.max {
		e.max, e.shrunk = size, true
		e.evict(0)
	}
}

// Begin begins a section: a change of the table's size comes first (section 4.2).
func (e *Encoder) Begin(b []byte) []byte {
	if !e.shrunk {
		return b
	}
	e.shrunk = false
	return appendInt(b, 0x20, 5, e.max)
}

// Status appends :status.
func (e *Encoder) Status(b []byte, status int) []byte {
	switch status {
	case 200:
		return append(b, 0x80|8)
	case 204:
		return append(b, 0x80|9)
	case 206:
		return append(b, 0x80|10)
	case 304:
		return append(b, 0x80|11)
	case 400:
		return append(b, 0x80|12)
	case 404:
		return append(b, 0x80|13)
	case 500:
		return append(b, 0x80|14)
	}
	return append(b, 8, 3, '0'+byte(status/100%10), '0'+byte(status/10%10), '0'+byte(status%10))
}

// Length appends Content-Length, which is not worth a place in the table.
func (e *Encoder) Length(b []byte, n int64) []byte {
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = '0' + byte(n%10)
		if n /= 10; n == 0 {
			break
		}
	}
	b = appendInt(b, 0, 4, 28)
	b = append(b, byte(len(digits)-i))
	return append(b, digits[i:]...)
}

// maxIndexed is how long a value may be that gets a place in the table, and keeps others out of it.
const maxIndexed = 512

// Field appends a field. The name may be spelled in any case.
func (e *Encoder) Field(b []byte, name, value string) []byte {
	static := staticName(name)
	if static == setCookie || len(value) > maxIndexed { // secrets stay out of tables (section 7.1.3)
		return literal(b, 0x10, 4, static, name, value)
	}
	h := e.hash(name, value)
	if i := e.find(h, name, value); i > 0 {
		return appendInt(b, 0x80, 7, i)
	}
	if seen := &e.once[h%uint32(len(e.once))]; *seen != h {
		*seen = h
		return literal(b, 0, 4, static, name, value)
	}
	e.add(h, name, value)
	return literal(b, 0x40, 6, static, name, value)
}

// Secret appends a field that must not get into any table, here or behind the next hop (section 7.1.3): whoever shares the
// connection could guess at it.
func (e *Encoder) Secret(b []byte, name, value string) []byte {
	return literal(b, 0x10, 4, staticName(name), name, value)
}

func (e *Encoder) hash(name, value string) uint32 {
	h := maphash.String(e.seed, value)
	return uint32(h>>32) ^ uint32(h) ^ uint32(len(name))<<16 ^ uint32(name[0]|0x20)<<8 ^ uint32(name[len(name)-1]|0x20)
}

// find returns a field's index, or 0.
func (e *Encoder) find(h uint32, name, value string) int {
	for age := range e.count {
		i := (e.newest - age + maxEntries) % maxEntries
		if e.hashes[i] == h && e.entries[i].value == value && exchange.EqualFold(e.entries[i].name, name) {
			return staticEntries + 1 + age
		}
	}
	return 0
}

// add makes the field the newest entry. It is copied: a table must not hold the heads that its fields came in.
func (e *Encoder) add(h uint32, name, value string) {
	n := entry{strings.ToLower(strings.Clone(name)), strings.Clone(value)}
	e.evict(n.size())
	if n.size() > e.max {
		return
	}
	if e.count == maxEntries {
		e.forget()
	}
	e.newest = (e.newest + 1) % maxEntries
	e.hashes[e.newest], e.entries[e.newest] = h, n
	e.count++
	e.size += n.size()
}

// evict makes room for that many bytes (section 4.4).
func (e *Encoder) evict(room int) {
	for e.count > 0 && e.size+room > e.max {
		e.forget()
	}
}

// forget drops the oldest entry. When it is only one too many for us the decoder still has it, and so has all that we
// have: both keep the newest that fit.
func (e *Encoder) forget() {
	oldest := (e.newest - e.count + 1 + maxEntries) % maxEntries
	e.size -= e.entries[oldest].size()
	e.entries[oldest] = entry{}
	e.count--
}

// literal appends a field that has no index. pattern and prefix say what the decoder does with it (section 6.2).
func literal(b []byte, pattern byte, prefix, static int, name, value string) []byte {
	b = appendInt(b, pattern, prefix, static)
	if static == 0 {
		b = appendInt(b, 0, 7, len(name))
		for i := range len(name) {
			c := name[i]
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			b = append(b, c)
		}
	}
	b = appendInt(b, 0, 7, len(value))
	return append(b, value...)
}

// appendInt appends an integer with a prefix of so many bits (section 5.1).
func appendInt(b []byte, pattern byte, prefix, n int) []byte {
	limit := 1<<prefix - 1
	if n < limit {
		return append(b, pattern|byte(n))
	}
	b = append(b, pattern|byte(limit))
	for n -= limit; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

const (
	staticEntries = 61
	setCookie     = 55
)

// staticNames are the names of the static table (RFC 7541 appendix A) that replies have, and requests, with their indexes.
var staticNames = [...]struct {
	name  string
	index int
}{
	{"accept-ranges", 18}, {"access-control-allow-origin", 20}, {"age", 21}, {"allow", 22}, {"cache-control", 24},
	{"content-disposition", 25}, {"content-encoding", 26}, {"content-language", 27}, {"content-length", 28},
	{"content-location", 29}, {"content-range", 30}, {"content-type", 31}, {"date", 33}, {"etag", 34}, {"expires", 36},
	{"last-modified", 44}, {"link", 45}, {"location", 46}, {"proxy-authenticate", 48}, {"refresh", 52}, {"retry-after", 53},
	{"server", 54}, {"set-cookie", setCookie}, {"strict-transport-security", 56}, {"vary", 59}, {"via", 60},
	{"www-authenticate", 61},

	{":authority", 1}, {":method", 2}, {":path", 4}, {":scheme", 6}, {"accept", 19}, {"accept-charset", 15}, {"accept-encoding", 16},
	{"accept-language", 17}, {"authorization", 23}, {"cookie", 32}, {"expect", 35}, {"from", 37}, {"host", 38}, {"if-match", 39},
	{"if-modified-since", 40}, {"if-none-match", 41}, {"if-range", 42}, {"if-unmodified-since", 43}, {"max-forwards", 47},
	{"proxy-authorization", 49}, {"range", 50}, {"referer", 51}, {"user-agent", 58},
}

// byLength has for each length the entries of staticNames that are so long.
var byLength = func() (t [32][]int) {
	for i, n := range staticNames {
		t[len(n.name)] = append(t[len(n.name)], i)
	}
	return t
}()

// staticName returns the static table's index of a name, or 0.
func staticName(name string) int {
	if len(name) >= len(byLength) {
		return 0
	}
	for _, i := range byLength[len(name)] {
		if n := &staticNames[i]; n.name[0] == name[0]|0x20 && exchange.EqualFold(n.name, name) {
			return n.index
		}
	}
	return 0
}
