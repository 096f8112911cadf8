// Package secret holds values that must never be printed.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

const mask = "<secret>"

// String is a secret text. Every way of printing it (fmt, JSON, YAML, slog) shows "<secret>"; only Reveal returns the value.
// Compare with Equal: two secrets of the same value are not ==.
type String struct {
	// A pointer, because fmt asks no method of what stands in an unexported field of another struct: it prints an address.
	value *string
}

// New wraps a value.
func New(value string) String {
	if value == "" {
		return String{}
	}
	return String{&value}
}

// Reveal returns the value itself; call it only where the value is used.
func (s String) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Empty reports whether there is no value.
func (s String) Empty() bool { return s.value == nil }

// Equal compares in constant time for equal lengths.
func (s String) Equal(other string) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other)) == 1
}

// String, Format, MarshalText and LogValue all hide the value; an empty secret prints as nothing.
func (s String) String() string {
	if s.Empty() {
		return ""
	}
	return mask
}

// Format hides the value from fmt, whatever the verb.
func (s String) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) } // a State keeps its own errors

// MarshalText hides the value from JSON and YAML encoders.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the value from slog.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }
