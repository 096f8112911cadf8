package ratelimit

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"headgate/gateway/exchange"
	"headgate/internal/counter"
)

// The fields of draft-ietf-httpapi-ratelimit-headers-11: lists of strings with parameters (RFC 9651), one for each limit.
const (
	policyField = "RateLimit-Policy"
	limitField  = "RateLimit"
)

// fields renders them for one limit. What does not change is rendered once.
type fields struct {
	rate   counter.Rate
	name   string // a quoted string
	policy string // the whole item
	detail string // for the caller that is refused
}

func newFields(name string, rate counter.Rate) fields {
	if name == "rate-limit" || name == "." || name == "/" { // nobody gave it a name of its own
		name = "default"
	}
	f := fields{rate: rate, name: quote(name), detail: fmt.Sprintf("%d in %v are allowed.", rate.Limit, rate.Per)}
	f.policy = f.name + ";q=" + strconv.FormatInt(rate.Limit, 10)
	if rate.Per%time.Second == 0 { // section 3.1.3: whole seconds; the parameter is optional
		f.policy += ";w=" + strconv.FormatInt(int64(rate.Per/time.Second), 10)
	}
	return f
}

// quote writes a string of structured fields, which has ASCII only (RFC 9651 section 4.1.6).
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r > '~':
			b.WriteByte('-')
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// add puts this limit's items before those that are there already, which come from limits after it: response hooks run
// backwards, so the list ends up in the document's order.
func (f *fields) add(h *exchange.Header, r counter.Result) {
	join(h, policyField, f.policy)
	var room [64]byte
	item := append(room[:0], f.name...)
	item = append(item, ";r="...)
	item = strconv.AppendInt(item, r.Remaining, 10)
	item = append(item, ";t="...)
	item = strconv.AppendInt(item, f.effectiveWindow(r), 10)
	if others := list(h, limitField); others != "" {
		item = append(append(item, ", "...), others...)
	}
	h.Set(limitField, string(item))
}

func join(h *exchange.Header, name, item string) {
	if others := list(h, name); others != "" {
		item += ", " + others
	}
	h.Set(name, item)
}

// list returns the items that the field has. A value in an older draft's syntax (no string in front) would make the whole
// list malformed, so that clients ignore it; it is replaced.
func list(h *exchange.Header, name string) string {
	if v := h.Joined(name); strings.HasPrefix(v, `"`) {
		return v
	}
	return ""
}

// effectiveWindow is the parameter t in seconds. A client that spreads what is left over it goes exactly at the rate:
// left ÷ t is never more than limit ÷ per, as section 8.5 wants. With nothing left it is when the next unit is there, and
// after a refusal no earlier than Retry-After (section 6).
func (f *fields) effectiveWindow(r counter.Result) int64 {
	switch {
	case r.RetryAfter > 0:
		return ceilSeconds(r.RetryAfter)
	case r.Remaining <= 0:
		return ceilSeconds(r.Reset - f.timeFor(f.rate.Burst-1))
	}
	return ceilSeconds(f.timeFor(r.Remaining))
}

// timeFor is in what time so many units come back: units × per ÷ limit, in 128 bits between.
func (f *fields) timeFor(units int64) time.Duration {
	high, low := bits.Mul64(uint64(units), uint64(f.rate.Per))
	if high >= uint64(f.rate.Limit) {
		return 1<<63 - 1 - time.Second
	}
	d, _ := bits.Div64(high, low, uint64(f.rate.Limit))
	return time.Duration(min(d, 1<<63-1-uint64(time.Second)))
}
