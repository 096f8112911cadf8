package compile

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strings"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// plainText is the media type of a fixed answer that names none.
const plainText = "text/plain; charset=utf-8"

// respond compiles a fixed answer. What expressions put into its body is escaped as its media type wants it, so that a
// client's text can be neither markup nor structure.
func (j *job) respond(m *model.Respond, at []string) func(*exchange.Exchange) {
	key := func(k string) []string { return append(slices.Clip(at), k) }
	if m.Body != "" && (m.Status == 204 || m.Status == 205 || m.Status == 304) {
		j.problem("invalid_value", fmt.Sprintf("a reply of status %d has no body (RFC 9110 section 6.4.1)", m.Status), key("body")...)
	}
	contentType := ""
	if m.Body != "" {
		contentType = plainText
	}
	type field struct{ name, value string }
	var fields []field
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		value := m.Headers[name]
		switch {
		case !exchange.ValidName(name):
			j.problem("invalid_value", fmt.Sprintf("%q cannot be the name of a header field", name), append(key("headers"), name)...)
		case !exchange.ValidValue(value):
			j.problem("invalid_value", fmt.Sprintf("%q cannot be the value of a header field", value), append(key("headers"), name)...)
		case framing(name):
			j.problem("invalid_value", fmt.Sprintf("%s is the gateway's own business: it says how the reply is sent", name),
				append(key("headers"), name)...)
		case strings.EqualFold(name, "Content-Type"):
			contentType = value
		default:
			fields = append(fields, field{name, value})
		}
	}
	body, err := j.compiler.options.Expr.Template(m.Body, escaperOf(contentType))
	if err != nil {
		j.problem("invalid_template", err.Error(), key("body")...)
		return nil
	}
	status := m.Status
	return func(x *exchange.Exchange) {
		x.Answer(status, contentType, body(x))
		for i := range fields {
			x.Reply.Header.Add(fields[i].name, fields[i].value)
		}
	}
}

// framing reports whether a field says how a message is sent and not what it means.
func framing(name string) bool {
	switch strings.ToLower(name) {
	case "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer", "te", "date":
		return true
	}
	return false
}

func escaperOf(contentType string) func(string) string {
	kind, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
	case kind == "text/html" || strings.HasSuffix(kind, "xml"):
		return html.EscapeString
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		return jsonText
	}
	return func(s string) string { return s }
}

// jsonText escapes what stands between the quotes of a JSON string.
func jsonText(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil { // strings always marshal
		return ""
	}
	return string(quoted[1 : len(quoted)-1])
}

// redirect compiles an answer that sends the client elsewhere.
func (b *apiJob) redirect(m *model.Redirect, at []string) func(*exchange.Exchange) {
	at = append(slices.Clip(at), "to")
	to, err := b.compiler.options.Expr.Template(m.To, uriText)
	if err == nil {
		err = checkLocation(m.To)
	}
	if err != nil {
		b.problem("invalid_template", err.Error(), at...)
		return nil
	}
	status, local := m.Status, !strings.HasPrefix(m.To, "//") && (strings.HasPrefix(m.To, "/") || strings.HasPrefix(m.To, "{"))
	return func(x *exchange.Exchange) {
		location := to(x)
		if local {
			location = sameHost(location)
		}
		x.Answer(status, "", "")
		x.Reply.Header.Add("Location", location)
	}
}

// checkLocation checks what of a Location does not depend on the request.
func checkLocation(to string) error {
	fixed, _, _ := strings.Cut(to, "{")
	u, err := url.Parse(fixed)
	switch {
	case err != nil:
		return fmt.Errorf("%q does not begin like a URL; write https://host/path or /path", to)
	case u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q: a client is sent to http or https, not to %s", to, u.Scheme)
	case u.Scheme != "" && u.Host == "" && fixed == to:
		return fmt.Errorf("%q names no host", to)
	case strings.ContainsFunc(to, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("a Location is one line without control characters")
	}
	return nil
}

// sameHost keeps a Location that begins with a path on this host: "//host" and "/\host" would lead to another one.
func sameHost(location string) string {
	rest := strings.TrimLeft(location, `/\`)
	if len(location)-len(rest) > 1 {
		return "/" + rest
	}
	return location
}

// uriText percent-encodes what cannot stand in a URI, and nothing that can: a path that came encoded stays as it is.
func uriText(s string) string {
	const hex = "0123456789ABCDEF"
	clean := func(c byte) bool { return c > ' ' && c < 0x7f && strings.IndexByte("\"<>\\^`{|}", c) < 0 }
	for i := range len(s) {
		if clean(s[i]) {
			continue
		}
		b := append(make([]byte, 0, len(s)+8), s[:i]...)
		for ; i < len(s); i++ {
			if c := s[i]; clean(c) {
				b = append(b, c)
			} else {
				b = append(b, '%', hex[c>>4], hex[c&0xf])
			}
		}
		return string(b)
	}
	return s
}
