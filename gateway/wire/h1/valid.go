package h1

import "headgate/gateway/exchange"

// What follows is strict in the same way for every version of HTTP, and shared with the other wires.

// ParsePath splits a path with an optional query, such as :path of HTTP/2 and HTTP/3, into r. Only "*" of OPTIONS does
// not begin with a slash. The error is an *Error.
func ParsePath(s string, r *exchange.Request) error {
	if s == "*" && r.Method == "OPTIONS" {
		r.Path, r.Query, r.HasQuery = s, "", false
		return nil
	}
	n := 0
	for n < len(s) && classes[s[n]]&inPath != 0 {
		n++
	}
	if n == 0 || s[0] != '/' {
		return errTarget
	}
	r.Path, r.Query, r.HasQuery = s[:n], "", false
	if n == len(s) {
		return nil
	}
	if s[n] != '?' {
		return errTarget
	}
	r.Query, r.HasQuery = s[n+1:], true
	for i := range len(r.Query) {
		if classes[r.Query[i]]&inQuery == 0 {
			return errTarget
		}
	}
	return nil
}

// ValidHost reports whether s is a name or an address with an optional port, as in Host and :authority.
func ValidHost(s string) bool { return validHost(s) }

// SameHost reports whether two authorities are the same but for case and a port that is empty or the given default.
func SameHost(a, b, port string) bool { return sameHost(a, b, port) }

// ParseLength reads a Content-Length: digits and nothing else. The error is an *Error.
func ParseLength(s string) (int64, error) { return parseLength(s) }

// ForbiddenInTrailer reports whether recipients act on the field before the body comes, so that it has no meaning, or a
// dangerous one, in a trailer section (RFC 9110 section 6.5.1).
func ForbiddenInTrailer(name string) bool { return forbiddenInTrailer(name) }

// HasBody reports whether a reply to the method with the status has a body.
func HasBody(method string, status int) bool { return hasBody(method, status) }
