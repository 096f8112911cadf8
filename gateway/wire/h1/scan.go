package h1

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"headgate/gateway/exchange"
)

var headEnd = []byte("\r\n\r\n")

// findHead returns where the head in buf ends, behind its empty line, or 0 when it is not complete. The first scanned
// bytes were looked at before. A bare LF is refused at once: whoever sends those would wait for ever.
func findHead(buf []byte, scanned int) (int, error) {
	from := max(scanned-len(headEnd)+1, 0)
	if i := bytes.Index(buf[from:], headEnd); i >= 0 {
		return from + i + len(headEnd), nil
	}
	for i := scanned; i < len(buf); i++ {
		j := bytes.IndexByte(buf[i:], '\n')
		if j < 0 {
			break
		}
		if i += j; i == 0 || buf[i-1] != '\r' {
			return 0, errBareLF
		}
	}
	return 0, nil
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// valueEnd returns the index of the first control character but HTAB at or behind i. A head always has one: its CRLF.
// Eight bytes are looked at at a time: in (x-0x20) &^ x the high bit of a byte is set when it is below 0x20, and a borrow
// can only reach bytes above one that is set already, so the lowest set bit is right.
func valueEnd(b []byte, i int) int {
	for {
		for i+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[i:])
			del := x ^ (0x7f * ones)
			hits := ((x-0x20*ones)&^x | (del-ones)&^del) & highs
			if hits != 0 {
				i += bits.TrailingZeros64(hits) / 8
				break
			}
			i += 8
		}
		if i+8 > len(b) {
			for i < len(b) && b[i] >= 0x20 && b[i] != 0x7f {
				i++
			}
		}
		if i >= len(b) || b[i] != '\t' {
			return i
		}
		i++
	}
}

// charClass says where a byte may stand.
type charClass uint8

const (
	inPath charClass = 1 << iota
	inQuery
	inHost
)

// classes: a path takes RFC 3986's pchar and "/", and "|", which browsers send; a query also what WHATWG URLs leave
// unencoded there. Hosts are names of letters, digits, "-", "." and "_"; IPv6 literals are checked apart.
var classes = func() (t [256]charClass) {
	for c := range t {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			t[c] = inPath | inQuery | inHost
		}
	}
	for _, c := range "-._~" {
		t[c] = inPath | inQuery | inHost
	}
	for _, c := range "!$&'()*+,;=:@/%|" {
		t[c] = inPath | inQuery
	}
	for _, c := range `?{}\^` + "`[]" {
		t[c] = inQuery
	}
	return t
}()

// span returns the length of the run at the beginning of b whose bytes all belong to the class.
func span(b []byte, class charClass) int {
	for i, c := range b {
		if classes[c]&class == 0 {
			return i
		}
	}
	return len(b)
}

// tokenEnd returns the index of the first byte at or behind i that may not stand in a token.
func tokenEnd(b []byte, i int) int {
	for i < len(b) && exchange.IsToken(b[i]) {
		i++
	}
	return i
}
