package route

import (
	"fmt"
	"strings"
)

// maxHost is the longest name (RFC 1035 section 2.3.4).
const maxHost = 253

// parseHost checks a host of a rule and returns it in lower case; wildcard ones come back as their suffix.
func parseHost(host string) (name string, wildcard bool, err error) {
	name = strings.ToLower(strings.TrimSuffix(host, "."))
	name, wildcard = strings.CutPrefix(name, "*.")
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") && !wildcard {
		return name, false, nil // an IPv6 address
	}
	if name == "" || len(name) > maxHost {
		return "", false, fmt.Errorf("%q is not a host name", host)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", false, fmt.Errorf("%q is not a host name; write it without scheme and port, such as api.example.com or "+
				"*.example.com, and letters outside ASCII in their xn-- form", host)
		}
	}
	return name, wildcard, nil
}

// bareHost returns the name of an authority in lower case, without port and final dot.
func bareHost(authority string) string {
	host := authority
	if strings.HasPrefix(host, "[") {
		if i := strings.IndexByte(host, ']'); i >= 0 {
			host = host[:i+1]
		}
	} else if i := strings.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	for i := 0; i < len(host); i++ {
		if c := host[i]; 'A' <= c && c <= 'Z' {
			return strings.ToLower(host)
		}
	}
	return host
}
