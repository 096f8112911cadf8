package h1

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"testing"

	"headgate/gateway/exchange"
)

// fuzzLimits are too large to matter: the tables try the limits' edges.
func fuzzLimits() *Limits {
	l := testLimits()
	l.Head, l.Target, l.Fields = 1<<20, 1<<20, 10_000
	return l
}

// requests are all heads of the tables.
func requests() (all []string) {
	for _, table := range [][]refusal{
		refusedLineEnds, refusedRequestLines, refusedTargets, refusedHosts, refusedFields, refusedCodings, refusedLengths, refusedFramings,
	} {
		for _, c := range table {
			all = append(all, c.raw)
		}
	}
	for _, c := range acceptedRequests {
		all = append(all, c.raw)
	}
	for _, c := range chunkedBodies {
		all = append(all, post(c.raw, "Transfer-Encoding: chunked"))
	}
	return append(all, typicalRequest)
}

// FuzzRequest: whatever comes, the parser answers, and what it accepts is clean, means the same to net/http if that accepts
// it, too, and is forwarded as something that means the same again.
func FuzzRequest(f *testing.F) {
	for _, raw := range requests() {
		f.Add(raw)
	}
	ws := newWires(f)
	f.Fuzz(func(t *testing.T, raw string) {
		r, head, rest, err := parseRequest(raw, fuzzLimits())
		if err != nil {
			knownError(t, err)
			return
		}
		cleanText(t, r.Method, r.Path, r.Query, r.Host, r.Proto)
		cleanHeader(t, &r.Header)
		if head.Chunked && head.Length >= 0 {
			t.Errorf("%q: two framings", raw)
		}
		ws.sameAsNetHTTP(t, raw, r, &head, rest)
		if r.Method == "CONNECT" {
			return // not forwarded
		}
		forwarded := appendRequestHead(nil, withBody(r, &head), cmp.Or(r.Host, "target"))
		again, headAgain, _, err := parseRequest(string(forwarded), fuzzLimits())
		if err != nil {
			t.Fatalf("%q\nis forwarded as %q\nwhich is refused: %v", raw, forwarded, err)
		}
		if again.Method != r.Method || again.Path != r.Path || again.Query != r.Query || again.HasQuery != r.HasQuery ||
			again.Host != cmp.Or(r.Host, "target") || listed(&again.Header) != listed(&r.Header) {
			t.Errorf("%q\n  means %+v\nforwarded it means %+v", raw, r, again)
		}
		if headAgain.Chunked != head.Chunked || max(headAgain.Length, 0) != max(head.Length, 0) {
			t.Errorf("%q\n is framed by %+v\nforwarded it is framed by %+v", raw, head, headAgain)
		}
	})
}

// withBody gives a parsed request the body that its head announces, for appendRequestHead.
func withBody(r *exchange.Request, head *Head) *exchange.Request {
	switch {
	case head.Chunked:
		r.Body = exchange.Body{Reader: strings.NewReader(""), Length: -1}
	case head.Length > 0:
		r.Body = exchange.Body{Reader: strings.NewReader(""), Length: head.Length}
	}
	return r
}

// FuzzResponse: as FuzzRequest, for what upstreams send.
func FuzzResponse(f *testing.F) {
	for _, raw := range responses() {
		f.Add(raw, "GET")
		f.Add(raw, "HEAD")
	}
	f.Fuzz(func(t *testing.T, raw, method string) {
		r, head, rest, err := parseResponse(raw, method, fuzzLimits())
		if err != nil {
			knownError(t, err)
			return
		}
		cleanHeader(t, &r.Header)
		if r.Status < 100 || r.Status > 599 {
			t.Errorf("%q: status %d", raw, r.Status)
		}
		replySameAsNetHTTP(t, raw, method, r, &head, rest)
		b := append([]byte(nil), "HTTP/1.1 "+strconv.Itoa(r.Status)+" \r\n"...)
		b = append(r.Header.AppendTo(b), "\r\n"...)
		again, _, _, err := parseResponse(string(b), method, fuzzLimits())
		if err != nil || again.Status != r.Status || listed(&again.Header) != listed(&r.Header) {
			t.Errorf("%q\nis forwarded as %q\nwhich means %+v, %v", raw, b, again, err)
		}
	})
}

