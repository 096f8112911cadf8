package h1

import (
	"bufio"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headgate/gateway/exchange"
)

// sameAsNetHTTP fails if net/http accepts the request and reads another meaning out of it: that would be a way to be seen
// as one request by the gateway and as another by the many programs that stand on net/http. What Headgate refuses and
// net/http accepts is no such way; TestWhereNetHTTPDiffers names the kinds.
func (ws *wires) sameAsNetHTTP(t rapid.TB, raw string, r *exchange.Request, head *Head, rest string) {
	t.Helper()
	in := bufio.NewReader(strings.NewReader(raw))
	theirs, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	if theirs.Method != r.Method || theirs.Host != r.Host || targetOf(theirs) != target(r) {
		t.Errorf("%q\nours   %s %q %q\ntheirs %s %q %q", raw, r.Method, r.Host, target(r), theirs.Method, theirs.Host, targetOf(theirs))
	}
	if theirs.Close && !head.Close && r.Proto == "HTTP/1.1" {
		t.Errorf("%q: net/http would close the connection", raw)
	}
	forget(theirs.Header, &r.Header)
	if ours, want := sorted(&r.Header), remaining(theirs.Header, connectionOf(raw)); !slices.Equal(ours, want) {
		t.Errorf("%q\nours   %q\ntheirs %q", raw, ours, want)
	}
	if head.Chunked != (theirs.ContentLength < 0) || !head.Chunked && max(head.Length, 0) != theirs.ContentLength {
		t.Errorf("%q: framed by %+v, for net/http by %d, %q", raw, *head, theirs.ContentLength, theirs.TransferEncoding)
	}
	const enough = 4 << 10 // keeps a case fast
	if head.Chunked && rest != "" && len(rest) < enough {
		ws.sameBody(t, raw, rest, theirs, in)
	}
}

// sameBody compares a chunked body, its trailers and what stands behind it.
func (ws *wires) sameBody(t rapid.TB, raw, rest string, theirs *http.Request, in *bufio.Reader) {
	t.Helper()
	body, err := io.ReadAll(theirs.Body)
	if err != nil {
		return
	}
	m := ws.receive(t, rest, nil, how{kind: byChunks, limits: fuzzLimits()})
	if m.err != nil {
		return
	}
	behind, _ := io.ReadAll(in) // from memory
	if m.data != string(body) || m.rest != string(behind) {
		t.Errorf("%q\nours   %q, then %q\ntheirs %q, then %q", raw, m.data, m.rest, body, behind)
	}
	var ours []string
	for f := range strings.Lines(m.trailer) {
		name, value, _ := strings.Cut(strings.TrimSuffix(f, "\n"), "=")
		ours = append(ours, strings.ToLower(name)+": "+value)
	}
	slices.Sort(ours)
	theirs.Trailer = maps.Clone(theirs.Trailer)
	maps.DeleteFunc(theirs.Trailer, func(name string, values []string) bool {
		return values == nil || forbiddenInTrailer(name) || takenOut(name) // announced in Trailer only; or not for the end
	})
	if want := remaining(theirs.Trailer, nil); !slices.Equal(ours, want) && !strings.Contains(m.trailer, "=\n") {
		t.Errorf("%q\nour trailers   %q\ntheir trailers %q", raw, ours, want)
	}
}

// target returns what stands behind the host.
func target(r *exchange.Request) string {
	if r.HasQuery {
		return r.Path + "?" + r.Query
	}
	return r.Path
}

// targetOf returns what stands behind the host in the target that net/http keeps as it came.
func targetOf(r *http.Request) string {
	uri := r.RequestURI
	switch {
	case r.Method == "CONNECT" && !strings.HasPrefix(uri, "/"):
		return ""
	case strings.HasPrefix(uri, "/"), uri == "*":
		return uri
	}
	_, rest, _ := strings.Cut(uri, "://")
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0 && r.Method == "OPTIONS":
		return "*"
	case i < 0:
		return "/"
	case rest[i] == '?':
		return "/" + rest[i:]
	}
	return rest[i:]
}

