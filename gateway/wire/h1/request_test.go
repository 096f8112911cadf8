package h1

import (
	"strings"
	"testing"
	"time"

	"headgate/gateway/exchange"
)

// lines joins header lines, each with its CRLF.
func lines(l []string) string {
	if len(l) == 0 {
		return ""
	}
	return strings.Join(l, "\r\n") + "\r\n"
}

// get is a request with the given header lines behind a valid Host.
func get(fields ...string) string { return "GET / HTTP/1.1\r\nHost: a\r\n" + lines(fields) + "\r\n" }

// post is a POST with the given header lines, and a body or what pretends to be one.
func post(body string, fields ...string) string {
	return "POST / HTTP/1.1\r\nHost: a\r\n" + lines(fields) + "\r\n" + body
}

// line is a request with the given request line.
func line(s string) string { return s + "\r\nHost: a\r\n\r\n" }

// host is a request whose header section begins with the given lines.
func host(fields ...string) string { return "GET / HTTP/1.1\r\n" + lines(fields) + "\r\n" }

// A refusal is a message, what it tries, and why it is refused.
type refusal struct {
	name, raw string
	want      *Error
}

// Nothing here can be read in two ways, because it is not read at all.
func TestRequestsThatAreRefused(t *testing.T) {
	for _, group := range []struct {
		clause string
		cases  []refusal
	}{
		{"RFC 9112 section 2.2: lines end with CRLF", refusedLineEnds},
		{"RFC 9112 section 3: the request line", refusedRequestLines},
		{"RFC 9112 section 3.2: the request target", refusedTargets},
		{"RFC 9112 section 3.2: Host", refusedHosts},
		{"RFC 9112 section 5: field lines", refusedFields},
		{"RFC 9112 section 6.1: Transfer-Encoding", refusedCodings},
		{"RFC 9112 section 6.2: Content-Length", refusedLengths},
		{"RFC 9112 section 6.3: framing", refusedFramings},
	} {
		for _, c := range group.cases {
			t.Run(c.name, func(t *testing.T) {
				_, _, _, err := parseRequest(c.raw, testLimits())
				if err != error(c.want) {
					t.Errorf("%s\n%q\n got %v\nwant %v", group.clause, c.raw, err, c.want)
				}
			})
		}
	}
}

