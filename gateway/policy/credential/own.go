package credential

import "headgate/gateway/exchange"

// Own are header fields that only the gateway may set, such as X-User: what came in under their names is forged.
type Own []string

// Drop removes the fields in every spelling that an upstream could take for them: many programs read X_User as X-User.
func (o Own) Drop(h *exchange.Header) {
	if len(o) == 0 {
		return
	}
	h.DelFunc(func(name, _ string) bool {
		for _, own := range o {
			if alike(name, own) {
				return true
			}
		}
		return false
	})
}

func alike(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if fold(a[i]) != fold(b[i]) {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c | 0x20
	case c == '_':
		return '-'
	}
	return c
}