// sorted lists a header's fields by lower-case name.
func sorted(h *exchange.Header) (fields []string) {
	for name, value := range h.All() {
		fields = append(fields, strings.ToLower(name)+": "+value)
	}
	slices.Sort(fields)
	return fields
}

// takenOut tells the fields that this package keeps for itself.
func takenOut(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Upgrade",
		"Content-Length", "Transfer-Encoding", "Host", "Expect":
		return true
	}
	return false
}

// forget takes out of net/http's header what it adds by itself, Cache-Control for Pragma, and puts back what it takes out,
// Trailer, which it keeps elsewhere.
func forget(theirs http.Header, ours *exchange.Header) {
	if !ours.Has("Cache-Control") {
		theirs.Del("Cache-Control")
	}
	theirs.Del("Trailer")
	for v := range ours.Values("Trailer") {
		theirs.Add("Trailer", v)
	}
}

// connectionOf returns the Connection fields of a message, which net/http may have taken out.
func connectionOf(raw string) []string {
	_, section, _ := strings.Cut(raw, "\n")
	h, _ := textproto.NewReader(bufio.NewReader(strings.NewReader(section))).ReadMIMEHeader() // was read by net/http already
	return h["Connection"]
}

// remaining lists the fields of net/http's header without those of one hop (RFC 9110 section 7.6.1).
func remaining(h http.Header, connection []string) (fields []string) {
	drop := map[string]bool{}
	for _, v := range connection {
		for option := range strings.SplitSeq(v, ",") {
			drop[http.CanonicalHeaderKey(strings.Trim(option, " \t"))] = true
		}
	}
	for name, values := range h {
		if takenOut(name) || drop[http.CanonicalHeaderKey(name)] {
			continue
		}
		for _, v := range values {
			fields = append(fields, strings.ToLower(name)+": "+v)
		}
	}
	slices.Sort(fields)
	return fields
}

// replySameAsNetHTTP is sameAsNetHTTP for the head of a reply.
func replySameAsNetHTTP(t rapid.TB, raw, method string, r *exchange.Reply, head *Head, _ string) {
	t.Helper()
	theirs, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), &http.Request{Method: method})
	if err != nil {
		return
	}
	if theirs.StatusCode != r.Status {
		t.Errorf("%q: status %d, for net/http %d", raw, r.Status, theirs.StatusCode)
	}
	chunked := slices.Equal(theirs.TransferEncoding, []string{"chunked"})
	if hasBody(method, r.Status) && (head.Chunked != chunked || !chunked && head.Length != theirs.ContentLength) {
		t.Errorf("%q: framed by %+v, for net/http by %d, %q", raw, *head, theirs.ContentLength, theirs.TransferEncoding)
	}
	var ours []string
	for name, value := range r.Header.All() {
		if !takenOut(name) {
			ours = append(ours, strings.ToLower(name)+": "+value)
		}
	}
	slices.Sort(ours)
	forget(theirs.Header, &r.Header)
	if want := remaining(theirs.Header, connectionOf(raw)); !slices.Equal(ours, want) {
		t.Errorf("%q\nours   %q\ntheirs %q", raw, ours, want)
	}
}

// Every message of the tables that both accept means the same to both.
func TestWhatNetHTTPAcceptsTooMeansTheSame(t *testing.T) {
	ws := newWires(t)
	both := 0
	for _, raw := range requests() {
		r, head, rest, err := parseRequest(raw, testLimits())
		if err != nil {
			continue
		}
		both++
		ws.sameAsNetHTTP(t, raw, r, &head, rest)
	}
	for _, raw := range responses() {
		r, head, rest, err := parseResponse(raw, "GET", testLimits())
		if err != nil {
			continue
		}
		both++
		replySameAsNetHTTP(t, raw, "GET", r, &head, rest)
	}
	if both < len(acceptedRequests)+len(acceptedResponses) {
		t.Errorf("only %d messages were compared", both)
	}
}

