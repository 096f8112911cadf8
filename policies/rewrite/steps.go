package rewrite

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// rewriter is the policy at work.
type rewriter struct {
	path, host func(*exchange.Exchange) string // nil: none
	strip, add string
	regex      *regexp.Regexp
	with       string
	method     string
	remove     []string // parameters
	set, added []param
}

type param struct {
	name, escaped string
	value         func(*exchange.Exchange) string
}

func compile(c Config, templates policy.Compiler) (*rewriter, error) {
	r := &rewriter{method: c.Method, remove: c.Query.Remove}
	r.strip, r.add = strings.TrimSuffix(c.StripPrefix, "/"), strings.TrimSuffix(c.AddPrefix, "/")
	var wrong []error
	template := func(src string, escape func(string) string, path ...string) func(*exchange.Exchange) string {
		if src == "" {
			return nil
		}
		f, err := templates.Template(src, escape)
		if err != nil {
			wrong = append(wrong, &decode.PathError{Path: path, Err: err})
		}
		return f
	}
	r.path = template(c.Path, escapeSegment, "path")
	r.host = template(c.Host, func(s string) string { return s }, "host")
	if c.Regex.Match != "" {
		r.regex, r.with = regexp.MustCompile(c.Regex.Match), c.Regex.With
	}
	params := func(list string, values map[string]string) (ps []param) {
		for _, name := range sorted(values) {
			value := template(values[name], func(s string) string { return s }, "query", list, name)
			ps = append(ps, param{name, url.QueryEscape(name), value})
		}
		return ps
	}
	r.set, r.added = params("set", c.Query.Set), params("add", c.Query.Add)
	return r, errors.Join(wrong...)
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// rewrite computes everything from the request as it came, and changes it only when all of it is valid.
func (r *rewriter) rewrite(x *exchange.Exchange) policy.Verdict {
	path, host := r.newPath(x), x.Request.Host
	if path != x.Request.Path {
		if reason := wrongPath(path); reason != "" {
			return policy.Refuse(x, invalid, "The path would have "+reason+".")
		}
	}
	if r.host != nil {
		if host = r.host(x); !validHost(host) {
			return policy.Refuse(x, invalid, "The host would not be a host.")
		}
	}
	if len(r.remove)+len(r.set)+len(r.added) > 0 {
		query := r.newQuery(x)
		x.Request.HasQuery = query != "" || x.Request.HasQuery && x.Request.Query == ""
		x.Request.Query = query
	}
	x.Request.Path, x.Request.Host = path, host
	if r.method != "" && x.Request.Method != "HEAD" { // a reply to HEAD has no body, whatever the upstream was asked
		x.Request.Method = r.method
	}
	return policy.Continue
}

func (r *rewriter) newPath(x *exchange.Exchange) string {
	if r.path != nil {
		return r.path(x)
	}
	path := x.Request.Path
	if rest, ok := strings.CutPrefix(path, r.strip); ok && r.strip != "" && (rest == "" || rest[0] == '/') {
		if path = rest; path == "" {
			path = "/"
		}
	}
	if r.regex != nil {
		path = r.regex.ReplaceAllString(path, r.with)
	}
	return r.add + path
}

// newQuery returns the query with the changes made. Parameters that are not named keep every byte.
func (r *rewriter) newQuery(x *exchange.Exchange) string {
	var out []byte
	for piece := range strings.SplitSeq(x.Request.Query, "&") {
		if piece != "" && !r.replaces(piece) {
			out = appendPiece(out, piece)
		}
	}
	for _, list := range [...][]param{r.set, r.added} {
		for i := range list {
			if value := list[i].text(x); value != "" {
				out = appendPiece(out, list[i].escaped+"="+url.QueryEscape(value))
			}
		}
	}
	return string(out)
}

func (p *param) text(x *exchange.Exchange) string {
	if p.value == nil {
		return ""
	}
	return p.value(x)
}

func appendPiece(b []byte, piece string) []byte {
	if len(b) > 0 {
		b = append(b, '&')
	}
	return append(b, piece...)
}

// replaces reports whether a piece of the query is a parameter that is taken out or set, however its name is encoded.
func (r *rewriter) replaces(piece string) bool {
	name, _, _ := strings.Cut(piece, "=")
	if strings.ContainsAny(name, "%+") {
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
	}
	if slices.Contains(r.remove, name) {
		return true
	}
	for i := range r.set {
		if r.set[i].name == name {
			return true
		}
	}
	return false
}
