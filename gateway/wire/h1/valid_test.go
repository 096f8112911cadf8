package h1

import (
	"testing"

	"pgregory.net/rapid"

	"headgate/gateway/exchange"
)

// A path of another version of HTTP is read as one in a request line is.
func TestAPathMeansTheSameInEveryVersion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		method := rapid.SampledFrom([]string{"GET", "OPTIONS"}).Draw(t, "method")
		target := rapid.StringMatching(`(/|\*|)[a-z%?#\[/|"\x00-\x20é]{0,8}`).Draw(t, "target")
		ours := exchange.Request{Method: method}
		err := ParsePath(target, &ours)
		line, _, _, lineErr := parseRequest(method+" "+target+" HTTP/1.1\r\nHost: a\r\n\r\n", testLimits())
		if (err == nil) != (lineErr == nil) {
			t.Fatalf("%q: %v, and in a request line %v", target, err, lineErr)
		}
		if err == nil && (ours.Path != line.Path || ours.Query != line.Query || ours.HasQuery != line.HasQuery) {
			t.Fatalf("%q: %q and %q, in a request line %q and %q", target, ours.Path, ours.Query, line.Path, line.Query)
		}
	})
}
