// Package secret holds values that must never be printed.
package secret

import (
	"crypto/subtle"
	"log/slog"
)

const mask = "<secret>"

// String is a secret text. Every way of printing it (fmt, JSON, YAML, slog) shows "<secret>"; only Reveal returns the value.
type String struct{ value string }

// New wraps a value.
func New(value string) String { return String{value} }

// Reveal returns the value itself; call it only where the value is used.
func (s String) Reveal() string { return s.value }

// Empty reports whether there is no value.
func (s String) Empty() bool { return s.value == "" }

// Equal compares in constant time for equal lengths.
func (s String) Equal(other string) bool {
	return subtle.ConstantTimeCompare([]byte(s.value), []byte(other)) == 1
}

// String, GoString, MarshalText and LogValue all hide the value; an empty secret prints as nothing.
func (s String) String() string {
	if s.value == "" {
		return ""
	}
	return mask
}

// GoString hides the value from %#v.
func (s String) GoString() string { return s.String() }

// MarshalText hides the value from JSON and YAML encoders.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the value from slog.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }
