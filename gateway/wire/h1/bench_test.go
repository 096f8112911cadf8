package h1

import (
	"testing"

	"headgate/gateway/exchange"
)

// typicalRequest is a head of 515 bytes with eight fields, as browsers and clients of APIs send them.
const typicalRequest = "GET /api/v1/customers/48151623/orders?status=open&limit=50 HTTP/1.1\r\n" +
	"Host: api.shop.example\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n" +
	"Accept: application/json, text/plain;q=0.9, */*;q=0.8\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n" +
	"Cookie: session=3f2a9c6e17b84d05; theme=dark; consent=20260101\r\n" +
	"Referer: https://shop.example/customers/48151623\r\n" +
	"X-Request-Id: 0190a5f4-7c1e-7b3a-9d52-1f6f0e3b8a77\r\n" +
	"\r\n"

const typicalResponse = "HTTP/1.1 200 OK\r\n" +
	"Server: shop\r\n" +
	"Date: Fri, 20 Nov 2026 10:00:00 GMT\r\n" +
	"Content-Type: application/json\r\n" +
	"Content-Length: 200\r\n" +
	"Cache-Control: private, max-age=0\r\n" +
	"Vary: Accept-Encoding\r\n" +
	"\r\n"

func BenchmarkParseRequest(b *testing.B) {
	raw, l, r := []byte(typicalRequest), testLimits(), new(exchange.Request)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRequest(raw, l, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseResponse(b *testing.B) {
	raw, l, r := []byte(typicalResponse), testLimits(), new(exchange.Reply)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseResponse(raw, l, "GET", r); err != nil {
			b.Fatal(err)
		}
	}
}

// A head costs one allocation: the string of which all names and values are parts.
func TestHeadsCostOneAllocation(t *testing.T) {
	l, request, reply := testLimits(), new(exchange.Request), new(exchange.Reply)
	for _, c := range []struct {
		name  string
		parse func() error
	}{
		{"request", func() error { _, err := ParseRequest([]byte(typicalRequest), l, request); return err }},
		{"response", func() error { _, err := ParseResponse([]byte(typicalResponse), l, "GET", reply); return err }},
	} {
		var err error
		const copies = 1 // of the raw head into the byte slice
		if n := testing.AllocsPerRun(100, func() { err = c.parse() }); n > 1+copies || err != nil {
			t.Errorf("%s: %v allocations, error %v", c.name, n-copies, err)
		}
	}
}
