package policytest

import (
	"encoding/base64"
	"strings"
	"testing"

	"headgate/gateway/exchange"
)

// known returns a world with one consumer, who can show everything that there is to show.
func known(t testing.TB) *World {
	w := New(t)
	w.Consumers.Add(&exchange.Consumer{Name: "ada", Groups: []string{"staff", "partners"}, Labels: map[string]string{"tier": "gold"}},
		Key("key"), Password("ada", "secret"), Subject("ada"), Certificate("subject", "CN=ada"))
	return w
}

// token is a verified token's claims.
type token map[string]any

// Claim implements exchange.Claims.
func (t token) Claim(path string) any { return t[path] }

// samples make the requests that every policy has to cope with: with and without every kind of credential, from browsers,
// with bodies, and with what is broken.
func samples() []func() *exchange.Exchange {
	request := func(line string, header ...string) func() *exchange.Exchange {
		return func() *exchange.Exchange { return Request(line, header...) }
	}
	basic := base64.StdEncoding.EncodeToString([]byte("ada:secret"))
	return []func() *exchange.Exchange{
		request("GET /orders"),
		request("GET /orders?page=2&api_key=key", "Accept-Encoding: gzip, br, zstd"),
		request("GET /orders", "X-Api-Key: key"),
		request("GET /orders", "X-Api-Key: guess", "X-Api-Key: again"),
		request("GET /orders", "Authorization: Basic "+basic),
		request("GET /orders", "Authorization: Basic !"),
		request("GET /orders", "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln"),
		request("GET /orders", "Authorization: Bearer", "Cookie: session=1; key=key"),
		request("GET /orders", "Origin: https://app.example.com"),
		request("OPTIONS /orders", "Origin: https://app.example.com", "Access-Control-Request-Method: PUT"),
		request("HEAD /orders", "Range: bytes=0-9", "If-None-Match: \"1\""),
		request("DELETE /orders/%2e%2e/7", "X-Forwarded-For: 10.0.0.1, junk"),
		func() *exchange.Exchange {
			return WithCertificate(Request("GET /orders"), &exchange.Certificate{Subject: "CN=ada"})
		},
		func() *exchange.Exchange {
			return WithCertificate(Request("GET /orders"), &exchange.Certificate{Subject: "CN=eve", DNS: []string{"eve.example"}})
		},
		func() *exchange.Exchange { return WithCertificate(Request("GET /orders"), nil) },
		func() *exchange.Exchange {
			return WithBody(Request("POST /orders"), "application/json", `{"items": [`+strings.Repeat("1, ", 2000)+`1]}`)
		},
		func() *exchange.Exchange {
			x := Request("PUT /orders/7", "Transfer-Encoding: chunked")
			x.Request.Body = exchange.Body{Reader: strings.NewReader(strings.Repeat("x", 100_000)), Length: -1}
			return x
		},
		func() *exchange.Exchange {
			x := Request("GET /orders")
			x.Consumer = &exchange.Consumer{Name: "ada", Groups: []string{"staff", "partners"}}
			x.Claims = token{"sub": "ada", "scope": "read write", "aud": []any{"shop"}, "level": 3.0}
			x.Params = []exchange.Param{{Name: "id", Value: "a/b?c\r\nd"}}
			return x
		},
	}
}

// echo answers with a text worth compressing, and tells what it was asked.
func echo(x *exchange.Exchange, body []byte) {
	text := strings.Repeat("one line of an answer that is like the others\n", 100) + string(body)
	Reply(200, "text/plain; charset=utf-8", text, `ETag: "1"`, "Cache-Control: max-age=60", "Server: origin")(x, body)
}
