// Package hello reads the first message of a TLS client, without decrypting anything: for whom it asks, so that a
// connection can be passed on undecrypted to whoever can answer it. It follows RFC 8446 (TLS 1.3), whose ClientHello those
// of older versions are read by, too; what is encrypted inside of one (ECH) stays so.
package hello

import (
	"errors"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// Hello is what a ClientHello says in clear.
type Hello struct {
	ServerName string   // by SNI (RFC 6066 section 3), lower case, without a dot at the end; of ECH the outer one; "": none
	ALPN       []string // protocols offered (RFC 7301), in the client's order
	Version    uint16   // the highest TLS version offered, such as 0x0304; those that are GREASE (RFC 8701) are left out
	ECH        bool     // it has an encrypted ClientHello inside: who is really asked for is not known
}

// MaxHello bounds the bytes of a ClientHello, with its records. One with post-quantum key shares is below 2 KiB, one that
// resumes by a large ticket below 8; who sends more wants memory to be held for it.
const MaxHello = 16 << 10

// The errors of Parse. Those but ErrShort are final.
var (
	ErrShort     = errors.New("the ClientHello goes on")
	ErrNotTLS    = errors.New("the connection does not begin with a TLS handshake")
	ErrMalformed = errors.New("the ClientHello is malformed")
	ErrTooLong   = errors.New("the ClientHello is longer than 16 KiB")
)

const (
	recordHandshake = 22
	recordHead      = 5
	maxRecord       = 1 << 14 // of a plaintext (RFC 8446 section 5.1)
	typeClientHello = 1
	messageHead     = 4

	extensionServerName = 0
	extensionALPN       = 16
	extensionVersions   = 43
	extensionECH        = 0xfe0d
	nameHost            = 0
	maxName             = 253
)

// Parse reads the ClientHello at the beginning of b, however it is cut into records. ErrShort: it goes on behind b. Strings
// are copies.
func Parse(b []byte) (Hello, error) {
	message, err := collect(b)
	if err != nil {
		return Hello{}, err
	}
	var h Hello
	if !h.read(message) {
		return Hello{}, ErrMalformed
	}
	return h, nil
}

// collect returns the ClientHello without its own head. Nothing is copied before all of it is there, and then only what
// came in pieces, so that a hello in thousands of them costs no more than their heads.
func collect(b []byte) ([]byte, error) {
	b = b[:min(len(b), MaxHello)]
	var head [messageHead]byte
	have, need, end := 0, messageHead, 0
	for have < need {
		fragment, err := record(b, end)
		if err != nil {
			return nil, err
		}
		end += recordHead + len(fragment)
		if have < messageHead {
			copy(head[have:], fragment)
		}
		if have += len(fragment); have >= messageHead {
			need = messageHead + int(head[1])<<16 + int(head[2])<<8 + int(head[3])
		}
		if need > MaxHello {
			return nil, ErrTooLong
		}
	}
	if have+recordHead == end { // in one record, as nearly always
		return b[recordHead+messageHead : recordHead+need], nil
	}
	whole := make([]byte, 0, have)
	for at := 0; at < end; {
		fragment, _ := record(b, at) // which it could before
		whole = append(whole, fragment...)
		at += recordHead + len(fragment)
	}
	return whole[messageHead:need], nil
}

// record returns what the handshake record at b[at] holds. What is known of it is checked even where it is cut short, so
// that who speaks something else is not waited for.
func record(b []byte, at int) ([]byte, error) {
	r := b[at:]
	switch {
	case len(r) > 0 && r[0] != recordHandshake, len(r) > 1 && r[1] != 3,
		at == 0 && len(r) > recordHead && r[recordHead] != typeClientHello:
		return nil, ErrNotTLS
	case len(r) < recordHead && len(b) == MaxHello:
		return nil, ErrTooLong
	case len(r) < recordHead:
		return nil, ErrShort
	}
	n := int(r[3])<<8 | int(r[4])
	switch {
	case n == 0 || n > maxRecord: // empty fragments are forbidden, RFC 8446 section 5.1
		return nil, ErrMalformed
	case len(r) < recordHead+n && len(b) == MaxHello:
		return nil, ErrTooLong
	case len(r) < recordHead+n:
		return nil, ErrShort
	}
	return r[recordHead : recordHead+n], nil
}

// read reads a whole ClientHello, RFC 8446 section 4.1.2.
func (h *Hello) read(message []byte) bool {
	s := cryptobyte.String(message)
	var session, ciphers, compressions, extensions cryptobyte.String
	if !s.ReadUint16(&h.Version) || !s.Skip(32) || !s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16LengthPrefixed(&ciphers) || len(ciphers) < 2 || len(ciphers)%2 != 0 ||
		!s.ReadUint8LengthPrefixed(&compressions) || len(compressions) == 0 {
		return false
	}
	if s.Empty() { // before extensions were invented
		return true
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return false
	}
	var seen [4]bool
	for !extensions.Empty() {
		var kind uint16
		var body cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&body) {
			return false
		}
		index, ok := h.extension(kind, body)
		if !ok || index >= 0 && seen[index] { // twice is forbidden, section 4.2
			return false
		}
		if index >= 0 {
			seen[index] = true
		}
	}
	return true
}

// extension reads one extension and returns which of those it is that we know; -1: none.
func (h *Hello) extension(kind uint16, body cryptobyte.String) (index int, ok bool) {
	switch kind {
	case extensionServerName:
		return 0, h.readName(body)
	case extensionALPN:
		return 1, h.readALPN(body)
	case extensionVersions:
		return 2, h.readVersions(body)
	case extensionECH:
		h.ECH = true
		return 3, true
	}
	return -1, true
}

// readName reads RFC 6066 section 3: a list in which a kind of name stands once, and there is one kind.
func (h *Hello) readName(s cryptobyte.String) bool {
	var list cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&list) || !s.Empty() || list.Empty() {
		return false
	}
	for !list.Empty() {
		var kind uint8
		var name cryptobyte.String
		if !list.ReadUint8(&kind) || !list.ReadUint16LengthPrefixed(&name) || name.Empty() {
			return false
		}
		if kind != nameHost {
			continue
		}
		if h.ServerName != "" || !validName(name) {
			return false
		}
		h.ServerName = strings.ToLower(strings.TrimSuffix(string(name), "."))
	}
	return true
}

// validName reports whether a name may stand in logs and be compared: letters, digits, hyphens, underscores and dots.
// Addresses, which RFC 6066 forbids, pass as names that nobody has.
func validName(name []byte) bool {
	if len(name) > maxName+1 || name[0] == '.' {
		return false
	}
	for _, c := range name {
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == ':':
		default:
			return false
		}
	}
	return true
}

func (h *Hello) readALPN(s cryptobyte.String) bool {
	var list cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&list) || !s.Empty() || list.Empty() {
		return false
	}
	for !list.Empty() {
		var protocol cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&protocol) || protocol.Empty() {
			return false
		}
		h.ALPN = append(h.ALPN, string(protocol))
	}
	return true
}

func (h *Hello) readVersions(s cryptobyte.String) bool {
	var list cryptobyte.String
	if !s.ReadUint8LengthPrefixed(&list) || !s.Empty() || list.Empty() {
		return false
	}
	for !list.Empty() {
		var v uint16
		if !list.ReadUint16(&v) {
			return false
		}
		if v>>8 == 3 {
			h.Version = max(h.Version, v)
		}
	}
	return true
}
