package record

import (
	"encoding/hex"
	"strings"

	"headgate/gateway/exchange"
)

// Limits of W3C Trace Context (section 3.3.1) and Baggage (section 3.3.2): beyond them the field is not passed on, so
// that a client cannot make every hop behind the gateway carry its ballast.
const (
	maxTracestateMembers = 32
	maxTracestate        = 512
	maxBaggageMembers    = 180
	maxBaggage           = 8192
)

// traceparentLen is the length of version 00: 00-TRACE-PARENT-FLAGS.
const traceparentLen = 55

// parseTraceparent reads a traceparent strictly (W3C Trace Context section 3.2): lower-case hex, no id all zeros, version
// 00 exactly 55 characters; a later version may continue behind a dash; version ff is invalid.
func parseTraceparent(s string) (t exchange.Trace, ok bool) {
	if len(s) < traceparentLen || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return t, false
	}
	var version, flags [1]byte
	for _, part := range []struct {
		to   []byte
		from string
	}{{version[:], s[:2]}, {t.ID[:], s[3:35]}, {t.Parent[:], s[36:52]}, {flags[:], s[53:55]}} {
		if !unhex(part.to, part.from) {
			return exchange.Trace{}, false
		}
	}
	long := len(s) > traceparentLen
	if version[0] == 0xff || version[0] == 0 && long || long && s[traceparentLen] != '-' ||
		t.ID == [16]byte{} || t.Parent == [8]byte{} {
		return exchange.Trace{}, false
	}
	t.Sampled = flags[0]&1 != 0
	return t, true
}

// unhex decodes lower-case hex.
func unhex(to []byte, s string) bool {
	for i := range to {
		high, low := nibble(s[2*i]), nibble(s[2*i+1])
		if high > 15 || low > 15 {
			return false
		}
		to[i] = high<<4 | low
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// appendTraceparent appends version 00 with the given span as the parent.
func appendTraceparent(b []byte, t *exchange.Trace, parent [8]byte) []byte {
	b = append(b, "00-"...)
	b = append(hex.AppendEncode(b, t.ID[:]), '-')
	b = append(hex.AppendEncode(b, parent[:]), '-')
	if t.Sampled {
		return append(b, "01"...)
	}
	return append(b, "00"...)
}

// clientSpan is the id of the span that stands for asking the upstream. It follows from the id of the exchange's own span,
// whose last bit is always 0, so that nothing more needs to be remembered.
func clientSpan(own [8]byte) [8]byte {
	own[7] |= 1
	return own
}

// validTracestate reports whether a tracestate may be passed on (section 3.3.1): members KEY=VALUE, separated by commas.
func validTracestate(s string, members *int) bool {
	if len(s) > maxTracestate {
		return false
	}
	for member := range strings.SplitSeq(s, ",") {
		member = strings.Trim(member, " \t")
		if member == "" { // empty members are allowed
			continue
		}
		*members++
		key, value, ok := strings.Cut(member, "=")
		if !ok || *members > maxTracestateMembers || !validStateKey(key) || !validStateValue(value) {
			return false
		}
	}
	return true
}

func validStateKey(s string) bool {
	if s == "" || len(s) > 256 || !isLowerOrDigit(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLowerOrDigit(c) && c != '_' && c != '-' && c != '*' && c != '/' && c != '@' {
			return false
		}
	}
	return strings.Count(s, "@") <= 1
}

func isLowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func validStateValue(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '=' {
			return false
		}
	}
	return true
}

// validBaggage reports whether a baggage field may be passed on: members KEY=VALUE with optional properties behind
// semicolons, all in visible ASCII. The gateway looks no deeper, for it uses none of it.
func validBaggage(s string, members *int) bool {
	if len(s) > maxBaggage {
		return false
	}
	for member := range strings.SplitSeq(s, ",") {
		*members++
		key, value, ok := strings.Cut(strings.Trim(member, " \t"), "=")
		if !ok || *members > maxBaggageMembers || !exchange.ValidName(strings.TrimRight(key, " \t")) {
			return false
		}
		for i := range len(value) {
			if c := value[i]; (c < ' ' && c != '\t') || c > '~' || c == '"' || c == '\\' {
				return false
			}
		}
	}
	return true
}
