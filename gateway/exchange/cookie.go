package exchange

import "strings"

// Cookie returns the first cookie of that name and whether there is one (RFC 6265 section 4.2.1), without quotes around
// its value. All Cookie fields are looked through: HTTP/2 may split them.
func (h *Header) Cookie(name string) (value string, ok bool) {
	for i := range h.fields {
		if f := &h.fields[i]; len(f.Name) == 6 && EqualFold(f.Name, "cookie") {
			if v, ok := cookieIn(f.Value, name); ok {
				return v, true
			}
		}
	}
	return "", false
}

func cookieIn(field, name string) (string, bool) {
	for field != "" {
		var pair string
		pair, field, _ = strings.Cut(field, ";")
		if key, value, ok := CutCookie(pair); ok && key == name {
			return value, true
		}
	}
	return "", false
}

// CutCookie cuts one pair of a Cookie field into its name and its value, without white space and quotes around them.
func CutCookie(pair string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(pair, "=")
	name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	return name, value, ok
}

// DropCookie removes every cookie of that name, and the field when no cookie is left. Several fields become one
// (RFC 6265 section 5.4 allows only one anyway). Without such a cookie nothing changes.
func (h *Header) DropCookie(name string) {
	left, changed := "", false
	for value := range h.Values("Cookie") {
		kept := dropFrom(value, name)
		changed = changed || len(kept) != len(value)
		switch {
		case left == "":
			left = kept
		case kept != "":
			left += "; " + kept
		}
	}
	switch {
	case !changed:
	case left == "":
		h.Del("Cookie")
	default:
		h.Set("Cookie", left)
	}
}

// dropFrom returns the cookies of one field without the named one; the others stay as they are.
func dropFrom(value, name string) string {
	at := 0
	for at < len(value) {
		end := len(value)
		if i := strings.IndexByte(value[at:], ';'); i >= 0 {
			end = at + i
		}
		k, _, _ := strings.Cut(value[at:end], "=")
		switch {
		case strings.Trim(k, " \t") != name:
			at = end + 1
		case end < len(value):
			rest := value[end+1:]
			if at == 0 {
				rest = strings.TrimLeft(rest, " ")
			}
			value = value[:at] + rest
		default:
			return strings.TrimRight(value[:at], "; ")
		}
	}
	return value
}
