package exchange

import (
	"iter"
	"strings"
)

// Field is one header or trailer line. Name keeps the spelling in which it arrived.
type Field struct {
	Name, Value string
	// start and end are the line's place in Header.raw, CRLF included; both are 0 for a field that was added or changed here.
	start, end uint32
}

// MirrorMark is the field that a copy of an exchange bears, so that a service that is rehearsed knows and no other mirror copies
// it again. Of a client it is a claim, as X-Forwarded-For is: only trusted proxies are believed.
const MirrorMark = "X-Headgate-Mirror"

// Header is an ordered list of fields. Names and values of a received head are substrings of one immutable string, so
// they may be kept for as long as wanted; untouched lines are forwarded by copying the bytes that came.
// The zero value is an empty header. It is not safe for concurrent use.
type Header struct {
	raw    string
	fields []Field
}

// Reset empties the header for a head whose field section is raw, keeping the list's memory.
func (h *Header) Reset(raw string) {
	clear(h.fields)
	h.raw, h.fields = raw, h.fields[:0]
}

// AddLine appends a field that stands in raw[start:end], CRLF included. Only parsers call it.
func (h *Header) AddLine(name, value string, start, end int) {
	h.fields = append(h.fields, Field{name, value, uint32(start), uint32(end)})
}

// Len returns the number of fields.
func (h *Header) Len() int { return len(h.fields) }

// At returns field i in order of arrival.
func (h *Header) At(i int) Field { return h.fields[i] }

// All yields the fields in order.
func (h *Header) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range h.fields {
			if !yield(h.fields[i].Name, h.fields[i].Value) {
				return
			}
		}
	}
}

// Get returns the first value of the named field, or "".
func (h *Header) Get(name string) string {
	v, _ := h.Lookup(name)
	return v
}

// Lookup returns the first value of the named field and whether there is one.
func (h *Header) Lookup(name string) (string, bool) {
	for i := range h.fields {
		if f := &h.fields[i]; len(f.Name) == len(name) && EqualFold(f.Name, name) {
			return f.Value, true
		}
	}
	return "", false
}

// Has reports whether the named field is there.
func (h *Header) Has(name string) bool {
	_, ok := h.Lookup(name)
	return ok
}

// Values yields every value of the named field in order.
func (h *Header) Values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range h.fields {
			if f := &h.fields[i]; EqualFold(f.Name, name) && !yield(f.Value) {
				return
			}
		}
	}
}

// Joined returns all values of the named field as one comma-separated list (RFC 9110 section 5.3).
func (h *Header) Joined(name string) string {
	joined, n := "", 0
	for v := range h.Values(name) {
		if n++; n == 1 {
			joined = v
		} else {
			joined += ", " + v
		}
	}
	return joined
}

// Add appends a field. The caller vouches for name and value: see ValidName and ValidValue for what came from outside.
func (h *Header) Add(name, value string) {
	h.fields = append(h.fields, Field{Name: name, Value: value})
}

// Set gives the named field exactly one value, at the place of its first occurrence.
func (h *Header) Set(name, value string) {
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			h.fields[i] = Field{Name: name, Value: value}
			h.delFrom(i+1, name)
			return
		}
	}
	h.Add(name, value)
}

// Del removes every field of that name.
func (h *Header) Del(name string) { h.delFrom(0, name) }

func (h *Header) delFrom(from int, name string) {
	h.deleteFunc(from, func(f *Field) bool { return EqualFold(f.Name, name) })
}

// DelFunc removes every field for which drop returns true.
func (h *Header) DelFunc(drop func(name, value string) bool) {
	h.deleteFunc(0, func(f *Field) bool { return drop(f.Name, f.Value) })
}

func (h *Header) deleteFunc(from int, drop func(*Field) bool) {
	kept := from
	for i := from; i < len(h.fields); i++ {
		if drop(&h.fields[i]) {
			continue
		}
		if kept != i {
			h.fields[kept] = h.fields[i]
		}
		kept++
	}
	clear(h.fields[kept:])
	h.fields = h.fields[:kept]
}

// Rename gives every field called from the name to, keeping values and order.
func (h *Header) Rename(from, to string) {
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, from) {
			h.fields[i] = Field{Name: to, Value: h.fields[i].Value}
		}
	}
}

// CopyFrom makes h an independent copy of src.
func (h *Header) CopyFrom(src *Header) {
	h.raw, h.fields = src.raw, append(h.fields[:0], src.fields...)
}

// AppendTo appends the fields as HTTP/1.1 lines. Neighbouring untouched lines are copied as one run of the bytes that came.
func (h *Header) AppendTo(b []byte) []byte { return h.AppendExcept(b, nil) }

// AppendExcept is AppendTo without the fields for which skip returns true; skip may be nil.
func (h *Header) AppendExcept(b []byte, skip func(name, value string) bool) []byte {
	var start, end uint32 // the run not yet copied
	for i := range h.fields {
		f := &h.fields[i]
		if skip != nil && skip(f.Name, f.Value) {
			continue
		}
		if f.end != 0 && f.start == end {
			end = f.end
			continue
		}
		b = append(b, h.raw[start:end]...)
		start, end = f.start, f.end
		if f.end == 0 {
			b = append(b, f.Name...)
			b = append(b, ": "...)
			b = append(b, f.Value...)
			b = append(b, "\r\n"...)
		}
	}
	return append(b, h.raw[start:end]...)
}

// EqualFold reports whether two field names are the same, ignoring the case of ASCII letters.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}

// ValidName reports whether s is a token (RFC 9110 section 5.6.2) and so may name a field.
func ValidName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !tokenTable[s[i]] {
			return false
		}
	}
	return s != ""
}

// ValidValue reports whether s may be a field value: visible characters, space, tab and obs-text, no line breaks or
// other controls (RFC 9110 section 5.5), and no white space at its ends.
func ValidValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 0x20 && c != '\t') || c == 0x7f {
			return false
		}
	}
	return strings.Trim(s, " \t") == s
}

// IsToken reports whether c may stand in a token.
func IsToken(c byte) bool { return tokenTable[c] }

var tokenTable = func() (t [256]bool) {
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-32] = true, true
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()
