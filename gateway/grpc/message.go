package grpc

import "strings"

// maxMessage bounds a grpc-message before it is encoded: clients have limits on their headers.
const maxMessage = 1024

// encodeMessage percent-encodes a grpc-message (PROTOCOL-HTTP2.md): visible ASCII and space stand for themselves, but '%'.
func encodeMessage(s string) string {
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "")
	}
	odd := 0
	for i := range len(s) {
		if escaped(s[i]) {
			odd++
		}
	}
	if odd == 0 {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*odd)
	for i := range len(s) {
		if c := s[i]; escaped(c) {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func escaped(c byte) bool { return c < ' ' || c > '~' || c == '%' }
