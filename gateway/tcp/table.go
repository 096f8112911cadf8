package tcp

import (
	"fmt"
	"strings"
)

// Table finds what a name leads to: the one that has it, or the one with the longest wildcard that covers it. A wildcard
// *.example.com covers every name below example.com, as in the hosts of an API.
type Table[T any] struct{ exact, below map[string]T }

// maxName is the longest name (RFC 1035 section 2.3.4).
const maxName = 253

// Add adds a name, exact or *.NAME. The error says what is wrong with it, in the document's terms.
func (t *Table[T]) Add(name string, v T) error {
	plain, wildcard := strings.CutPrefix(strings.ToLower(strings.TrimSuffix(name, ".")), "*.")
	if !validName(plain) {
		return fmt.Errorf("%q is not a name that a TLS client can ask for; write it without scheme and port, such as db.example.com or "+
			"*.example.com, and letters outside ASCII in their xn-- form", name)
	}
	names := &t.exact
	if wildcard {
		names = &t.below
	}
	if *names == nil {
		*names = map[string]T{}
	}
	if _, taken := (*names)[plain]; taken {
		return fmt.Errorf("%q stands in the list already; a name leads to one upstream", name)
	}
	(*names)[plain] = v
	return nil
}

func validName(name string) bool {
	if len(name) > maxName {
		return false
	}
	letter := false
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
		letter = strings.Trim(label, "0123456789") != "" // the last one of an IPv4 address is a number
	}
	return letter
}

// Find returns what the name, in lower case, leads to.
func (t *Table[T]) Find(name string) (v T, ok bool) {
	if v, ok = t.exact[name]; ok {
		return v, true
	}
	for len(t.below) > 0 {
		i := strings.IndexByte(name, '.')
		if i < 0 {
			break
		}
		first := i > 0
		if name = name[i+1:]; !first {
			continue
		}
		if v, ok = t.below[name]; ok {
			return v, true
		}
	}
	return v, false
}
