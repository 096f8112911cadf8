package compile

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/route"
)

// rewriting compiles what changes the path on its way to the upstream; nil: it goes on byte for byte. It returns false for a
// request whose path would come out ambiguous.
func (b *apiJob) rewriting(m *model.Rewrite, path string, at []string) func(*exchange.Exchange) bool {
	key := func(k string) []string { return append(slices.Clip(at), k) }
	segments := 0
	if base := strings.Trim(b.model.BasePath, "/"); b.model.StripBasePath && base != "" {
		segments = strings.Count(base, "/") + 1
	}
	switch {
	case m == nil || m.Path == "" && m.StripPrefix == "":
		if m != nil {
			b.problem("missing_key", "rewrite says nothing; write strip_prefix: /PREFIX or path: /TEMPLATE", at...)
		}
		if segments == 0 {
			return nil
		}
		return func(x *exchange.Exchange) bool {
			x.Request.Path = withoutSegments(x.Request.Path, segments)
			return true
		}
	case m.Path != "" && m.StripPrefix != "":
		b.problem("exclusive_keys", "strip_prefix and path exclude each other; the template for the whole path can leave the prefix "+
			"out", key("path")...)
	case m.Path != "":
		return b.template(m.Path, path, key("path"))
	case strings.Trim(m.StripPrefix, "/") == "" || strings.ContainsAny(m.StripPrefix, "{}*?#%"):
		b.problem("invalid_value", "strip_prefix is a literal path such as /v1, not encoded", key("strip_prefix")...)
	default:
		prefix := strings.Split(strings.Trim(m.StripPrefix, "/"), "/")
		return func(x *exchange.Exchange) bool {
			x.Request.Path = withoutPrefix(withoutSegments(x.Request.Path, segments), prefix)
			return true
		}
	}
	return nil
}

// withoutSegments leaves out the first n segments, however they were encoded: that they are the right ones is why the route
// matched.
func withoutSegments(path string, n int) string {
	for range n {
		i := strings.IndexByte(path[1:], '/')
		if i < 0 {
			return "/"
		}
		path = path[1+i:]
	}
	return path
}

// withoutPrefix leaves the segments out if the path begins with them.
func withoutPrefix(path string, prefix []string) string {
	rest := path
	for _, want := range prefix {
		if rest == "" {
			return path
		}
		got := rest[1:]
		if i := strings.IndexByte(got, '/'); i >= 0 {
			got = got[:i]
		}
		rest = rest[1+len(got):]
		if got == want {
			continue
		}
		if text, err := url.PathUnescape(got); err != nil || text != want {
			return path
		}
	}
	if rest == "" {
		return "/"
	}
	return rest
}

// template compiles a template for the whole path. What expressions put into it stays within its segment; only the rest of
// the path that {name...} captured keeps its slashes. A path that would come out ambiguous (a dot segment from a query
// parameter, say) is refused.
func (b *apiJob) template(src, path string, at []string) func(*exchange.Exchange) bool {
	if reason := route.CheckPath(skeleton(src), true, true); reason != "" {
		b.problem("invalid_value", fmt.Sprintf("%q makes no path: %s (the request's query is passed on as it is)", src, reason), at...)
		return nil
	}
	parts := splitRest(src, restOf(path))
	texts := make([]func(*exchange.Exchange) string, len(parts))
	for i, part := range parts {
		escape := url.PathEscape
		if part.rest {
			escape = escapeRest
		}
		var err error
		if texts[i], err = b.compiler.options.Expr.Template(part.text, escape); err != nil {
			b.problem("invalid_template", err.Error(), at...)
			return nil
		}
	}
	return func(x *exchange.Exchange) bool {
		path := ""
		for _, text := range texts {
			path += text(x)
		}
		if route.CheckPath(path, true, true) != "" {
			return false
		}
		x.Request.Path = path
		return true
	}
}

// skeleton is a template with x for each expression.
func skeleton(src string) string {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case depth == 0 && (c == '{' || c == '}') && i+1 < len(src) && src[i+1] == c:
			b.WriteString("%7B")
			i++
		case c == '{':
			if depth++; depth == 1 {
				b.WriteByte('x')
			}
		case c == '}':
			depth = max(0, depth-1)
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// restOf returns the name of what captures the rest of a path, or "".
func restOf(path string) string {
	last := path[strings.LastIndexByte(path, '/')+1:]
	if name, ok := strings.CutSuffix(last, "...}"); ok && !strings.HasPrefix(path, "~") {
		return strings.TrimPrefix(name, "{")
	}
	return ""
}

type piece struct {
	text string
	rest bool
}

// splitRest cuts a template around {path.NAME}, where NAME captures the rest.
func splitRest(src, name string) (parts []piece) {
	word := "{path." + name + "}"
	for name != "" {
		i := strings.Index(src, word)
		if i < 0 || i > 0 && src[i-1] == '{' {
			break
		}
		parts = append(parts, piece{text: src[:i]}, piece{word, true})
		src = src[i+len(word):]
	}
	return append(parts, piece{text: src})
}

func escapeRest(s string) string { return strings.ReplaceAll(url.PathEscape(s), "%2F", "/") }
