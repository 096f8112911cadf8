// Package route finds what a request leads to: host, path, method, header fields and query parameters lead to a value.
// Which of several fitting rules wins follows from the rules alone, never from their order or the length of a string:
//
//  1. Host: an exact name, then *.suffix (the longer suffix first), then rules for every host.
//  2. Path, segment by segment from the left: the end or a literal, then {name}, then *, then a regular expression, then a
//     rest ({name...} before **). A rest stands behind a regular expression at the same place because it fits whatever that
//     fits: in front of it, it would leave the expression without a request.
//  3. Predicates: more of them (a list of methods, each header field, each query parameter) before fewer; of equally many,
//     the strictly narrower ones (GET before GET,POST; a value before a pattern before any value).
//
// Two rules that fit one request without either being first by this order are a [Conflict], and so is a rule for which
// another one leaves no request. A request falls through to a less specific rule if the more specific one's method or
// predicates do not fit.
package route

import "headgate/gateway/exchange"

// Rule leads requests to a value.
type Rule[T any] struct {
	Hosts []string // exact names or *.suffix (one label or more in front), without a port; none: every host
	Base  string   // literal beginning of the path, such as /shop; "" and "/" are the same
	// Path is what follows the base path. Its segments are literals, {name} for one segment, * for one segment, and at the end
	// {name...} or ** for the rest, which may be empty: /files/** fits /files, /files/ and /files/a/b. One segment means one
	// that is not empty. Literals may be percent-encoded. "/" is the base path with or without a slash behind it; "" is
	// /**. With ~ in front it is a regular expression (RE2) for the whole path below the base path, which begins with a
	// slash or is empty; it sees percent-decoded text in which an encoded slash stays "%2F"; its named groups are captured.
	Path    string
	Methods []string          // any of these; GET stands for HEAD too; none: every method
	Headers map[string]string // fields that one line each must give this value; "*": any; "~...": a regular expression for the whole value
	Query   map[string]string // parameters, likewise, percent-decoded
	Name    string            // for messages, such as apis.shop.routes["list orders"]
	Value   T
}

// Status is how a search ended.
type Status uint8

// The ends of a search.
const (
	Matched  Status = iota
	NoRoute         // no rule fits host and path: 404
	NoMethod        // rules fit all but the method: 405, or the gateway's own answer to OPTIONS
)

// Outcome is how a search ended.
type Outcome struct {
	Status Status
	Allow  string // with NoMethod: the methods that would do, sorted, for the Allow field; OPTIONS is always one of them
}

// Table is an immutable set of rules, safe for concurrent use.
type Table[T any] struct {
	index  index
	values []T
}

// Match returns the value of the most specific rule that fits, and params with what its path captured appended. Host may
// have a port, capitals and a final dot. Path is as it came, without the query; it is expected to have passed
// [CheckPath]. Without a '%' in the path and capitals in the host nothing is allocated as long as params has room.
func (t *Table[T]) Match(
	method, host, path string, header *exchange.Header, query string, params []exchange.Param,
) (T, []exchange.Param, Outcome) {
	w := search{index: &t.index, path: path, query: query, header: header, params: params}
	w.bit, w.head = t.index.methods.bit(method), method == "HEAD"
	if e := w.run(host); e != nil {
		return t.values[e.rule], w.params, Outcome{}
	}
	var none T
	if w.allow != 0 {
		return none, w.params, Outcome{Status: NoMethod, Allow: t.index.methods.allow(w.allow)}
	}
	return none, w.params, Outcome{Status: NoRoute}
}

// Len returns the number of rules.
func (t *Table[T]) Len() int { return len(t.values) }
