package route

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"headgate/gateway/exchange"
)

// The reference: a linear scan over all rules that fit, taking the most specific one, written for being read.

type request struct {
	method, host, path, query string
	header                    map[string]string
}

func (r request) exchangeHeader() *exchange.Header {
	h := new(exchange.Header)
	for name, value := range r.header {
		h.Add(name, value)
	}
	return h
}

// refSegments splits a rule's path into segments; "/" below a base path has two readings.
func refSegments(r Rule[int]) [][]string {
	base := strings.Split(strings.Trim(r.Base, "/"), "/")
	if base[0] == "" {
		base = nil
	}
	path := cmp.Or(r.Path, "/**")
	if strings.HasPrefix(path, "~") {
		return [][]string{append(base, path)}
	}
	all := [][]string{append(slices.Clone(base), strings.Split(path[1:], "/")...)}
	if path == "/" && base != nil {
		all = append(all, base)
	}
	return all
}

// refKind ranks a segment; "" at the end of a shorter pattern ranks first.
func refKind(segments []string, i int) int {
	if i >= len(segments) {
		return 0
	}
	switch s := segments[i]; {
	case s == "**":
		return 6
	case strings.HasSuffix(s, "...}"):
		return 5
	case strings.HasPrefix(s, "~"):
		return 4
	case s == "*":
		return 3
	case strings.HasPrefix(s, "{"):
		return 2
	}
	return 1
}

func refComparePaths(a, b []string) int {
	for i := range max(len(a), len(b)) + 1 {
		if c := refKind(a, i) - refKind(b, i); c != 0 {
			return c
		}
	}
	return 0
}

func refFitsPath(pattern, path []string, params []exchange.Param) ([]exchange.Param, bool) {
	if len(pattern) == 0 {
		return params, len(path) == 0
	}
	s := pattern[0]
	switch refKind(pattern, 0) {
	case 6:
		return params, true
	case 5:
		return append(params, exchange.Param{Name: s[1 : len(s)-4], Value: refUnescape(strings.Join(path, "/"))}), true
	case 4:
		below := ""
		for _, p := range path {
			below += "/" + strings.ReplaceAll(refUnescape(strings.ReplaceAll(p, "%2F", "\x00")), "\x00", "%2F")
		}
		return params, regexp.MustCompile(`^(?:` + s[1:] + `)$`).MatchString(below)
	}
	if len(path) == 0 {
		return nil, false
	}
	text := refUnescape(path[0])
	switch refKind(pattern, 0) {
	case 1:
		if refUnescape(s) != text || strings.Contains(strings.ToLower(s), "%2f") != strings.Contains(strings.ToLower(path[0]), "%2f") {
			return nil, false
		}
	case 2:
		params = append(params, exchange.Param{Name: s[1 : len(s)-1], Value: text})
		fallthrough
	case 3:
		if text == "" {
			return nil, false
		}
	}
	return refFitsPath(pattern[1:], path[1:], params)
}

func refUnescape(s string) string {
	text, err := url.PathUnescape(s)
	if err != nil {
		return s
	}
	return text
}

func refHostRank(rule, host string) (int, bool) {
	host, _, _ = strings.Cut(strings.ToLower(host), ":")
	host = strings.TrimSuffix(host, ".")
	if suffix, ok := strings.CutPrefix(rule, "*."); ok {
		return 1000 - len(suffix), strings.HasSuffix(host, "."+suffix) && host != "."+suffix
	}
	return 0, rule == host
}

func refValueFits(want string, got string, present bool) bool {
	if expr, ok := strings.CutPrefix(want, "~"); ok {
		return present && regexp.MustCompile(`^(?:`+expr+`)$`).MatchString(got)
	}
	return present && (want == "*" || want == got)
}

func refPredicates(r Rule[int], q request) bool {
	for name, want := range r.Headers {
		got, ok := q.header[name]
		if !refValueFits(want, got, ok) {
			return false
		}
	}
	values, _ := url.ParseQuery(q.query)
	for name, want := range r.Query {
		if !refValueFits(want, values.Get(name), values.Has(name)) {
			return false
		}
	}
	return true
}

// refWeight is the rank of a rule's predicates: how many, then how narrow.
func refWeight(r Rule[int]) (count, narrow int) {
	for _, m := range []map[string]string{r.Headers, r.Query} {
		for _, v := range m {
			count++
			switch {
			case v == "*":
			case strings.HasPrefix(v, "~"):
				narrow++
			default:
				narrow += 2
			}
		}
	}
	if len(r.Methods) > 0 {
		count++
	}
	return count, narrow
}

type candidate struct {
	rule   Rule[int]
	host   int
	path   []string
	params []exchange.Param
	headed bool // lists HEAD itself
}

func refCompare(a, b candidate, head bool) int {
	if c := cmp.Or(a.host-b.host, refComparePaths(a.path, b.path)); c != 0 {
		return c
	}
	ca, na := refWeight(a.rule)
	cb, nb := refWeight(b.rule)
	if c := cb - ca; c != 0 {
		return c
	}
	if head && a.headed != b.headed {
		if a.headed {
			return -1
		}
		return 1
	}
	return cmp.Or(nb-na, len(a.rule.Methods)-len(b.rule.Methods))
}

// refMatch returns the value of the most specific rule that fits, or -1.
func refMatch(rules []Rule[int], q request) (value int, params []exchange.Param, outcome Outcome) {
	var fitting []candidate
	allow := map[string]bool{}
	for _, r := range rules {
		for _, pattern := range refSegments(r) {
			params, ok := refFitsPath(pattern, strings.Split(q.path, "/")[1:], nil)
			if !ok || !refPredicates(r, q) {
				continue
			}
			rank, hostFits := 10_000, len(r.Hosts) == 0
			for _, h := range r.Hosts {
				if n, ok := refHostRank(h, q.host); ok {
					rank, hostFits = min(rank, n), true
				}
			}
			if !hostFits {
				continue
			}
			get := q.method == "HEAD" && slices.Contains(r.Methods, "GET")
			if len(r.Methods) > 0 && !slices.Contains(r.Methods, q.method) && !get {
				for _, m := range r.Methods {
					allow[m] = true
					if m == "GET" {
						allow["HEAD"] = true
					}
				}
				continue
			}
			fitting = append(fitting, candidate{r, rank, pattern, params, slices.Contains(r.Methods, "HEAD")})
		}
	}
	if len(fitting) == 0 {
		if len(allow) == 0 {
			return 0, nil, Outcome{Status: NoRoute}
		}
		allow["OPTIONS"] = true
		var names []string
		for m := range allow {
			names = append(names, m)
		}
		slices.Sort(names)
		return 0, nil, Outcome{Status: NoMethod, Allow: strings.Join(names, ", ")}
	}
	best := slices.MinFunc(fitting, func(a, b candidate) int { return refCompare(a, b, q.method == "HEAD") })
	return best.rule.Value, best.params, Outcome{}
}
