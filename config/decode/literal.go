package decode

import (
	"reflect"
	"slices"
	"strings"
)

// Literals says how a secret under a tag may be written as text: beginning with one of the prefixes, or as anything. With
// neither it must come from a reference.
func Literals(tag reflect.StructTag) (prefixes []string, anything bool) {
	switch literal := tag.Get("literal"); literal {
	case "":
		return nil, true
	case "never":
		return nil, false
	default:
		return strings.Fields(literal), false
	}
}

// literalAllowed reports whether a secret may be written as this text.
func literalAllowed(value string, tag reflect.StructTag) bool {
	prefixes, anything := Literals(tag)
	return anything || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(value, p) })
}

// secretForms says how a secret under a tag is written instead.
func secretForms(tag reflect.StructTag) string {
	prefixes, _ := Literals(tag)
	forms := make([]string, 0, len(prefixes)+1)
	for _, prefix := range prefixes {
		switch prefix {
		case "sha256:":
			forms = append(forms, "sha256:HEX (printf %s KEY | sha256sum)")
		case "bcrypt:":
			forms = append(forms, "bcrypt:HASH (htpasswd -nbB USER PASSWORD)")
		default:
			forms = append(forms, prefix+"...")
		}
	}
	return strings.Join(append(forms, "a reference such as ${env:NAME} or ${file:PATH}"), ", or ")
}
