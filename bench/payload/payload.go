// Package payload is the bytes that the benchmark's client sends and its upstream answers, so that both can check them.
package payload

import "bytes"

// BigSize is the length of the large bodies, in bytes.
const BigSize = 1 << 20

// Small returns the 200 bytes of JSON of an ordinary answer.
func Small() []byte {
	const begin = `{"id":"9f0c1a52","status":"shipped","total":{"amount":"129.90","currency":"EUR"},"items":[{"sku":"A-1001","quantity":2}],"note":"`
	const end = `"}`
	return []byte(begin + string(bytes.Repeat([]byte("n"), 200-len(begin)-len(end))) + end)
}

// Big returns BigSize bytes of text in which no two neighbouring pages are equal, so that a page sent twice is noticed.
func Big() []byte {
	b := make([]byte, BigSize)
	state := uint32(2463534242)
	for i := range b {
		if i%64 == 0 { // xorshift32, once per line: fast to make, and no line repeats
			state ^= state << 13
			state ^= state >> 17
			state ^= state << 5
		}
		b[i] = 'a' + byte((state>>(i%16)+uint32(i%64))%26)
	}
	return b
}
