package conformance

import (
	"bufio"
	"io"
	"net/http"
	"testing"
)

// What any HTTP/1.1 server must get right, as uNetworking's h1spec sees it (33 behaviours): it waits for the rest of a
// request, answers what is valid, and refuses what is not. TestH1spec runs the suite itself.
func TestServerBasics(t *testing.T) {
	address := startGateway(t)
	t.Run("waits", func(t *testing.T) {
		const whole = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
		for _, part := range []string{
			"G", "GET ", "GET /hello", "GET /hello ", "GET /hello HTTP", "GET /hello HTTP/1.1", "GET /hello HTTP/1.1\r",
			"GET /hello HTTP/1.1\r\n", "GET /hello HTTP/1.1\r\nHos", "GET /hello HTTP/1.1\r\nHost:", "GET /hello HTTP/1.1\r\nHost: ",
			"GET /hello HTTP/1.1\r\nHost: localhost", "GET /hello HTTP/1.1\r\nHost: localhost\r",
			"GET /hello HTTP/1.1\r\nHost: localhost\r\n", "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r",
		} {
			t.Run(part, func(t *testing.T) {
				t.Parallel()
				c := dial(t, address)
				if _, err := io.WriteString(c, part); err != nil {
					t.Fatal(err)
				}
				stays(t, c)
				if _, err := io.WriteString(c, whole[len(part):]); err != nil {
					t.Fatal(err)
				}
				if status := answer(t, bufio.NewReader(c)); status != http.StatusOK {
					t.Errorf("status %d", status)
				}
			})
		}
	})
	for _, c := range []struct {
		name, request string
		status        int
	}{
		{"valid", "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n", 200},
		{"names in any case, tab behind the colon, empty value", "GET / HTTP/1.1\r\nhOsT:\tshop.example\r\nX-None:\r\n\r\n", 200},
		{"blank value", "GET / HTTP/1.1\r\nHost: shop.example\r\nX-None: \r\n\r\n", 200},
		{"expectation without a body", "GET / HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\n\r\n", 200},
		{"body", "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello", 200},
		{"no version", "GET / \r\n\r\n", 400},
		{"character that no name has", "GET / HTTP/1.1\r\nHost: shop.example\r\nX-Odd[]: a\r\n\r\n", 400},
		{"no Host", "GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", 400},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: shop.example\r\nHost: other.example\r\n\r\n", 400},
		{"length far below zero", "GET / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: -987654321987654321987\r\n\r\n", 400},
		{"length below zero", "GET / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: -99\r\n\r\n", 400},
		{"length that is no number", "GET / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: five\r\n\r\n", 400},
		{"control character in a value", "GET / HTTP/1.1\r\nHost: shop.example\r\nX-Bell: ding\a\r\n\r\n", 400},
		{"version that does not exist", "GET / HTTP/8.8\r\nHost: shop.example\r\n\r\n", 505},
		{"words before the request", "Good dayGET / HTTP/1.1\r\nHost: shop.example\r\n\r\n", 400},
		{"CR in place of a line end", "GET / HTTP/1.1\r\nHost: shop.example\r\n\rX-A: b\r\n\r\n", 400},
		{"length and coding", "GET / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400},
		{"chunked body", "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, address)
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(conn)
			if status := answer(t, r); status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			if c.status == http.StatusOK {
				return
			}
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("behind a refusal the connection ends; came %q, %v", rest, err)
			}
		})
	}
}

// answer reads a final answer and its body and returns its status.
func answer(t *testing.T, r *bufio.Reader) int {
	t.Helper()
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode >= 200 {
			return resp.StatusCode
		}
	}
}
