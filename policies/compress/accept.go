package compress

import (
	"strings"

	"headgate/gateway/exchange"
)

// choose returns the offer that the client likes best, by the weights of its Accept-Encoding (RFC 9110 section 12.5.3),
// or nil where that is the reply as it is: without the field, with nothing that is offered, or when identity weighs more.
func choose(accept string, offers []*offer) *offer {
	if accept == "" {
		return nil
	}
	var best *offer
	bestWeight := 0
	for _, o := range offers {
		if w := weight(accept, o.name); w > bestWeight {
			best, bestWeight = o, w
		}
	}
	if identity, named := listed(accept, "identity"); named && identity > bestWeight {
		return nil
	}
	return best
}

// weight returns how much the client likes an encoding, in thousandths; 0: not at all.
func weight(accept, encoding string) int {
	if w, named := listed(accept, encoding); named {
		return w
	}
	w, _ := listed(accept, "*")
	return w
}

// listed returns the weight of a name in the list. An alias of old counts too. An item that cannot be read is worth nothing.
func listed(accept, name string) (w int, named bool) {
	for item := range strings.SplitSeq(accept, ",") {
		coding, parameters, _ := strings.Cut(item, ";")
		coding = strings.Trim(coding, " \t")
		if exchange.EqualFold(coding, name) || (name == "gzip" && exchange.EqualFold(coding, "x-gzip")) {
			return quality(strings.Trim(parameters, " \t")), true
		}
	}
	return 0, false
}

// quality reads a weight, "q=0.8", in thousandths; none is 1 (RFC 9110 section 12.4.2).
func quality(s string) int {
	if s == "" {
		return 1000
	}
	name, value, _ := strings.Cut(s, "=")
	if !exchange.EqualFold(strings.Trim(name, " \t"), "q") {
		return 0
	}
	value = strings.Trim(value, " \t")
	if value == "" || (value[0] != '0' && value[0] != '1') || (len(value) > 1 && value[1] != '.') || len(value) > 5 {
		return 0
	}
	w, unit := int(value[0]-'0')*1000, 100
	for _, c := range value[min(2, len(value)):] {
		if c < '0' || c > '9' {
			return 0
		}
		w, unit = w+int(c-'0')*unit, unit/10
	}
	if w > 1000 {
		return 0
	}
	return w
}
