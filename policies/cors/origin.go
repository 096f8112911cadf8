package cors

import (
	"fmt"
	"strconv"
	"strings"
)

// maxOrigin bounds the Origin field that is looked at; a host name has at most 253 characters.
const maxOrigin = 300

func at(key string, index int) string { return key + "." + strconv.Itoa(index) }

// below is a pattern for all hosts below a domain.
type below struct{ prefix, suffix string } // "https://" and ".example.com:8443"

// origin is one entry of the list: everybody, one, or all below a domain.
type origin struct {
	all   bool
	exact string
	below *below
}

// parseOrigin reads an entry of origins.
func parseOrigin(s string) (origin, error) {
	switch s {
	case "*":
		return origin{all: true}, nil
	case "null":
		return origin{exact: s}, nil
	}
	lower := strings.ToLower(s) // browsers send origins in lower case
	scheme, host, found := strings.Cut(lower, "://")
	if !found || scheme == "" || host == "" {
		return origin{}, fmt.Errorf("%q is not an origin; write a scheme and a host, such as https://app.example.com", s)
	}
	if i := strings.IndexAny(host, "/?#@ "); i >= 0 {
		return origin{}, fmt.Errorf("%q has more than an origin, which ends after the host and port: %s://%s", s, scheme, host[:i])
	}
	if port := (map[string]string{"http": ":80", "https": ":443"})[scheme]; port != "" && strings.HasSuffix(host, port) {
		return origin{}, fmt.Errorf("%q never comes, since browsers leave out the default port; write %s", s, strings.TrimSuffix(lower, port))
	}
	domain, wild := strings.CutPrefix(host, "*.")
	if strings.Contains(domain, "*") || domain == "" {
		return origin{}, fmt.Errorf("%q has a * in a place where it means nothing; write https://*.example.com for all hosts below a domain", s)
	}
	if wild {
		return origin{below: &below{scheme + "://", "." + domain}}, nil
	}
	return origin{exact: lower}, nil
}

// matches reports whether an Origin field names a host below the domain. Everything between must look like labels: an
// origin is compared, not parsed, so nothing may stand there that would end the host for some other reader.
func (b *below) matches(s string) bool {
	if len(s) > maxOrigin || len(s) <= len(b.prefix)+len(b.suffix) || !strings.HasPrefix(s, b.prefix) || !strings.HasSuffix(s, b.suffix) {
		return false
	}
	label := 0
	for _, c := range []byte(s[len(b.prefix) : len(s)-len(b.suffix)]) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			label++
		case c == '.' && label > 0:
			label = 0
		default:
			return false
		}
	}
	return label > 0
}
