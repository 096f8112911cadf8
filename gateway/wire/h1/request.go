package h1

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"headgate/gateway/exchange"
)

// ParseRequest parses a complete request head, which ends with an empty line, into r. Names and values become substrings
// of one string made here. The error is always an *Error.
func ParseRequest(b []byte, l *Limits, r *exchange.Request) (Head, error) {
	head := Head{Length: -1}
	line := bytes.IndexByte(b, '\r')
	s := string(b)
	r.Header.Reset(s)
	r.Trailer.Reset("")
	if err := requestLine(s, b, line, l, &head, r); err != nil {
		return head, err
	}
	authority := r.Host // of an absolute target
	if err := head.fields(s, b, line+2, l.Fields, &r.Header, &r.Host); err != nil {
		return head, err
	}
	if err := head.framing(); err != nil {
		return head, err
	}
	if err := head.checkHost(r, authority); err != nil {
		return head, err
	}
	if head.connection != "" {
		head.dropNamed(&r.Header)
	}
	r.Upgrade = ""
	if head.Upgrade {
		if head.Length > 0 || head.Chunked {
			return head, errUpgradeBody
		}
		r.Upgrade = head.wanted(r.Method)
	}
	if head.Old {
		head.Close = head.Close || !head.keepAlive
		head.Expect = false // RFC 9110 section 10.1.1: ignored in HTTP/1.0
	}
	head.Expect = head.Expect && (head.Length > 0 || head.Chunked)
	r.Expect = head.Expect
	return head, nil
}

// requestLine parses b[:line] (RFC 9112 section 3).
func requestLine(s string, b []byte, line int, l *Limits, head *Head, r *exchange.Request) error {
	method := tokenEnd(b, 0)
	if method == 0 || method >= line || b[method] != ' ' {
		return methodError(b, method, line)
	}
	target := method + 1
	space := bytes.IndexByte(b[target:line], ' ')
	if space < 0 {
		if line-target > l.Target {
			return errTargetTooLong
		}
		return errRequestLine
	}
	space += target
	r.Method = s[:method]
	if err := head.version(b[space+1:line], r); err != nil {
		return err
	}
	if b[line+1] != '\n' {
		return errBareCR
	}
	if space-target > l.Target {
		return errTargetTooLong
	}
	return head.parseTarget(s[target:space], b[target:space], r)
}

func methodError(b []byte, method, line int) error {
	switch {
	case method == 0 && line == 0:
		return errEmptyLine
	case bytes.IndexByte(b[:line], '\n') >= 0:
		return errBareLF
	case method > 0 && method == line:
		return errRequestLine
	}
	return errMethod
}

