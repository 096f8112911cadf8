package h1

import (
	"strings"
	"testing"

	"headgate/gateway/exchange"
)

func TestChunkLines(t *testing.T) {
	for _, c := range []struct {
		line string
		size int64
		err  *Error
	}{
		{"0", 0, nil},
		{"5", 5, nil},
		{"a", 10, nil},
		{"fF", 255, nil},
		{"005", 5, nil},
		{"000", 0, nil},
		{"FFFFFFFFFFFFFFF", 1<<60 - 1, nil},
		{"5;a", 5, nil},
		{"5;a=b", 5, nil},
		{"5;a=b;c", 5, nil},
		{`5;a="b"`, 5, nil},
		{`5;a=""`, 5, nil},
		{`5;a="b;c=d"`, 5, nil},
		{`5;a="\"\\";b`, 5, nil},
		{"5;a=\"\tb\xff\"", 5, nil},
		{"5 ;a", 5, nil}, // bad white space, which a recipient must take (RFC 9112 section 7.1.1)
		{"5\t; a =\t\"b\" ; c = d", 5, nil},

		{"", 0, errChunkSize},
		{" 5", 0, errChunkSize},
		{"\t5", 0, errChunkSize},
		{"+5", 0, errChunkSize},
		{"-5", 0, errChunkSize},
		{"-0", 0, errChunkSize},
		{"0x5", 0, errChunkSize},
		{"0X5", 0, errChunkSize},
		{"x5", 0, errChunkSize},
		{"$5", 0, errChunkSize},
		{"5g", 0, errChunkSize},
		{"5h", 0, errChunkSize},
		{"5_0", 0, errChunkSize},
		{"5.0", 0, errChunkSize},
		{"5,5", 0, errChunkSize},
		{"5\v", 0, errChunkSize},
		{"5\f", 0, errChunkSize},
		{"5\x00", 0, errChunkSize},
		{"\x005", 0, errChunkSize},
		{"5\xa0", 0, errChunkSize},
		{"G", 0, errChunkSize},
		{"@", 0, errChunkSize},
		{"`", 0, errChunkSize},
		{"five", 0, errChunkSize},
		{";a", 0, errChunkSize},
		{"1000000000000000", 0, errChunkSize},  // 2^60
		{"FFFFFFFFFFFFFFFF", 0, errChunkSize},  // -1 in 64 bits
		{"10000000000000005", 0, errChunkSize}, // 5 in 64 bits
		{"100000005\r", 0, errChunkSize},
		{strings.Repeat("0", 16) + "5", 0, errChunkSize},

		{"5 ", 0, errChunkExt},
		{"5\t", 0, errChunkExt},
		{"5 5", 0, errChunkExt},
		{"5 a", 0, errChunkExt},
		{"5;", 0, errChunkExt},
		{"5; ", 0, errChunkExt},
		{"5;;a", 0, errChunkExt},
		{"5;a;", 0, errChunkExt},
		{"5;a ", 0, errChunkExt},
		{"5;=b", 0, errChunkExt},
		{"5;a=", 0, errChunkExt},
		{"5;a= ", 0, errChunkExt},
		{"5;a=b=c", 0, errChunkExt},
		{"5;a b", 0, errChunkExt},
		{"5;a=b c", 0, errChunkExt},
		{"5;a,b", 0, errChunkExt},
		{"5;a\x00", 0, errChunkExt},
		{"5;a\v=b", 0, errChunkExt},
		{"5;a=b\x7f", 0, errChunkExt},
		{"5;\xc3\xa9", 0, errChunkExt},
		{`5;a="b`, 0, errChunkExt},
		{`5;a="b\`, 0, errChunkExt},
		{`5;a="b\"`, 0, errChunkExt},
		{`5;a="b"c`, 0, errChunkExt},
		{`5;a=b"c"`, 0, errChunkExt},
		{`5;"a"=b`, 0, errChunkExt},
		{"5;a=\"b\x00\"", 0, errChunkExt},
		{"5;a=\"b\\\x01\"", 0, errChunkExt},
		{"5;a=\"\x7f\"", 0, errChunkExt},
		{"5;a=\"\n\"", 0, errChunkExt},
	} {
		size, err := chunkLine([]byte(c.line))
		if size != c.size || (err == nil) != (c.err == nil) || err != nil && err != error(c.err) {
			t.Errorf("%q: %d, %v; want %d, %v", c.line, size, err, c.size, c.err)
		}
	}
}

func TestTrailersKeepOnlyWhatMayStandThere(t *testing.T) {
	for _, c := range []struct {
		name, section, kept string
		err                 *Error
	}{
		{"none", "\r\n", "", nil},
		{"one", "A: b\r\n\r\n", "A=b\n", nil},
		{"several, in order", "B: 1\r\nA: 2\r\nb: 3\r\n\r\n", "B=1\nA=2\nb=3\n", nil},
		{"digest", "Repr-Digest: sha-256=:abc=:\r\n\r\n", "Repr-Digest=sha-256=:abc=:\n", nil},
		{"status of gRPC", "grpc-status: 0\r\ngrpc-message: ok\r\n\r\n", "grpc-status=0\ngrpc-message=ok\n", nil},
		{"framing", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n", "A=b\n", nil},
		{"routing", "Host: evil\r\nA: b\r\n\r\n", "A=b\n", nil},
		{"connection", "Connection: close\r\nKeep-Alive: x\r\nTE: y\r\nUpgrade: z\r\nA: b\r\n\r\n", "A=b\n", nil},
		{"authentication", "Authorization: x\r\ncookie: y\r\nSet-Cookie: z\r\nWWW-Authenticate: w\r\n\r\n", "", nil},
		{"conditions", "If-Match: x\r\nIf-None-Match: y\r\nRange: z\r\nA: b\r\n\r\n", "A=b\n", nil},
		{"how to read the body", "Content-Type: x\r\nContent-Encoding: y\r\nContent-Range: z\r\nTrailer: w\r\n\r\n", "", nil},
		{"control of caches", "Cache-Control: x\r\nVary: y\r\nAge: 1\r\n\r\n", "", nil},
		{"forwarded addresses", "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=x\r\nVia: y\r\n\r\n", "", nil},

		{"LF ends a line", "A: b\nC: d\r\n\r\n", "", errBareLF},
		{"LF ends the section", "A: b\r\n\n", "", errBareLF},
		{"CR in a value", "A: b\rc\r\n\r\n", "", errBareCR},
		{"CR begins the section", "\rA: b\r\n\r\n", "", errBareCR},
		{"folded", "A: b\r\n c\r\n\r\n", "", errFold},
		{"folded first", " A: b\r\n\r\n", "", errFold},
		{"space before the colon", "A : b\r\n\r\n", "", errNameSpace},
		{"no colon", "A\r\n\r\n", "", errName},
		{"empty name", ": b\r\n\r\n", "", errName},
		{"NUL", "A: b\x00\r\n\r\n", "", errValue},
		{"a request instead", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", errNameSpace},
		{"too many", strings.Repeat("A: b\r\n", 101) + "\r\n", "", bad(errTooManyFields.Reason)},
		{"an expectation", "Expect: magic\r\n\r\n", "", bad(errExpectation.Reason)},
		{"a coding that is not known", "Transfer-Encoding: x\r\n\r\n", "", errCoding},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h exchange.Header
			end, err := trailerEnd([]byte(c.section), 0)
			if err == nil {
				err = parseTrailer([]byte(c.section[:end]), testLimits(), &h)
			}
			if c.err != nil {
				if e, ok := err.(*Error); !ok || *e != *c.err {
					t.Errorf("%q: %v, want %v", c.section, err, c.err)
				}
				return
			}
			if err != nil || end != len(c.section) || listed(&h) != c.kept {
				t.Errorf("%q: end %d, error %v, fields %q; want %d and %q", c.section, end, err, listed(&h), len(c.section), c.kept)
			}
		})
	}
}
