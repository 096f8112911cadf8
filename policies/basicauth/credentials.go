package basicauth

import (
	"encoding/base64"
	"strings"
	"unicode"
	"unicode/utf8"

	"headgate/gateway/exchange"
)

// maxCredentials stops senders of huge passwords from having them decoded and compared. In bytes of base64.
const maxCredentials = 1024

type result uint8

const (
	missing   result = iota // no Authorization field of the scheme Basic
	present                 //
	malformed               // one that is not valid, or more fields than one
)

// credentials reads user name and password (RFC 7617 section 2): base64 of UTF-8 text, the name ends at the first colon,
// neither has control characters.
func credentials(h *exchange.Header) (username, password string, r result) {
	encoded, fields := "", 0
	for i := range h.Len() {
		f := h.At(i)
		if !exchange.EqualFold(f.Name, "Authorization") {
			continue
		}
		fields++
		if scheme, rest, _ := strings.Cut(f.Value, " "); exchange.EqualFold(scheme, "Basic") {
			encoded, r = strings.TrimLeft(rest, " "), present
		}
	}
	switch {
	case r == missing:
		return "", "", missing
	case fields > 1 || len(encoded) > maxCredentials:
		return "", "", malformed
	}
	var buffer, plain [maxCredentials]byte
	n, err := base64.StdEncoding.Strict().Decode(plain[:], buffer[:copy(buffer[:], encoded)])
	if err != nil || !utf8.Valid(plain[:n]) {
		return "", "", malformed
	}
	username, password, colon := strings.Cut(string(plain[:n]), ":")
	if !colon || strings.ContainsFunc(username, unicode.IsControl) || strings.ContainsFunc(password, unicode.IsControl) {
		return "", "", malformed
	}
	return username, password, present
}
