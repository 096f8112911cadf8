package h1

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testLimits are small enough for their edges to be tried.
func testLimits() *Limits {
	return &Limits{Head: 8 << 10, Fields: 100, Target: 4 << 10, BodyTime: 5 * time.Second}
}

// errIncomplete says that a head has no end yet: the driver would wait for more.
var errIncomplete = errors.New("incomplete")

// parseRequest does with raw what the driver does with the first bytes of a request.
func parseRequest(raw string, l *Limits) (r *exchange.Request, head Head, rest string, err error) {
	r = new(exchange.Request)
	end, err := findHead([]byte(raw), 0)
	switch {
	case err != nil:
		return r, head, raw, err
	case end == 0:
		return r, head, raw, errIncomplete
	case end > l.Head:
		return r, head, raw, errHeadTooLarge
	}
	head, err = ParseRequest([]byte(raw[:end]), l, r)
	return r, head, raw[end:], err
}

// parseResponse does with raw what the driver does with the first bytes of an answer to method.
func parseResponse(raw, method string, l *Limits) (r *exchange.Reply, head Head, rest string, err error) {
	r = new(exchange.Reply)
	end, err := findHead([]byte(raw), 0)
	switch {
	case err != nil:
		return r, head, raw, err
	case end == 0:
		return r, head, raw, errIncomplete
	case end > l.Head:
		return r, head, raw, errHeadTooLarge
	}
	head, err = ParseResponse([]byte(raw[:end]), l, method, r)
	return r, head, raw[end:], err
}

// listed returns the fields of a header as "Name=value" pairs, one a line.
func listed(h *exchange.Header) string {
	var b strings.Builder
	for name, value := range h.All() {
		b.WriteString(name + "=" + value + "\n")
	}
	return b.String()
}
