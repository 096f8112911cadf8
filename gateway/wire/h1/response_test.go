package h1

import (
	"strings"
	"testing"
	"time"
)

// ok is a response of status 200 with the given header lines.
func ok(fields ...string) string { return "HTTP/1.1 200 OK\r\n" + lines(fields) + "\r\n" }

// status is a response with the given status line.
func status(s string) string { return s + "\r\nContent-Length: 0\r\n\r\n" }

// What an upstream sends is judged like what a client sends: a reply that two programs could read differently is nobody's.
func TestResponsesThatAreRefused(t *testing.T) {
	for _, c := range refusedResponses {
		t.Run(c.name, func(t *testing.T) {
			if _, _, _, err := parseResponse(c.raw, "GET", testLimits()); err != error(c.want) {
				t.Errorf("%q\n got %v\nwant %v", c.raw, err, c.want)
			}
		})
	}
}

func TestResponsesThatAreAccepted(t *testing.T) {
	for _, c := range acceptedResponses {
		t.Run(c.name, func(t *testing.T) {
			r, head, _, err := parseResponse(c.raw, "GET", testLimits())
			if err != nil {
				t.Fatalf("%q: %v", c.raw, err)
			}
			head.hosts, head.lengths, head.codings, head.connection, head.keepAlive = 0, 0, 0, "", false
			if r.Status != c.status || head != c.head {
				t.Errorf("%q\n got %d, %+v\nwant %d, %+v", c.raw, r.Status, head, c.status, c.head)
			}
			if got := listed(&r.Header); got != c.fields {
				t.Errorf("%q: fields %q, want %q", c.raw, got, c.fields)
			}
		})
	}
}

// Whether a body follows a reply's head does not depend on what the head says (RFC 9112 section 6.3).
func TestRepliesWithoutABody(t *testing.T) {
	for _, c := range []struct {
		method string
		status int
		body   bool
	}{
		{"GET", 200, true}, {"POST", 201, true}, {"GET", 205, true}, {"GET", 404, true}, {"OPTIONS", 200, true},
		{"HEAD", 200, false}, {"HEAD", 404, false}, {"GET", 100, false}, {"GET", 103, false}, {"GET", 204, false}, {"GET", 304, false},
		{"head", 200, true},
	} {
		if got := hasBody(c.method, c.status); got != c.body {
			t.Errorf("%s %d: body %v, want %v", c.method, c.status, got, c.body)
		}
	}
}

