package exchange

import (
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// A problem is what callers program against: its bytes are part of the interface (RFC 9457).
func TestProblemDocuments(t *testing.T) {
	for _, c := range []struct {
		name       string
		code       Code
		detail, id string
		status     int
		want       string
	}{
		{"with everything", RouteNotFound, "GET /a", "0190a5f4", 404,
			`{"type":"about:blank","title":"No API answers at this address.","status":404,"code":"route_not_found",` +
				`"detail":"GET /a","request_id":"0190a5f4"}`},
		{"without detail and id", RequestTimeout, "", "", 408,
			`{"type":"about:blank","title":"The request did not arrive in time.","status":408,"code":"request_timeout"}`},
		{"text that would break out of a page or of JSON", BadRequest, "<script>\"\\\n\x00\xff&", "", 400,
			`{"type":"about:blank","title":"The request is not valid HTTP.","status":400,"code":"bad_request",` +
				`"detail":"\u003cscript\u003e\"\\\n\u0000\ufffd\u0026"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := &Exchange{ID: c.id}
			x.Reply.Header.Add("Set-Cookie", "of the upstream")
			x.Reply.Trailer.Add("A", "of the upstream")
			x.Reply.Source = FromUpstream
			x.Problem(c.code, c.detail)
			body, err := io.ReadAll(x.Reply.Body.Reader)
			if err != nil || string(body) != c.want || x.Reply.Body.Length != int64(len(body)) {
				t.Errorf("length %d, error %v\n got %s\nwant %s", x.Reply.Body.Length, err, body, c.want)
			}
			if x.Reply.Status != c.status || x.Reply.Source != FromGateway {
				t.Errorf("status %d from %v", x.Reply.Status, x.Reply.Source)
			}
			if h := text(&x.Reply.Header) + text(&x.Reply.Trailer); h != "Content-Type: application/problem+json\r\n" {
				t.Errorf("fields %q", h)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	x := new(Exchange)
	x.Answer(204, "", "")
	if x.Reply.Status != 204 || !x.Reply.Body.None() || x.Reply.Header.Len() != 0 || x.Reply.Body.Length != 0 {
		t.Errorf("an answer without content: %+v", x.Reply)
	}
	x.Answer(200, "text/plain", "hello")
	if b, err := io.ReadAll(x.Reply.Body.Reader); string(b) != "hello" || err != nil || x.Reply.Header.Get("content-type") != "text/plain" {
		t.Errorf("%q, %v, %+v", b, err, x.Reply)
	}
}

// The catalogue keeps its promises: names are stable identifiers, statuses say whose fault it is, titles are sentences.
func TestCatalogueOfProblems(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := map[string]bool{}
	for _, c := range Codes() {
		if !name.MatchString(c.Name) || seen[c.Name] {
			t.Errorf("%q is not a name, or not the only one", c.Name)
		}
		seen[c.Name] = true
		if c.Status < 400 || c.Status > 599 || http.StatusText(c.Status) == "" && c.Status != ClientGone.Status {
			t.Errorf("%s answers %d", c.Name, c.Status)
		}
		if !strings.HasSuffix(c.Title, ".") || strings.ContainsAny(c.Title, "\n\"") {
			t.Errorf("%s: %q is not one sentence", c.Name, c.Title)
		}
	}
}

func TestErrorsTellTheirCause(t *testing.T) {
	cause := errors.New("connection refused")
	e := &Error{Code: UpstreamUnreachable, Source: FromUpstream, Cause: cause}
	if e.Error() != "upstream_unreachable: connection refused" || !errors.Is(e, cause) || e.Source.String() != "upstream" {
		t.Errorf("%v from %v", e, e.Source)
	}
	if e := (&Error{Code: Internal}); e.Error() != "internal_error" || e.Unwrap() != nil {
		t.Errorf("%v", e)
	}
}