var refusedLineEnds = []refusal{
	{"LF ends everything", "GET / HTTP/1.1\nHost: a\n\n", errBareLF},
	{"LF ends the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", errBareLF},
	{"LF ends a field", get("A: b\nC: d"), errBareLF},
	{"LF ends the Host field", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", errBareLF},
	{"LF before the end of the head", "GET / HTTP/1.1\r\nHost: a\r\n\n\r\n\r\n", errBareLF},
	{"LF ends the head", "GET / HTTP/1.1\r\nHost: a\r\n\n", errBareLF},
	{"LF first", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errBareLF},
	{"LF hides a coding", post("", "X: y\nTransfer-Encoding: chunked"), errBareLF},
	{"LF behind a name", get("A\n: b"), errBareLF},
	{"LF behind the colon", get("A:\nb"), errBareLF},
	{"CR ends the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", errBareCR},
	{"CR ends a field", get("A: b\rC: d"), errBareCR},
	{"CR hides a coding", post("", "X: y\rTransfer-Encoding: chunked"), errBareCR},
	{"CR before CRLF", get("A: b\r"), errBareCR},
	{"CR begins a line", "GET / HTTP/1.1\r\nHost: a\r\n\rA: b\r\n\r\n", errBareCR},
	{"CR behind the colon", get("A:\rb"), errBareCR},
	{"CR before the colon", get("A\r: b"), errName},
	{"CR CR LF behind the request line", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", errBareCR},
	{"two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errEmptyLine},
}

var refusedRequestLines = []refusal{
	{"no version", line("GET /"), errRequestLine},
	{"no version but its space", line("GET / "), errVersion},
	{"method alone", line("GET"), errRequestLine},
	{"method and space", line("GET "), errRequestLine},
	{"no target", line("GET HTTP/1.1"), errRequestLine},
	{"two spaces before the target", line("GET  / HTTP/1.1"), errVersion},
	{"two spaces before the version", line("GET /  HTTP/1.1"), errVersion},
	{"space first", line(" GET / HTTP/1.1"), errMethod},
	{"tab first", line("\tGET / HTTP/1.1"), errMethod},
	{"space last", line("GET / HTTP/1.1 "), errVersion},
	{"tab last", line("GET / HTTP/1.1\t"), errVersion},
	{"junk last", line("GET / HTTP/1.1x"), errVersion},
	{"fourth word", line("GET / HTTP/1.1 x"), errVersion},
	{"tabs between", line("GET\t/\tHTTP/1.1"), errMethod},
	{"tab before the target", line("GET\t/ HTTP/1.1"), errMethod},
	{"tab before the version", line("GET /\tHTTP/1.1"), errRequestLine},
	{"vertical tab before the version", line("GET /\vHTTP/1.1"), errRequestLine},
	{"form feed before the target", line("GET\f/ HTTP/1.1"), errMethod},
	{"space in the target", line("GET /a b HTTP/1.1"), errVersion},
	{"method with a slash", line("GE/T / HTTP/1.1"), errMethod},
	{"method with a colon", line("GET: / HTTP/1.1"), errMethod},
	{"method with a NUL", line("GE\x00T / HTTP/1.1"), errMethod},
	{"method with a DEL", line("GE\x7fT / HTTP/1.1"), errMethod},
	{"method with parentheses", line("G(E)T / HTTP/1.1"), errMethod},
	{"method with a quote", line("\"GET\" / HTTP/1.1"), errMethod},
	{"method with brackets", line("[GET] / HTTP/1.1"), errMethod},
	{"method beyond ASCII", line("G\xc3\x89T / HTTP/1.1"), errMethod},
	{"byte order mark", line("\xef\xbb\xbfGET / HTTP/1.1"), errMethod},
	{"lower-case name", line("GET / http/1.1"), errVersion},
	{"mixed-case name", line("GET / Http/1.1"), errVersion},
	{"another name", line("GET / HTTPS/1.1"), errVersion},
	{"another name of the same length", line("GET / ICAP/1.1"), errVersion},
	{"no digits", line("GET / HTTP/"), errVersion},
	{"one digit", line("GET / HTTP/1"), errVersion},
	{"no minor version", line("GET / HTTP/1."), errVersion},
	{"no major version", line("GET / HTTP/.1"), errVersion},
	{"minor version 10", line("GET / HTTP/1.10"), errVersion},
	{"minor version 01", line("GET / HTTP/1.01"), errVersion},
	{"major version 01", line("GET / HTTP/01.1"), errVersion},
	{"major version 11", line("GET / HTTP/11.1"), errVersion},
	{"comma in the version", line("GET / HTTP/1,1"), errVersion},
	{"space in the version", line("GET / HTTP/ 1.1"), errVersion},
	{"sign in the version", line("GET / HTTP/+1.1"), errVersion},
	{"letter in the version", line("GET / HTTP/1.x"), errVersion},
	{"version 0.9", line("GET / HTTP/0.9"), errMajorVersion},
	{"version 2.0", line("GET / HTTP/2.0"), errMajorVersion},
	{"version 3.0", line("GET / HTTP/3.0"), errMajorVersion},
	{"version 9.9", line("GET / HTTP/9.9"), errMajorVersion},
	{"preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", errMajorVersion},
	{"a response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", errMethod},
	{"words before the method", line("Extra lineGET / HTTP/1.1"), errVersion},
}

var refusedTargets = []refusal{
	{"relative path", line("GET a HTTP/1.1"), errTarget},
	{"relative path with a slash", line("GET a/b HTTP/1.1"), errTarget},
	{"dot", line("GET . HTTP/1.1"), errTarget},
	{"query alone", line("GET ?a HTTP/1.1"), errTarget},
	{"fragment", line("GET /a#b HTTP/1.1"), errTarget},
	{"fragment behind the query", line("GET /a?b#c HTTP/1.1"), errTarget},
	{"NUL", line("GET /a\x00b HTTP/1.1"), errTarget},
	{"NUL in the query", line("GET /?a\x00b HTTP/1.1"), errTarget},
	{"tab", line("GET /a\tb HTTP/1.1"), errTarget},
	{"vertical tab", line("GET /a\vb HTTP/1.1"), errTarget},
	{"DEL", line("GET /a\x7fb HTTP/1.1"), errTarget},
	{"LF", line("GET /a\nb HTTP/1.1"), errTarget},
	{"beyond ASCII", line("GET /caf\xc3\xa9 HTTP/1.1"), errTarget},
	{"beyond ASCII in the query", line("GET /?caf\xc3\xa9 HTTP/1.1"), errTarget},
	{"less-than", line("GET /a<b HTTP/1.1"), errTarget},
	{"quote", line("GET /a\"b HTTP/1.1"), errTarget},
	{"quote in the query", line("GET /?a\"b HTTP/1.1"), errTarget},
	{"backslash", line("GET /a\\b HTTP/1.1"), errTarget},
	{"caret", line("GET /a^b HTTP/1.1"), errTarget},
	{"braces", line("GET /{a} HTTP/1.1"), errTarget},
	{"brackets", line("GET /[a] HTTP/1.1"), errTarget},
	{"asterisk with GET", line("GET * HTTP/1.1"), errTargetForm},
	{"asterisk with POST", line("POST * HTTP/1.1"), errTargetForm},
	{"asterisk with lower-case options", line("options * HTTP/1.1"), errTargetForm},
	{"asterisk and a query", line("OPTIONS *?a HTTP/1.1"), errTarget},
	{"two asterisks", line("OPTIONS ** HTTP/1.1"), errTarget},
	{"authority with GET", line("GET a:80 HTTP/1.1"), errTarget},
	{"authority with OPTIONS", line("OPTIONS a:80 HTTP/1.1"), errTarget},
	{"CONNECT with a path", line("CONNECT / HTTP/1.1"), errTarget},
	{"CONNECT with an asterisk", line("CONNECT * HTTP/1.1"), errTarget},
	{"CONNECT with the absolute form", line("CONNECT http://a/ HTTP/1.1"), errTarget},
	{"CONNECT without a port", line("CONNECT a HTTP/1.1"), errTarget},
	{"CONNECT with an empty port", line("CONNECT a: HTTP/1.1"), errTarget},
	{"CONNECT with port 0", line("CONNECT a:0 HTTP/1.1"), errTarget},
	{"CONNECT with a port too large", line("CONNECT a:65536 HTTP/1.1"), errTarget},
	{"CONNECT with a port of letters", line("CONNECT a:http HTTP/1.1"), errTarget},
	{"CONNECT with user information", line("CONNECT u@a:80 HTTP/1.1"), errTarget},
	{"CONNECT with a path behind", line("CONNECT a:80/ HTTP/1.1"), errTarget},
	{"CONNECT to an address without a port", line("CONNECT [::1] HTTP/1.1"), errTarget},
	{"CONNECT without a host", line("CONNECT :80 HTTP/1.1"), errTarget},
	{"CONNECT and another Host", line("CONNECT b:80 HTTP/1.1"), errHostDisagrees},
	{"absolute without a host", line("GET http:/// HTTP/1.1"), errTarget},
	{"absolute with a port alone", line("GET http://:80/ HTTP/1.1"), errTarget},
	{"absolute with user information", line("GET http://u:p@a/ HTTP/1.1"), errTarget},
	{"absolute with another scheme", line("GET ftp://a/ HTTP/1.1"), errTargetScheme},
	{"absolute with a scheme of a WebSocket", line("GET ws://a/ HTTP/1.1"), errTargetScheme},
	{"absolute with an empty scheme", line("GET ://a/ HTTP/1.1"), errTargetScheme},
	{"absolute with one slash", line("GET http:/a HTTP/1.1"), errTarget},
	{"absolute with a bad port", line("GET http://a:x/ HTTP/1.1"), errTarget},
	{"absolute with a fragment", line("GET http://a/#b HTTP/1.1"), errTarget},
	{"absolute with a fragment for a path", line("GET http://a#b HTTP/1.1"), errTarget},
	{"absolute with a backslash", line("GET http://a\\b/ HTTP/1.1"), errTarget},
	{"absolute and another Host", line("GET http://b/ HTTP/1.1"), errHostDisagrees},
	{"absolute with another port than Host", line("GET http://a:8080/ HTTP/1.1"), errHostDisagrees},
	{"absolute without Host", "GET http://a/ HTTP/1.1\r\n\r\n", errHostMissing},
	{"absolute with an empty Host", "GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", errHost},
	{"the other scheme's default port", line("GET https://a:80/ HTTP/1.1"), errHostDisagrees},
}

var refusedHosts = []refusal{
	{"none", host("A: b"), errHostMissing},
	{"none at all", "GET / HTTP/1.1\r\n\r\n", errHostMissing},
	{"none in HTTP/1.2", "GET / HTTP/1.2\r\n\r\n", errHostMissing},
	{"two", host("Host: a", "Host: b"), errHostRepeated},
	{"two equal ones", host("Host: a", "Host: a"), errHostRepeated},
	{"two spellings", host("Host: a", "hOST: b"), errHostRepeated},
	{"two in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", errHostRepeated},
	{"empty", host("Host:"), errHost},
	{"blank", host("Host: \t "), errHost},
	{"invalid in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", errHost},
	{"user information", host("Host: u@a"), errHost},
	{"path", host("Host: a/b"), errHost},
	{"scheme", host("Host: http://a"), errHost},
	{"query", host("Host: a?b"), errHost},
	{"fragment", host("Host: a#b"), errHost},
	{"space inside", host("Host: a b"), errHost},
	{"tab inside", host("Host: a\tb"), errHost},
	{"list", host("Host: a, b"), errHost},
	{"comma", host("Host: a,b"), errHost},
	{"semicolon", host("Host: a;b"), errHost},
	{"quote", host(`Host: "a"`), errHost},
	{"less-than", host("Host: <a>"), errHost},
	{"backslash", host(`Host: a\b`), errHost},
	{"percent-encoding", host("Host: a%2eb"), errHost},
	{"beyond ASCII", host("Host: caf\xc3\xa9"), errHost},
	{"port of letters", host("Host: a:http"), errHost},
	{"port with a sign", host("Host: a:+80"), errHost},
	{"negative port", host("Host: a:-80"), errHost},
	{"port too large", host("Host: a:65536"), errHost},
	{"port of six digits", host("Host: a:000080"), errHost},
	{"space before the port", host("Host: a :80"), errHost},
	{"space behind the colon", host("Host: a: 80"), errHost},
	{"two ports", host("Host: a:80:80"), errHost},
	{"port alone", host("Host: :80"), errHost},
	{"address not closed", host("Host: [::1"), errHost},
	{"address not opened", host("Host: ::1]"), errHost},
	{"address without brackets", host("Host: ::1"), errHost},
	{"address of version 4 in brackets", host("Host: [127.0.0.1]"), errHost},
	{"nothing in brackets", host("Host: []"), errHost},
	{"name in brackets", host("Host: [a]"), errHost},
	{"address with a zone", host("Host: [fe80::1%25eth0]"), errHost},
	{"address of a future version", host("Host: [v1.a]"), errHost},
	{"address with junk behind", host("Host: [::1]a"), errHost},
	{"address with a bad port", host("Host: [::1]:x"), errHost},
	{"address with two ports", host("Host: [::1]:80:80"), errHost},
	{"address too long", host("Host: [1:2:3:4:5:6:7:8:9]"), errHost},
	{"folded before it", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", errFold},
	{"space before the colon", host("Host : a"), errNameSpace},
}

var refusedFields = []refusal{
	{"space before the first", "GET / HTTP/1.1\r\n A: b\r\nHost: a\r\n\r\n", errFold},
	{"tab before the first", "GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", errFold},
	{"blank line before the first", "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", errFold},
	{"folded by a space", get("A: b", " c"), errFold},
	{"folded by a tab", get("A: b", "\tc"), errFold},
	{"folded Host", host("Host: a", " b"), errFold},
	{"folded into nothing", get("A: b", " "), errFold},
	{"folded coding", post("", "Transfer-Encoding:", " chunked"), errCoding},
	{"folded length", post("", "Content-Length:", " 5"), errLength},
	{"folded last", get("A:", " b"), errFold},
	{"space before the colon", get("A : b"), errNameSpace},
	{"tab before the colon", get("A\t: b"), errNameSpace},
	{"vertical tab before the colon", get("A\v: b"), errName},
	{"NUL before the colon", get("A\x00: b"), errName},
	{"space inside a name", get("A B: c"), errNameSpace},
	{"empty name", get(": b"), errName},
	{"no colon", get("A"), errName},
	{"no colon in the last line", get("A: b", "C"), errName},
	{"no colon but a value", get("A b"), errNameSpace},
	{"parentheses", get("A(B): c"), errName},
	{"brackets", get("X-Invalid[]: c"), errName},
	{"slash", get("A/B: c"), errName},
	{"comma", get("A,B: c"), errName},
	{"semicolon", get("A;B: c"), errName},
	{"equals sign", get("A=B: c"), errName},
	{"at sign", get("A@B: c"), errName},
	{"quote", get("\"A\": b"), errName},
	{"backslash", get("A\\B: c"), errName},
	{"braces", get("{A}: b"), errName},
	{"control character in a name", get("A\x01B: c"), errName},
	{"DEL in a name", get("A\x7f: b"), errName},
	{"beyond ASCII in a name", get("\xc3\x89: b"), errName},
	{"NUL in a value", get("A: b\x00c"), errValue},
	{"NUL first in a value", get("A:\x00b"), errValue},
	{"NUL last in a value", get("A: b\x00"), errValue},
	{"BEL in a value", get("A: b\a"), errValue},
	{"backspace in a value", get("A: b\bc"), errValue},
	{"vertical tab in a value", get("A: b\vc"), errValue},
	{"form feed in a value", get("A: b\fc"), errValue},
	{"escape in a value", get("A: \x1b[31m"), errValue},
	{"DEL in a value", get("A: b\x7fc"), errValue},
	{"control character far into a value", get("A: " + strings.Repeat("b", 100) + "\x01" + strings.Repeat("c", 20)), errValue},
	{"unknown expectation", get("Expect: magic"), errExpectation},
	{"two expectations", get("Expect: 100-continue, magic"), errExpectation},
	{"empty expectation", get("Expect:"), errExpectation},
	{"request in a field's place", "GET / HTTP/1.1\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errNameSpace},
}

var refusedCodings = []refusal{
	{"xchunked", post("", "Transfer-Encoding: xchunked"), errCoding},
	{"chunkedx", post("", "Transfer-Encoding: chunkedx"), errCoding},
	{"chunked, identity", post("", "Transfer-Encoding: chunked, identity"), errCoding},
	{"identity", post("", "Transfer-Encoding: identity"), errCoding},
	{"identity, chunked", post("", "Transfer-Encoding: identity, chunked"), errCoding},
	{"gzip", post("", "Transfer-Encoding: gzip"), errCoding},
	{"gzip, chunked", post("", "Transfer-Encoding: gzip, chunked"), errCoding},
	{"chunked, gzip", post("", "Transfer-Encoding: chunked, gzip"), errCoding},
	{"chunked twice in a list", post("", "Transfer-Encoding: chunked, chunked"), errCoding},
	{"chunked twice", post("", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), errCodingRepeated},
	{"two spellings", post("", "Transfer-Encoding: chunked", "transfer-encoding: chunked"), errCodingRepeated},
	{"chunked, then another", post("", "Transfer-Encoding: chunked", "Transfer-Encoding: x"), errCoding},
	{"another, then chunked", post("", "Transfer-Encoding: x", "Transfer-Encoding: chunked"), errCoding},
	{"chunked, then an empty one", post("", "Transfer-Encoding: chunked", "Transfer-Encoding:"), errCoding},
	{"empty", post("", "Transfer-Encoding:"), errCoding},
	{"comma behind", post("", "Transfer-Encoding: chunked,"), errCoding},
	{"comma before", post("", "Transfer-Encoding: ,chunked"), errCoding},
	{"parameter", post("", "Transfer-Encoding: chunked;q=1"), errCoding},
	{"semicolon", post("", "Transfer-Encoding: chunked;"), errCoding},
	{"quotes", post("", `Transfer-Encoding: "chunked"`), errCoding},
	{"apostrophe", post("", "Transfer-Encoding: 'chunked'"), errCoding},
	{"word behind", post("", "Transfer-Encoding: chunked foo"), errCoding},
	{"space inside", post("", "Transfer-Encoding: chun ked"), errCoding},
	{"colon twice", post("", "Transfer-Encoding:: chunked"), errCoding},
	{"no-break space before", post("", "Transfer-Encoding: \xa0chunked"), errCoding},
	{"byte beyond ASCII behind", post("", "Transfer-Encoding: chunked\xff"), errCoding},
	{"look-alike of k", post("", "Transfer-Encoding: chun\xe2\x84\xaaed"), errCoding},
	{"vertical tab before", post("", "Transfer-Encoding: \vchunked"), errValue},
	{"form feed before", post("", "Transfer-Encoding:\fchunked"), errValue},
	{"NUL before", post("", "Transfer-Encoding: \x00chunked"), errValue},
	{"NUL behind", post("", "Transfer-Encoding: chunked\x00"), errValue},
	{"CR before", post("", "Transfer-Encoding: \rchunked"), errBareCR},
	{"LF before", post("", "Transfer-Encoding:\nchunked"), errBareLF},
	{"CR behind", post("", "Transfer-Encoding: chunked\r"), errBareCR},
	{"space before the colon", post("", "Transfer-Encoding : chunked"), errNameSpace},
	{"tab before the colon", post("", "Transfer-Encoding\t: chunked"), errNameSpace},
	{"space before the name", post("", " Transfer-Encoding: chunked"), errFold},
	{"NUL in the name", post("", "Transfer-\x00Encoding: chunked"), errName},
	{"DEL behind the name", post("", "Transfer-Encoding\x7f: chunked"), errName},
	{"CR before the name", post("", "X: y", "\rTransfer-Encoding: chunked"), errBareCR},
	{"folded", post("", "Transfer-Encoding: chunked", " , identity"), errFold},
	{"in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", errCodingOld},
}

var refusedLengths = []refusal{
	{"plus sign", post("hello", "Content-Length: +5"), errLength},
	{"minus sign", post("hello", "Content-Length: -5"), errLength},
	{"minus zero", post("", "Content-Length: -0"), errLength},
	{"hexadecimal", post("hello", "Content-Length: 0x5"), errLength},
	{"letter", post("hello", "Content-Length: 5a"), errLength},
	{"word", post("hello", "Content-Length: five"), errLength},
	{"empty", post("", "Content-Length:"), errLength},
	{"blank", post("", "Content-Length: \t"), errLength},
	{"fraction", post("hello", "Content-Length: 5.0"), errLength},
	{"exponent", post("hello", "Content-Length: 5e0"), errLength},
	{"underscore", post("hello", "Content-Length: 1_0"), errLength},
	{"space inside", post("hello", "Content-Length: 5 5"), errLength},
	{"semicolon", post("hello", "Content-Length: 5;"), errLength},
	{"quotes", post("hello", `Content-Length: "5"`), errLength},
	{"digits beyond ASCII", post("hello", "Content-Length: \xef\xbc\x95"), errLength},
	{"list of equal ones", post("hello", "Content-Length: 5, 5"), errLength},
	{"list of different ones", post("hello", "Content-Length: 5, 6"), errLength},
	{"comma behind", post("hello", "Content-Length: 5,"), errLength},
	{"comma before", post("hello", "Content-Length: ,5"), errLength},
	{"two different ones", post("hello", "Content-Length: 5", "Content-Length: 6"), errLengthRepeated},
	{"two equal ones", post("hello", "Content-Length: 5", "Content-Length: 5"), errLengthRepeated},
	{"two spellings", post("hello", "Content-Length: 5", "content-length: 5"), errLengthRepeated},
	{"one of two is wrong", post("hello", "Content-Length: 5", "Content-Length: x"), errLength},
	{"2^63", post("", "Content-Length: 9223372036854775808"), errLength},
	{"2^64", post("", "Content-Length: 18446744073709551616"), errLength},
	{"2^64 and 5", post("hello", "Content-Length: 18446744073709551621"), errLength},
	{"19 digits", post("", "Content-Length: 1000000000000000000"), errLength},
	{"a thousand digits", post("", "Content-Length: "+strings.Repeat("9", 1000)), errLength},
	{"a sign behind zeros", post("", "Content-Length: 0000000000000000000000+5"), errLength},
	{"vertical tab before", post("hello", "Content-Length: \v5"), errValue},
	{"NUL behind", post("hello", "Content-Length: 5\x00"), errValue},
	{"space before the colon", post("hello", "Content-Length : 5"), errNameSpace},
	{"folded", post("hello", "Content-Length: 5", " 0"), errFold},
}

var refusedFramings = []refusal{
	{"CL.TE", post("0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"), errBothFramings},
	{"TE.CL", post("0\r\n\r\n", "Transfer-Encoding: chunked", "Content-Length: 5"), errBothFramings},
	{"a length of 0 and a coding", post("0\r\n\r\n", "Content-Length: 0", "Transfer-Encoding: chunked"), errBothFramings},
	{"both with GET", get("Content-Length: 5", "Transfer-Encoding: chunked"), errBothFramings},
	{"both, named by Connection", post("0\r\n\r\n", "Connection: Content-Length", "Content-Length: 5",
		"Transfer-Encoding: chunked"), errBothFramings},
	{"both in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", errBothFramings},
	{"body and upgrade", post("hello", "Connection: upgrade", "Upgrade: x", "Content-Length: 5"), errUpgradeBody},
	{"chunked body and upgrade", post("0\r\n\r\n", "Connection: upgrade", "Upgrade: x", "Transfer-Encoding: chunked"), errUpgradeBody},
	{"body and h2c", post("hello", "Connection: upgrade, http2-settings", "Upgrade: h2c", "HTTP2-Settings: ",
		"Content-Length: 5"), errUpgradeBody},
}

// What each limit allows, and the first that it does not.
func TestRequestLimitsAtTheirEdges(t *testing.T) {
	l := &Limits{Head: 600, Fields: 10, Target: 200}
	fields := func(n int) string {
		return get(strings.Split(strings.TrimSuffix(strings.Repeat("A: b\n", n), "\n"), "\n")...)
	}
	padded := func(n int) string {
		empty := len(get("A: "))
		return get("A: " + strings.Repeat("b", n-empty))
	}
	for _, c := range []struct {
		name, raw string
		want      *Error
	}{
		{"target at the limit", line("GET /" + strings.Repeat("a", 199) + " HTTP/1.1"), nil},
		{"target above", line("GET /" + strings.Repeat("a", 200) + " HTTP/1.1"), errTargetTooLong},
		{"query above", line("GET /?" + strings.Repeat("a", 199) + " HTTP/1.1"), errTargetTooLong},
		{"target above, without version", line("GET /" + strings.Repeat("a", 200)), errTargetTooLong},
		{"target above, of bytes that it must not have", line("GET /" + strings.Repeat("\x01", 200) + " HTTP/1.1"), errTargetTooLong},
		{"as many fields as allowed", fields(9), nil},
		{"one more", fields(10), errTooManyFields},
		{"head at the limit", padded(600), nil},
		{"head above", padded(601), errHeadTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want error
			if c.want != nil {
				want = c.want
			}
			if _, _, _, err := parseRequest(c.raw, l); err != want {
				t.Errorf("got %v, want %v", err, want)
			}
		})
	}
	for _, c := range []struct {
		err    *Error
		status int
	}{
		{errTargetTooLong, 414}, {errTooManyFields, 431}, {errHeadTooLarge, 431}, {errMajorVersion, 505},
		{errExpectation, 417}, {errBodyTooLarge, 413}, {errSlowHead, 408}, {errSlowBody, 408}, {errBothFramings, 400},
	} {
		if c.err.Code.Status != c.status {
			t.Errorf("%v answers %d, want %d", c.err, c.err.Code.Status, c.status)
		}
	}
}

type req = exchange.Request

// want is what a request that is accepted means. Fields that are not given are zero.
type want struct {
	req
	head   Head
	fields string
}

func TestRequestsThatAreAccepted(t *testing.T) {
	for _, c := range acceptedRequests {
		t.Run(c.name, func(t *testing.T) {
			r, head, _, err := parseRequest(c.raw, testLimits())
			if err != nil {
				t.Fatalf("%q: %v", c.raw, err)
			}
			w := c.want
			w.Proto, w.Method, w.Path, w.Host = or(w.Proto, "HTTP/1.1"), or(w.Method, "GET"), or(w.Path, "/"), or(w.Host, "a")
			w.Path, w.Host = strings.TrimPrefix(w.Path, none), strings.TrimPrefix(w.Host, none)
			if w.head.Length == 0 {
				w.head.Length = -1
			} else if w.head.Length == zeroLength {
				w.head.Length = 0
			}
			if r.Method != w.Method || r.Path != w.Path || r.Query != w.Query || r.HasQuery != w.HasQuery ||
				r.Host != w.Host || r.Proto != w.Proto || r.Expect != w.head.Expect {
				t.Errorf("%q\n got %+v\nwant %+v", c.raw, *r, w.req)
			}
			head.hosts, head.lengths, head.codings, head.connection, head.keepAlive = 0, 0, 0, "", false
			if head != w.head {
				t.Errorf("%q\n got %+v\nwant %+v", c.raw, head, w.head)
			}
			if got := listed(&r.Header); got != w.fields {
				t.Errorf("%q\n got %q\nwant %q", c.raw, got, w.fields)
			}
		})
	}
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// zeroLength stands for a Content-Length of 0 in acceptedRequests, where a Length of 0 stands for none.
const zeroLength = -2

var acceptedRequests = []struct {
	name, raw string
	want      want
}{
	{"shortest", host("Host:a"), want{}},
	{"names of any case", host("hOSt: a"), want{}},
	{"tab behind the colon", host("Host:\ta"), want{}},
	{"blanks around a value", host("Host: \t a \t "), want{}},
	{"one name twice, in order", get("A: 1", "B: 2", "a: 3"), want{fields: "A=1\nB=2\na=3\n"}},
	{"empty value", get("A:", "B: "), want{fields: "A=\nB=\n"}},
	{"blanks inside a value", get("A: b  c\td"), want{fields: "A=b  c\td\n"}},
	{"obs-text in a value", get("A: caf\xc3\xa9\xff\x80"), want{fields: "A=caf\xc3\xa9\xff\x80\n"}},
	{"every character of a token", get("!#$%&'*+-.^_`|~09azAZ: b"), want{fields: "!#$%&'*+-.^_`|~09azAZ=b\n"}},
	{"every visible character in a value", get(`A: !"#$%&'()*+,-./:;<=>?@[\]^_{|}~` + "`"),
		want{fields: `A=!"#$%&'()*+,-./:;<=>?@[\]^_{|}~` + "`\n"}},
	{"colons in a value", get("A: b:c::d"), want{fields: "A=b:c::d\n"}},
	{"methods have case", line("get / HTTP/1.1"), want{req: req{Method: "get"}}},
	{"methods may be new", line("M-SEARCH!x / HTTP/1.1"), want{req: req{Method: "M-SEARCH!x"}}},
	{"higher minor version is read as 1.1", line("GET / HTTP/1.2"), want{}},
	{"highest minor version", line("GET / HTTP/1.9"), want{}},

	{"path and query", line("GET /a/b?c=d HTTP/1.1"), want{req: req{Path: "/a/b", Query: "c=d", HasQuery: true}}},
	{"empty query", line("GET /a? HTTP/1.1"), want{req: req{Path: "/a", HasQuery: true}}},
	{"question marks in the query", line("GET /?? HTTP/1.1"), want{req: req{Query: "?", HasQuery: true}}},
	{"slashes in the query", line("GET /?a/b?c HTTP/1.1"), want{req: req{Query: "a/b?c", HasQuery: true}}},
	{"what browsers leave in a query", line("GET /?{a}|b^`[c]\\ HTTP/1.1"),
		want{req: req{Query: "{a}|b^`[c]\\", HasQuery: true}}},
	{"every character of a path", line("GET /-._~!$&'()*+,;=:@%41|/aZ9 HTTP/1.1"),
		want{req: req{Path: "/-._~!$&'()*+,;=:@%41|/aZ9"}}},
	{"escapes stay", line("GET /%2e%2F%00 HTTP/1.1"), want{req: req{Path: "/%2e%2F%00"}}},
	{"dot segments stay for the router", line("GET /a/../b//c HTTP/1.1"), want{req: req{Path: "/a/../b//c"}}},
	{"two slashes are a path, not a host", line("GET //b/c HTTP/1.1"), want{req: req{Path: "//b/c"}}},
	{"scheme in a path", line("GET /http://b/ HTTP/1.1"), want{req: req{Path: "/http://b/"}}},
	{"asterisk", line("OPTIONS * HTTP/1.1"), want{req: req{Method: "OPTIONS", Path: "*"}}},
	{"OPTIONS of a path", line("OPTIONS /a HTTP/1.1"), want{req: req{Method: "OPTIONS", Path: "/a"}}},

	{"absolute", line("GET http://a/b?c HTTP/1.1"), want{req: req{Path: "/b", Query: "c", HasQuery: true}, head: Head{Scheme: "http"}}},
	{"absolute without a path", line("GET http://a HTTP/1.1"), want{head: Head{Scheme: "http"}}},
	{"absolute with a query alone", line("GET http://a?b HTTP/1.1"),
		want{req: req{Query: "b", HasQuery: true}, head: Head{Scheme: "http"}}},
	{"absolute for OPTIONS without a path is the asterisk", line("OPTIONS http://a HTTP/1.1"),
		want{req: req{Method: "OPTIONS", Path: "*"}, head: Head{Scheme: "http"}}},
	{"absolute in capitals", line("GET HTTP://A/ HTTP/1.1"), want{req: req{Host: "A"}, head: Head{Scheme: "http"}}},
	{"absolute with https", line("GET https://a/ HTTP/1.1"), want{head: Head{Scheme: "https"}}},
	{"absolute with the default port", line("GET http://a:80/ HTTP/1.1"), want{req: req{Host: "a:80"}, head: Head{Scheme: "http"}}},
	{"absolute with https and its default port", line("GET https://a:443/ HTTP/1.1"),
		want{req: req{Host: "a:443"}, head: Head{Scheme: "https"}}},
	{"absolute with an empty port", line("GET http://a:/ HTTP/1.1"), want{req: req{Host: "a:"}, head: Head{Scheme: "http"}}},
	{"absolute with an address", "GET http://[::1]:8080/ HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
		want{req: req{Host: "[::1]:8080"}, head: Head{Scheme: "http"}}},
	{"absolute in HTTP/1.0 without Host", "GET http://b/ HTTP/1.0\r\n\r\n",
		want{req: req{Host: "b", Proto: "HTTP/1.0"}, head: Head{Scheme: "http", Old: true, Close: true}}},
	{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
		want{req: req{Method: "CONNECT", Host: "a:443", Path: none}, head: Head{Close: true}}},
	{"CONNECT and Host without the port", line("CONNECT a:443 HTTP/1.1"),
		want{req: req{Method: "CONNECT", Host: "a:443", Path: none}, head: Head{Close: true}}},

	{"host with a port", host("Host: a.example:8080"), want{req: req{Host: "a.example:8080"}}},
	{"host with an empty port", host("Host: a:"), want{req: req{Host: "a:"}}},
	{"host with the highest port", host("Host: a:65535"), want{req: req{Host: "a:65535"}}},
	{"host that is an address", host("Host: 127.0.0.1:80"), want{req: req{Host: "127.0.0.1:80"}}},
	{"host that is an address of version 6", host("Host: [2001:db8::1]"), want{req: req{Host: "[2001:db8::1]"}}},
	{"host with an underscore", host("Host: my_service"), want{req: req{Host: "my_service"}}},
	{"host with a final dot", host("Host: a."), want{req: req{Host: "a."}}},

	{"length", post("hello", "Content-Length: 5"), want{req: req{Method: "POST"}, head: Head{Length: 5}}},
	{"length with zeros in front", post("hello", "Content-Length: 0005"), want{req: req{Method: "POST"}, head: Head{Length: 5}}},
	{"length with many zeros in front", post("hello", "Content-Length: 0000000000000000000000000005"),
		want{req: req{Method: "POST"}, head: Head{Length: 5}}},
	{"length of 0", post("", "Content-Length: 0"), want{req: req{Method: "POST"}, head: Head{Length: zeroLength}}},
	{"length of many zeros", post("", "Content-Length: 00000000000000000000000"),
		want{req: req{Method: "POST"}, head: Head{Length: zeroLength}}},
	{"length between blanks", post("hello", "Content-Length:\t5 "), want{req: req{Method: "POST"}, head: Head{Length: 5}}},
	{"largest length", post("", "Content-Length: 999999999999999999"), want{req: req{Method: "POST"}, head: Head{Length: 999999999999999999}}},
	{"length with GET", get("Content-Length: 5"), want{head: Head{Length: 5}}},
	{"chunked", post("0\r\n\r\n", "Transfer-Encoding: chunked"), want{req: req{Method: "POST"}, head: Head{Chunked: true}}},
	{"chunked in any case", post("0\r\n\r\n", "transfer-ENCODING:\tCHUnked "), want{req: req{Method: "POST"}, head: Head{Chunked: true}}},
	{"chunked in HTTP/1.2", "POST / HTTP/1.2\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		want{req: req{Method: "POST"}, head: Head{Chunked: true}}},

	{"names that only look like framing", post("", "Content_Length: 5", "Transfer_Encoding: chunked",
		"X-Transfer-Encoding: chunked", "Content-Lengt: 1"),
		want{req: req{Method: "POST"}, fields: "Content_Length=5\nTransfer_Encoding=chunked\nX-Transfer-Encoding=chunked\nContent-Lengt=1\n"}},

	{"expectation", post("", "Expect: 100-Continue", "Content-Length: 5"),
		want{req: req{Method: "POST"}, head: Head{Length: 5, Expect: true}}},
	{"expectation without a body has no effect", get("Expect: 100-continue"), want{}},
	{"expectation in HTTP/1.0 has no effect", "POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
		want{req: req{Method: "POST", Proto: "HTTP/1.0"}, head: Head{Length: 5, Old: true, Close: true}}},

	{"close", get("Connection: close"), want{head: Head{Close: true}}},
	{"close in capitals", get("Connection: CLOSE"), want{head: Head{Close: true}}},
	{"close in a list", get("Connection: a , close,b"), want{head: Head{Close: true}}},
	{"close and keep-alive", get("Connection: keep-alive, close"), want{head: Head{Close: true}}},
	{"close in the second field", get("Connection: keep-alive", "Connection: close"), want{head: Head{Close: true}}},
	{"what only sounds like close", get("Connection: closed, not-close"), want{}},
	{"HTTP/1.0 closes", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", want{req: req{Proto: "HTTP/1.0"}, head: Head{Old: true, Close: true}}},
	{"HTTP/1.0 needs no Host", "GET / HTTP/1.0\r\n\r\n", want{req: req{Proto: "HTTP/1.0", Host: none}, head: Head{Old: true, Close: true}}},
	{"HTTP/1.0 can keep alive", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
		want{req: req{Proto: "HTTP/1.0"}, head: Head{Old: true}}},
	{"HTTP/1.0 can keep alive in a list", "GET / HTTP/1.0\r\nHost: a\r\nConnection: x, Keep-Alive\r\n\r\n",
		want{req: req{Proto: "HTTP/1.0"}, head: Head{Old: true}}},

	{"fields of one hop stay here", get("TE: trailers", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Proxy-Authorization: x",
		"Proxy-Authenticate: y", "A: b"), want{head: Head{KeepIdle: 5 * time.Second}, fields: "A=b\n"}},
	{"fields that Connection names stay here", get("Connection: X-Hop, x-HOP2", "X-Hop: 1", "X-Hop2: 2", "x-hop: 3", "A: b"),
		want{fields: "A=b\n"}},
	{"fields that Connection names later stay here", get("X-Hop: 1", "A: b", "Connection:\tx-hop ,,", "X-Hop: 2"), want{fields: "A=b\n"}},
	{"Connection cannot take the framing away", post("hello", "Connection: Content-Length, Host", "Content-Length: 5"),
		want{req: req{Method: "POST"}, head: Head{Length: 5}}},
	{"upgrade without a body", get("Connection: Upgrade", "Upgrade: websocket", "A: b"),
		want{head: Head{Upgrade: true, Protocols: "websocket", asks: true}, fields: "A=b\n"}},
	{"upgrade with a length of 0", get("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 0"),
		want{head: Head{Upgrade: true, Protocols: "websocket", asks: true, Length: zeroLength}}},
}

// none stands for no path or no host in acceptedRequests, where empty ones stand for the usual.
const none = "none"

// What stands behind a head is not part of it: the next request, or whatever an attacker wishes that to be.
func TestHeadEndsAtItsEmptyLine(t *testing.T) {
	for _, c := range []struct{ name, raw, rest string }{
		{"pipelined", get() + get("A: b"), get("A: b")},
		{"CL.0", post("GET /poison HTTP/1.1\r\n\r\n", "Content-Length: 0"), "GET /poison HTTP/1.1\r\n\r\n"},
		{"body of a GET that announces none", get("A: b") + "G", "G"},
		{"body", post("hello", "Content-Length: 5"), "hello"},
	} {
		if _, _, rest, err := parseRequest(c.raw, testLimits()); err != nil || rest != c.rest {
			t.Errorf("%s: rest %q, error %v; want %q", c.name, rest, err, c.rest)
		}
	}
}

// A head that arrives byte by byte is read, or refused, as one that arrives whole.
func TestHeadIsFoundHoweverItIsSplit(t *testing.T) {
	for _, raw := range []string{get("A: b"), typicalRequest, "GET / HTTP/1.1\nHost: a\n\n", get("A: b\nC: d"), "\n", "a\r\n\nb"} {
		_, _, rest, wholeErr := parseRequest(raw, testLimits())
		end, err := 0, error(nil)
		for n := 1; n <= len(raw) && end == 0 && err == nil; n++ {
			end, err = findHead([]byte(raw[:n]), n-1)
		}
		if err != wholeErr || err == nil && end != len(raw)-len(rest) {
			t.Errorf("%q: split: %d, %v; whole: %d, %v", raw, end, err, len(raw)-len(rest), wholeErr)
		}
	}
}