var refusedResponses = []refusal{
	{"another protocol", status("ICY 200 OK"), errStatusLine},
	{"lower-case name", status("http/1.1 200 OK"), errStatusLine},
	{"no version", status("HTTP 200 OK"), errStatusLine},
	{"no status", status("HTTP/1.1"), errStatusLine},
	{"no status but its space", status("HTTP/1.1 "), errStatusLine},
	{"version 2.0", status("HTTP/2.0 200 OK"), errStatusLine},
	{"version 0.9", status("HTTP/0.9 200 OK"), errStatusLine},
	{"version without minor", status("HTTP/2 200 OK"), errStatusLine},
	{"minor version 10", status("HTTP/1.10 200 OK"), errStatusLine},
	{"letter in the version", status("HTTP/1.x 200 OK"), errStatusLine},
	{"space first", status(" HTTP/1.1 200 OK"), errStatusLine},
	{"empty line first", "\r\n" + status("HTTP/1.1 200 OK"), errStatusLine},
	{"two spaces before the status", status("HTTP/1.1  200 OK"), errStatusLine},
	{"tab before the status", status("HTTP/1.1\t200 OK"), errStatusLine},
	{"two digits", status("HTTP/1.1 20 OK"), errStatusLine},
	{"four digits", status("HTTP/1.1 2000 OK"), errStatusLine},
	{"sign", status("HTTP/1.1 +20 OK"), errStatusLine},
	{"minus sign", status("HTTP/1.1 -20 OK"), errStatusLine},
	{"letters", status("HTTP/1.1 abc OK"), errStatusLine},
	{"hexadecimal", status("HTTP/1.1 0x2 OK"), errStatusLine},
	{"fraction", status("HTTP/1.1 200.0 OK"), errStatusLine},
	{"status 000", status("HTTP/1.1 000 OK"), errStatusLine},
	{"status 099", status("HTTP/1.1 099 OK"), errStatusLine},
	{"status 600", status("HTTP/1.1 600 OK"), errStatusLine},
	{"status 999", status("HTTP/1.1 999 OK"), errStatusLine},
	{"no space before the reason", status("HTTP/1.1 200OK"), errStatusLine},
	{"tab before the reason", status("HTTP/1.1 200\tOK"), errStatusLine},
	{"NUL in the reason", status("HTTP/1.1 200 O\x00K"), errStatusLine},
	{"control character in the reason", status("HTTP/1.1 200 O\x1bK"), errStatusLine},
	{"DEL in the reason", status("HTTP/1.1 200 O\x7fK"), errStatusLine},
	{"LF in the reason", status("HTTP/1.1 200 O\nK"), errStatusLine},
	{"CR in the reason", status("HTTP/1.1 200 O\rK"), errBareCR},
	{"LF ends the status line", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", errStatusLine},
	{"LF ends everything", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", errBareLF},
	{"a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", errStatusLine},
	{"a page", "<html>\r\n<body>\r\n\r\n", errStatusLine},

	{"LF ends a field", ok("A: b\nC: d"), errBareLF},
	{"CR in a value", ok("A: b\rSet-Cookie: c"), errBareCR},
	{"CR begins a line", ok("A: b", "\rC: d"), errBareCR},
	{"folded", ok("A: b", " c"), errFold},
	{"folded by a tab", ok("A: b", "\tc"), errFold},
	{"space before the first", ok(" A: b"), errFold},
	{"space before the colon", ok("A : b"), errNameSpace},
	{"empty name", ok(": b"), errName},
	{"no colon", ok("A"), errName},
	{"brackets in a name", ok("A[]: b"), errName},
	{"NUL in a name", ok("A\x00: b"), errName},
	{"NUL in a value", ok("A: b\x00"), errValue},
	{"control character in a value", ok("A: \x1b[2J"), errValue},

	{"both framings", ok("Content-Length: 5", "Transfer-Encoding: chunked"), errBothFramings},
	{"both framings, the other way round", ok("Transfer-Encoding: chunked", "Content-Length: 5"), errBothFramings},
	{"length repeated", ok("Content-Length: 5", "Content-Length: 5"), errLengthRepeated},
	{"lengths that differ", ok("Content-Length: 5", "Content-Length: 6"), errLengthRepeated},
	{"length in a list", ok("Content-Length: 5, 5"), errLength},
	{"negative length", ok("Content-Length: -1"), errLength},
	{"signed length", ok("Content-Length: +5"), errLength},
	{"empty length", ok("Content-Length:"), errLength},
	{"length too large", ok("Content-Length: 18446744073709551621"), errLength},
	{"unknown coding", ok("Transfer-Encoding: gzip"), errCoding},
	{"coding before chunked", ok("Transfer-Encoding: gzip, chunked"), errCoding},
	{"coding behind chunked", ok("Transfer-Encoding: chunked, identity"), errCoding},
	{"xchunked", ok("Transfer-Encoding: xchunked"), errCoding},
	{"vertical tab before chunked", ok("Transfer-Encoding: \vchunked"), errValue},
	{"chunked twice", ok("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), errCodingRepeated},
	{"space before the colon of the coding", ok("Transfer-Encoding : chunked"), errNameSpace},
	{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", errCodingOld},

	{"103 with a length", "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n", errBodiless},
	{"100 with chunked", "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", errBodiless},
	{"204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", errBodiless},
	{"204 with chunked", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", errBodiless},
	{"204 with both", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", errBothFramings},
	{"too many fields", ok(strings.Split(strings.Repeat("A: b,", 100)+"A: b", ",")...), errTooManyFields},
	{"too long", ok("A: " + strings.Repeat("b", 9<<10)), errHeadTooLarge},
}

var acceptedResponses = []struct {
	name, raw string
	status    int
	head      Head
	fields    string
}{
	{"length", ok("Content-Length: 5"), 200, Head{Length: 5}, ""},
	{"length of 0", ok("Content-Length: 0"), 200, Head{}, ""},
	{"length with zeros in front", ok("Content-Length: 005"), 200, Head{Length: 5}, ""},
	{"chunked", ok("Transfer-Encoding: Chunked"), 200, Head{Length: -1, Chunked: true}, ""},
	{"until the end of the connection", ok("A: b"), 200, Head{Length: -1}, "A=b\n"},
	{"no fields", ok(), 200, Head{Length: -1}, ""},
	{"no reason", "HTTP/1.1 404 \r\n\r\n", 404, Head{Length: -1}, ""},
	{"no reason and no space", "HTTP/1.1 404\r\n\r\n", 404, Head{Length: -1}, ""},
	{"reason of any length, with tabs and obs-text", "HTTP/1.1 200 All\tis w\xc3\xa9ll  \r\n\r\n", 200, Head{Length: -1}, ""},
	{"lowest status", "HTTP/1.1 100 Continue\r\n\r\n", 100, Head{}, ""},
	{"highest status", "HTTP/1.1 599 x\r\n\r\n", 599, Head{Length: -1}, ""},
	{"higher minor version", "HTTP/1.2 200 OK\r\n\r\n", 200, Head{Length: -1}, ""},
	{"HTTP/1.0 closes", "HTTP/1.0 200 OK\r\n\r\n", 200, Head{Length: -1, Old: true, Close: true}, ""},
	{"HTTP/1.0 keeps alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", 200, Head{Length: -1, Old: true}, ""},
	{"close", ok("Connection: Close"), 200, Head{Length: -1, Close: true}, ""},
	{"103 with fields", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 103, Head{}, "Link=</a>\n"},
	{"204", "HTTP/1.1 204 No Content\r\n\r\n", 204, Head{}, ""},
	{"204 with a length of 0", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, Head{}, ""},
	{"304 keeps the length of what it stands for", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, Head{Length: 5}, ""},
	{"101", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 101,
		Head{Upgrade: true, Protocols: "x", asks: true}, ""},
	{"fields of one hop stay here", ok("Connection: X-Hop, close", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Authenticate: x", "TE: y",
		"A: b"), 200, Head{Length: -1, Close: true, KeepIdle: 5 * time.Second}, "A=b\n"},
	{"Keep-Alive after another parameter", ok("Keep-Alive: max=100, Timeout=60"), 200, Head{Length: -1, KeepIdle: time.Minute}, ""},
	{"Keep-Alive of more than a day", ok("keep-alive: timeout=99999999999999999999"), 200, Head{Length: -1, KeepIdle: 24 * time.Hour}, ""},
	{"Keep-Alive without a number", ok("Keep-Alive: timeout="), 200, Head{Length: -1}, ""},
	{"Keep-Alive of what only looks like it", ok("Keep-Alive: mytimeout=5, timeout:5"), 200, Head{Length: -1}, ""},
	{"what is special in requests only goes on", ok("Host: a", "Expect: b"), 200, Head{Length: -1}, "Host=a\nExpect=b\n"},
}

// responses are all heads of the tables.
func responses() (all []string) {
	for _, c := range refusedResponses {
		all = append(all, c.raw)
	}
	for _, c := range acceptedResponses {
		all = append(all, c.raw)
	}
	return append(all, typicalResponse)
}
