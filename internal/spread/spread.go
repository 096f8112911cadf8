// Package spread makes numbers of texts that are the same on every node and after every restart, so that all agree on who
// gets which share. There is no secret in them: use it where who sends a text decides about himself alone.
package spread

// Start is the hash of no text: FNV-1a, 64 bits (RFC 9923).
const Start uint64 = 14695981039346656037

const prime = 1099511628211

// Text adds a text to a hash.
func Text(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return h
}

// Next ends a text, so that "a" and "bc" give another hash than "ab" and "c".
func Next(h uint64) uint64 { return h * prime } // a byte of 0

// Mix spreads a hash over all bits: alike texts give unlike numbers. It is the end of MurmurHash3.
func Mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
