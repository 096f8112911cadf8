// Package credential finds what a caller proves itself with in a request, and takes it out again so that the upstream
// does not see it.
package credential

import (
	"errors"
	"strconv"
	"strings"

	"headgate/config/decode"
	"headgate/gateway/exchange"
)

// Source is one place where a credential may stand. Exactly one of Header, Query and Cookie is given.
type Source struct {
	Header string `yaml:"header" doc:"A header field."`
	Scheme string `yaml:"scheme" doc:"With header: the word before the credential, such as Bearer; fields with another one are left alone."`
	Query  string `yaml:"query" doc:"A query parameter."`
	Cookie string `yaml:"cookie" doc:"A cookie."`
}

// Sources are the places where a credential may stand, in the order in which they are looked at.
type Sources []Source

// maxSources stops a document from making every request search its head for too long.
const maxSources = 8

// Check reports everything wrong with the sources of the option at path.
func (ss Sources) Check(path string) error {
	if len(ss) == 0 || len(ss) > maxSources {
		return decode.At(path, "names %d places; give 1 to %d of {header: NAME}, {query: NAME} or {cookie: NAME}", len(ss), maxSources)
	}
	var errs []error
	for i, s := range ss {
		if err := s.check(path + "." + strconv.Itoa(i)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Source) check(path string) error {
	given := 0
	for _, name := range []string{s.Header, s.Query, s.Cookie} {
		if name != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return decode.At(path, "names %d places; give one of header, query or cookie", given)
	case s.Scheme != "" && s.Header == "":
		return decode.At(path+".scheme", "belongs to a header; give header, or leave scheme out")
	case s.Header != "" && !exchange.ValidName(s.Header):
		return decode.At(path+".header", "%q cannot name a header field; use letters, digits and !#$%%&'*+-.^_`|~", s.Header)
	case s.Scheme != "" && !exchange.ValidName(s.Scheme):
		return decode.At(path+".scheme", "%q is not one word of letters, digits and !#$%%&'*+-.^_`|~", s.Scheme)
	case s.Cookie != "" && !exchange.ValidName(s.Cookie):
		return decode.At(path+".cookie", "%q cannot name a cookie; use letters, digits and !#$%%&'*+-.^_`|~", s.Cookie)
	}
	return nil
}

// CheckRealm reports why the option realm cannot stand in WWW-Authenticate as a quoted string without escapes, or nil.
func CheckRealm(realm string) error {
	if len(realm) > maxRealm || strings.ContainsFunc(realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return decode.At("realm", "%q cannot stand in WWW-Authenticate; use at most %d printable ASCII characters, not \" or \\", realm, maxRealm)
	}
	return nil
}

// maxRealm stops a document from making every refusal large.
const maxRealm = 128

// Result is what a search ended with.
type Result uint8

// The results.
const (
	Missing   Result = iota // none of the sources holds a credential; an empty one is none
	Found                   // one does, or several hold the same
	Ambiguous               // one holds it more than once, or two differ: programs could disagree about which one counts
)

// Find returns the credential of the request. It allocates only for a query value with percent-encoding.
func (ss Sources) Find(x *exchange.Exchange) (string, Result) {
	value, result := "", Missing
	for i := range ss {
		v, n := ss[i].find(&x.Request)
		switch {
		case n == 0:
			continue
		case n > 1 || (result == Found && v != value):
			return "", Ambiguous
		}
		value, result = v, Found
	}
	return value, result
}

// find returns the source's first value that is not empty, and how many there are.
func (s *Source) find(r *exchange.Request) (string, int) {
	switch {
	case s.Query != "":
		return findQuery(r.Query, s.Query)
	case s.Cookie != "":
		return findCookie(&r.Header, s.Cookie)
	case s.Scheme != "":
		return findScheme(&r.Header, s.Header, s.Scheme)
	}
	return findHeader(&r.Header, s.Header)
}

// Hide takes the credential out of every source. Other parameters, cookies and authentication schemes stay as they are.
func (ss Sources) Hide(x *exchange.Exchange) {
	for i := range ss {
		s, r := &ss[i], &x.Request
		switch {
		case s.Query != "":
			r.Query = cutQuery(r.Query, s.Query)
			r.HasQuery = r.HasQuery && r.Query != ""
		case s.Cookie != "":
			r.Header.DropCookie(s.Cookie)
		case s.Scheme != "":
			r.Header.DelFunc(func(name, value string) bool {
				_, ok := cutScheme(value, s.Scheme)
				return ok && exchange.EqualFold(name, s.Header)
			})
		default:
			r.Header.Del(s.Header)
		}
	}
}

func findHeader(h *exchange.Header, name string) (value string, n int) {
	for i := range h.Len() {
		if f := h.At(i); exchange.EqualFold(f.Name, name) && f.Value != "" {
			if n++; n == 1 {
				value = f.Value
			}
		}
	}
	return value, n
}

// findScheme counts every field of that name as soon as one has the scheme: Authorization stands once (RFC 9110
// section 11.6.2), and who sends it twice wants two programs to read different ones.
func findScheme(h *exchange.Header, name, scheme string) (value string, n int) {
	fields := 0
	for i := range h.Len() {
		f := h.At(i)
		if !exchange.EqualFold(f.Name, name) {
			continue
		}
		fields++
		if v, ok := cutScheme(f.Value, scheme); ok && v != "" {
			if n++; n == 1 {
				value = v
			}
		}
	}
	if n > 0 {
		n = fields
	}
	return value, n
}

// cutScheme splits "Scheme credential"; the scheme's case does not matter (RFC 9110 section 11.1).
func cutScheme(value, scheme string) (string, bool) {
	if len(value) < len(scheme) || !exchange.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	rest := value[len(scheme):]
	if rest == "" {
		return "", true
	}
	return strings.TrimLeft(rest, " "), rest[0] == ' '
}