// FuzzChunked: a chunked body means the same however its bytes are split, and nothing behind it is taken.
func FuzzChunked(f *testing.F) {
	for _, c := range chunkedBodies {
		f.Add(c.raw, []byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
		f.Add(c.raw, []byte{2, 3, 5, 7})
	}
	ws := newWires(f)
	f.Fuzz(func(t *testing.T, raw string, steps []byte) {
		const enough = 4 << 10 // keeps a case fast
		if len(raw) > enough {
			return
		}
		var cuts []int
		at := 0
		for _, s := range steps {
			at += int(s)
			cuts = append(cuts, at)
		}
		h := how{kind: byChunks, request: true}
		whole, split := ws.receive(t, raw, nil, h), ws.receive(t, raw, cuts, h)
		wholeErr, splitErr := codeOf(t, whole.err), codeOf(t, split.err)
		whole.err, split.err = nil, nil
		if whole != split || wholeErr != splitErr {
			t.Errorf("%q\nwhole            %+v %s\nsplit %v %+v %s", raw, whole, wholeErr, cuts, split, splitErr)
		}
		if wholeErr == "" && !strings.HasSuffix(raw, whole.rest) {
			t.Errorf("%q: %q stands behind the body", raw, whole.rest)
		}
	})
}

// codeOf returns the code that answers an error, or "" for none.
func codeOf(t *testing.T, err error) string {
	if err == nil {
		return ""
	}
	knownError(t, err)
	var e *Error
	errors.As(err, &e)
	return e.Code.Name
}

// FuzzTrailer: what is kept of a trailer section is clean and may stand there.
func FuzzTrailer(f *testing.F) {
	for _, c := range []string{"\r\n", "A: b\r\n\r\n", "Host: a\r\n\r\n", "A: b\r\n c\r\n\r\n", "Expect: x\r\n\r\n", "\rA: b\r\n\r\n"} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var h exchange.Header
		end, err := trailerEnd([]byte(raw), 0)
		if err == nil && end == 0 {
			return
		}
		if err == nil {
			err = parseTrailer([]byte(raw[:end]), fuzzLimits(), &h)
		}
		if err != nil {
			knownError(t, err)
			return
		}
		cleanHeader(t, &h)
		for name := range h.All() {
			switch strings.ToLower(name) {
			case "content-length", "transfer-encoding", "host", "connection", "te", "trailer", "authorization", "set-cookie":
				t.Errorf("%q: %s is kept", raw, name)
			}
		}
		again := append(h.AppendTo(nil), "\r\n"...)
		var h2 exchange.Header
		if err := parseTrailer(again, fuzzLimits(), &h2); err != nil || listed(&h2) != listed(&h) {
			t.Errorf("%q\nis forwarded as %q\nwhich means %q, %v", raw, again, listed(&h2), err)
		}
	})
}

// knownError fails for an error that is not one of the codec's own.
func knownError(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.Is(err, errIncomplete) && (!errors.As(err, &e) || e.Code.Status < 400) {
		t.Errorf("%v is not an error of this package", err)
	}
}

func cleanHeader(t *testing.T, h *exchange.Header) {
	t.Helper()
	for name, value := range h.All() {
		if !exchange.ValidName(name) || !exchange.ValidValue(value) {
			t.Errorf("a field %q with value %q was accepted", name, value)
		}
	}
}

// cleanText fails for texts that would break a line or a log.
func cleanText(t *testing.T, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			t.Errorf("%q was accepted", s)
		}
	}
}
