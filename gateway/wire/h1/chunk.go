package h1

import (
	"bytes"
	"slices"

	"headgate/gateway/exchange"
)

// chunkLine parses a chunk-size line without its CRLF (RFC 9112 section 7.1). Extensions are checked and dropped.
func chunkLine(b []byte) (int64, error) {
	var n int64
	i := 0
	for ; i < len(b); i++ {
		d, ok := hexDigit(b[i])
		if !ok {
			break
		}
		if i == maxChunkDigits {
			return 0, errChunkSize
		}
		n = n<<4 | int64(d)
	}
	if i == 0 {
		return 0, errChunkSize
	}
	if i < len(b) && b[i] != ';' && b[i] != ' ' && b[i] != '\t' {
		return 0, errChunkSize
	}
	for i < len(b) {
		next, ok := chunkExtension(b, i)
		if !ok {
			return 0, errChunkExt
		}
		i = next
	}
	return n, nil
}

// chunkExtension parses one BWS ";" BWS name [ BWS "=" BWS value ] from i on (RFC 9112 section 7.1.1).
func chunkExtension(b []byte, i int) (next int, ok bool) {
	i = skipBlank(b, i)
	if i == len(b) || b[i] != ';' {
		return i, false
	}
	i = skipBlank(b, i+1)
	name := tokenEnd(b, i)
	if name == i {
		return i, false
	}
	equals := skipBlank(b, name)
	if equals == len(b) || b[equals] != '=' {
		return name, true
	}
	i = skipBlank(b, equals+1)
	if i < len(b) && b[i] == '"' {
		return quotedEnd(b, i+1)
	}
	value := tokenEnd(b, i)
	return value, value > i
}

// quotedEnd returns the index behind the closing quote of a quoted-string whose content begins at i.
func quotedEnd(b []byte, i int) (int, bool) {
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, true
		case c == '\\':
			if i++; i == len(b) || (b[i] < 0x20 && b[i] != '\t') || b[i] == 0x7f {
				return i, false
			}
		case (c < 0x20 && c != '\t') || c == 0x7f:
			return i, false
		}
	}
	return i, false
}

func skipBlank(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	return i
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// parseTrailer parses a trailer section, which ends with an empty line. Fields that would change what has been decided
// already are dropped (RFC 9110 section 6.5.1).
func parseTrailer(b []byte, l *Limits, h *exchange.Header) error {
	if len(b) == 2 { // the empty line alone
		return nil
	}
	s := string(b)
	h.Reset(s)
	var head Head
	var host string
	if err := head.fields(s, b, 0, l.Fields, h, &host); err != nil {
		if e, ok := err.(*Error); ok && e.Code != exchange.BadRequest {
			return bad(e.Reason)
		}
		return err
	}
	h.DelFunc(func(name, _ string) bool { return forbiddenInTrailer(name) })
	return nil
}

// forbiddenInTrailer tells what recipients act on before the body: authentication, conditions, control data, who has
// sent the message on, and how to read the body. Connection, framing and Host never come here.
func forbiddenInTrailer(name string) bool {
	return slices.ContainsFunc(headOnly, func(f string) bool { return exchange.EqualFold(name, f) })
}

// headOnly are the fields that are decided upon before the trailer section comes (RFC 9110 section 6.5.1).
var headOnly = []string{
	"Authorization", "Cookie", "Set-Cookie", "WWW-Authenticate",
	"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range", "Max-Forwards", "Pragma",
	"Age", "Cache-Control", "Date", "Expires", "Location", "Retry-After", "Vary", "Warning",
	"Content-Encoding", "Content-Range", "Content-Type", "Trailer",
	"Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
}

// trailerEnd returns where the trailer section at the beginning of b ends, or 0 when it is not complete.
func trailerEnd(b []byte, scanned int) (int, error) {
	if bytes.HasPrefix(b, headEnd[:2]) {
		return 2, nil
	}
	return findHead(b, scanned)
}