// Messages put together at random from parts that have fooled somebody mean the same to both.
func TestRandomRequestsMeanTheSameToNetHTTP(t *testing.T) {
	ws := newWires(t)
	rapid.Check(t, func(rt *rapid.T) {
		raw := randomRequest(rt)
		r, head, rest, err := parseRequest(raw, fuzzLimits())
		if err != nil {
			return
		}
		ws.sameAsNetHTTP(rt, raw, r, &head, rest)
	})
}

// part is one place of a message and what may stand there: mostly what both accept, and now and then what nobody should.
type part struct {
	name       string
	good, evil []string
}

func (p part) draw(rt *rapid.T) string {
	if rapid.IntRange(0, 15).Draw(rt, p.name+" is evil") == 0 {
		return rapid.SampledFrom(p.evil).Draw(rt, p.name)
	}
	return rapid.SampledFrom(p.good).Draw(rt, p.name)
}

var linePart = []part{
	{"method", []string{"GET", "POST", "HEAD", "OPTIONS", "get", "CONNECT"}, []string{"", "G T", "GET\t", "G\x00"}},
	{"space", []string{" "}, []string{"  ", "\t", ""}},
	{"target",
		[]string{"/", "/a?b", "/?", "//a", "/%2e", "http://a", "http://a/b?c", "https://a?b", "a:80", "*", "/a:b@c"},
		[]string{"", "a", "http://u@a/", "/a b", "/\x7f", "http:a", "*?a", "http://b", "/#a"}},
	{"version",
		[]string{" HTTP/1.1\r\n", " HTTP/1.0\r\n", " HTTP/1.2\r\n"},
		[]string{"\r\n", " HTTP/1.1\n", " HTTP/1.1 \r\n", " HTTP/2.0\r\n"}},
}