// version reads HTTP/1.1 or HTTP/1.0; a higher minor version is read as 1.1 (RFC 9110 section 2.5).
func (head *Head) version(b []byte, r *exchange.Request) error {
	const name = "HTTP/"
	if len(b) != len(name)+3 || string(b[:len(name)]) != name || b[6] != '.' || !isDigit(b[5]) || !isDigit(b[7]) {
		if bytes.IndexByte(b, '\n') >= 0 {
			return errBareLF
		}
		return errVersion
	}
	if b[5] != '1' {
		return errMajorVersion
	}
	r.Proto = "HTTP/1.1"
	if b[7] == '0' {
		r.Proto, head.Old = "HTTP/1.0", true
	}
	return nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// parseTarget splits the target (RFC 9112 section 3.2) into path, query and, for the absolute form, host.
func (head *Head) parseTarget(s string, b []byte, r *exchange.Request) error {
	r.Host = ""
	if s != "" && s[0] == '/' && r.Method != "CONNECT" {
		return pathAndQuery(s, b, r)
	}
	switch {
	case r.Method == "CONNECT":
		return head.parseAuthority(s, r)
	case s == "*":
		if r.Method != "OPTIONS" {
			return errTargetForm
		}
		r.Path, r.Query, r.HasQuery = "*", "", false
		return nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return errTarget
	}
	switch {
	case exchange.EqualFold(scheme, "http"):
		head.Scheme = "http"
	case exchange.EqualFold(scheme, "https"):
		head.Scheme = "https"
	default:
		return errTargetScheme
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if !validHost(rest[:end]) {
		return errTarget
	}
	host := rest[:end]
	if err := pathAndQuery(rest[end:], b[len(s)-len(rest)+end:], r); err != nil {
		return err
	}
	r.Host = host
	return nil
}

// parseAuthority takes a CONNECT's target, which must name a port (RFC 9110 section 9.3.6). Its client may have sent the
// tunnel's first bytes already, which must not be taken for a request when it is refused, so the connection ends with it.
func (head *Head) parseAuthority(s string, r *exchange.Request) error {
	host := withoutPort(s)
	if host == s || !validHost(s) || strings.Trim(s[len(host)+1:], "0") == "" {
		return errTarget
	}
	head.Close = true
	r.Path, r.Query, r.HasQuery, r.Host = "", "", false, s
	return nil
}

func pathAndQuery(s string, b []byte, r *exchange.Request) error {
	n := span(b, inPath)
	r.Path, r.Query, r.HasQuery = s[:n], "", false
	if n < len(b) {
		if b[n] != '?' || n+1+span(b[n+1:], inQuery) != len(b) {
			return errTarget
		}
		r.Query, r.HasQuery = s[n+1:], true
	}
	if n == 0 { // only the absolute form may leave the path out (RFC 9112 section 3.2.2)
		r.Path = "/"
		if r.Method == "OPTIONS" && !r.HasQuery {
			r.Path = "*"
		}
	}
	return nil
}

// checkHost holds the Host field against the target (RFC 9112 section 3.2). Two names for one message are a way to be
// routed by one and served by the other, so they are refused rather than one of them ignored.
func (head *Head) checkHost(r *exchange.Request, authority string) error {
	switch {
	case head.hosts > 1:
		return errHostRepeated
	case head.hosts == 0 && !head.Old:
		return errHostMissing
	case head.hosts == 1 && !validHost(r.Host):
		return errHost
	}
	if authority == "" {
		return nil
	}
	if head.hosts == 1 && !sameHost(authority, r.Host, head.defaultPort(authority)) {
		return errHostDisagrees
	}
	r.Host = authority
	return nil
}

// defaultPort returns the port that goes without saying: the scheme's, and for CONNECT, which has none, that of its target.
func (head *Head) defaultPort(authority string) string {
	switch head.Scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return authority[len(withoutPort(authority))+1:]
}

// sameHost reports whether two authorities are the same but for case and a port that is empty or the default one
// (RFC 9110 section 4.2.3).
func sameHost(a, b, port string) bool {
	return exchange.EqualFold(withoutDefault(a, port), withoutDefault(b, port))
}

func withoutDefault(s, port string) string {
	host := withoutPort(s)
	if host == s || s[len(host)+1:] == "" || s[len(host)+1:] == port {
		return host
	}
	return s
}

// withoutPort returns the host of an authority: all of it if there is no colon behind the host.
func withoutPort(s string) string {
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		return s[:i]
	}
	return s
}

// validHost accepts a name or an address with an optional port. User information, percent-encoding and the sub-delims
// that RFC 3986 allows in names are not used by anybody honest.
func validHost(s string) bool {
	host, port := s, ""
	if s != "" && s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return false
		}
		if a, err := netip.ParseAddr(s[1:end]); err != nil || !a.Is6() || a.Zone() != "" {
			return false
		}
		if s = s[end+1:]; s == "" {
			return true
		}
		return s[0] == ':' && validPort(s[1:])
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
		if !validPort(port) {
			return false
		}
	}
	for i := range len(host) {
		if classes[host[i]]&inHost == 0 {
			return false
		}
	}
	return host != ""
}

func validPort(s string) bool {
	if len(s) > 5 {
		return false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	n, err := strconv.Atoi(s)
	return s == "" || (err == nil && n <= 65535)
}