var hostPart = part{"host",
	[]string{"Host: a\r\n", "host:\ta \r\n", "Host: a:80\r\n"},
	[]string{"", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: \r\n"}}

var framingPart = part{"framing",
	[]string{"", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "content-length: 005 \r\n", "Content-Length: 0\r\n"},
	[]string{"Transfer-Encoding: xchunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "Content-Length: +5\r\n",
		"Content-Length: 5\r\nContent-Length: 5\r\n", "Transfer-Encoding:\vchunked\r\n", "Content-Length: 5\n",
		"Transfer-Encoding : chunked\r\n"}}

var fieldPart = []part{
	{"name", []string{"A", "b", "Connection", "TE", "Trailer", "X-Hop", "Pragma", "Expect", "Upgrade", "Cookie", "Keep-Alive"},
		[]string{"", "A ", " A", "A\x00", "A\n"}},
	{"colon", []string{":", ": "}, []string{" :", ""}},
	{"value", []string{"", "b", "close", "keep-alive", "X-Hop, A", "a:b", "100-continue", "\"c\"", "caf\xe9", "trailers", "no-cache", " b \t"},
		[]string{"\x00", "a\nb", "a\rb", "a\r\n b"}},
	{"end", []string{"\r\n"}, []string{"\n", "\r", "\r\r\n"}},
}

var endPart = []part{
	{"head's end", []string{"\r\n"}, []string{"\n", "\r\n\r\n", "\r\n "}},
	{"body",
		[]string{"hello", "5\r\nhello\r\n0\r\n\r\n", "5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\nGET /", "0\r\n\r\nrest", ""},
		[]string{"5\nhello\n0\n\n", "5\r\nhelloX\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n",
			"5;a\nb\r\nhello\r\n0\r\n\r\n", "0\r\nA: b\n\r\n", "0\r\nHost: x\r\nA: b\r\n\r\n"}},
}

func drawAll(rt *rapid.T, parts []part) (s string) {
	for _, p := range parts {
		s += p.draw(rt)
	}
	return s
}

// randomRequest draws a request.
func randomRequest(rt *rapid.T) string {
	fields := []string{hostPart.draw(rt), framingPart.draw(rt)}
	for range rapid.IntRange(0, 4).Draw(rt, "fields") {
		fields = append(fields, drawAll(rt, fieldPart))
	}
	fields = rapid.Permutation(fields).Draw(rt, "order")
	return drawAll(rt, linePart) + strings.Join(fields, "") + drawAll(rt, endPart)
}

// What the one accepts and the other refuses, on purpose: each kind with its clause. A change of either side shows here.
func TestWhereNetHTTPDiffers(t *testing.T) {
	for _, c := range []struct {
		name, raw    string
		ours, theirs bool // accepted
		clause       string
	}{
		{"both framings", post("0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"), false, true,
			"RFC 9112 section 6.1 lets a server refuse both; net/http ignores the length"},
		{"length repeated", post("hello", "Content-Length: 5", "Content-Length: 5"), false, true,
			"RFC 9110 section 8.6 allows to take equal ones as one; refused, since programs before or behind may take them otherwise"},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, true,
			"RFC 9112 section 6.1: framing is faulty; net/http ignores the coding"},
		{"LF ends lines", "GET / HTTP/1.1\nHost: a\n\n", false, true,
			"RFC 9112 section 2.2 only says that a recipient MAY take a single LF"},
		{"folded line", get("A: b", " c"), false, true, "RFC 9112 section 5.2: refuse or replace by spaces; net/http replaces"},
		{"path beyond ASCII", line("GET /caf\xc3\xa9 HTTP/1.1"), false, true, "RFC 9112 section 3.2 and RFC 3986 section 3.3"},
		{"fragment", line("GET /a#b HTTP/1.1"), false, true, "RFC 9110 section 7.1: a target has no fragment"},
		{"another scheme", line("GET ftp://a/ HTTP/1.1"), false, true, "a gateway knows http and https"},
		{"user information", line("GET http://u@a/ HTTP/1.1"), false, true, "RFC 9110 section 4.2.4"},
		{"target and Host disagree", line("GET http://b/ HTTP/1.1"), false, true,
			"RFC 9112 section 3.2.2 ignores Host; refused, since a program behind may not"},
		{"asterisk with GET", line("GET * HTTP/1.1"), false, true, "RFC 9112 section 3.2.4"},
		{"Host missing", "GET / HTTP/1.1\r\n\r\n", false, true,
			"RFC 9112 section 3.2 (net/http's server refuses it after parsing)"},
		{"Host empty", host("Host:"), false, true, "RFC 9110 section 4.2.1: an http target has a host"},
		{"Host that is not one", host("Host: a b"), false, true, "RFC 9112 section 3.2 (net/http's server looks after parsing)"},
		{"unknown expectation", get("Expect: magic"), false, true, "RFC 9110 section 10.1.1 (net/http's server answers 417, too)"},
		{"version 2.0", line("GET / HTTP/2.0"), false, true, "RFC 9110 section 2.5 (net/http's server answers 505, too)"},
		{"body and upgrade", post("hello", "Connection: upgrade", "Upgrade: x", "Content-Length: 5"), false, true,
			"RFC 9110 section 7.8 allows it; refused, since what follows could be the body or the new protocol"},

		{"higher minor version", line("GET / HTTP/1.2"), true, true, "RFC 9110 section 2.5"},
		{"escape without digits", line("GET /%zz HTTP/1.1"), true, false,
			"RFC 3986 section 2.1: the router refuses it with a reason of its own"},
	} {
		_, _, _, err := parseRequest(c.raw, testLimits())
		if ours := err == nil; ours != c.ours {
			t.Errorf("%s: accepted by us: %v, want %v (%s)", c.name, ours, c.ours, c.clause)
		}
		_, err = http.ReadRequest(bufio.NewReader(strings.NewReader(c.raw)))
		if theirs := err == nil; theirs != c.theirs {
			t.Errorf("%s: accepted by net/http: %v, want %v (%s): %v", c.name, theirs, c.theirs, c.clause, err)
		}
	}
}
