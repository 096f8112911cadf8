package grpc

import (
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/internal/clock"
)

// ask returns an exchange that is a call, with header lines, and the call.
func ask(t *testing.T, contentType string, fields ...string) (*exchange.Exchange, *Call) {
	t.Helper()
	x := &exchange.Exchange{Cancel: new(exchange.Canceler), Start: time.Now()}
	x.Request.Method = "POST"
	x.Request.Header.Add("content-type", contentType)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		x.Request.Header.Add(name, value)
	}
	c := Recognize(x)
	if c == nil {
		t.Fatalf("%s is not recognized", contentType)
	}
	t.Cleanup(func() { c.Release(); x.Cancel.Rest() })
	return x, c
}

// upstreamReply makes the exchange's reply one of the upstream's.
func upstreamReply(x *exchange.Exchange, status int, contentType string, body io.Reader) {
	x.Reply.Header.Reset("")
	x.Reply.Status, x.Reply.Source, x.Reply.Body = status, exchange.FromUpstream, exchange.Body{Reader: body, Length: -1}
	x.Reply.Header.Add("content-type", contentType)
}

func settings(m model.GRPC) *Settings { return NewSettings(m, clock.System{}) }

func TestProblemsOfTheGatewayReachTheClientAsStatus(t *testing.T) {
	declared := func(name string, status int) exchange.Code {
		return exchange.Code{Name: name, Status: status, Title: "A policy says no."}
	}
	for code, want := range map[exchange.Code]Status{
		exchange.RouteNotFound:                  Unimplemented,
		exchange.MethodNotAllowed:               Unimplemented,
		exchange.NotImplemented:                 Unimplemented,
		exchange.AmbiguousPath:                  InvalidArgument,
		exchange.BadRequest:                     Internal,
		exchange.PlainHTTP:                      Internal,
		exchange.BodyTooLarge:                   ResourceExhausted,
		exchange.HeadTooLarge:                   ResourceExhausted,
		exchange.TargetTooLong:                  ResourceExhausted,
		exchange.RequestTimeout:                 DeadlineExceeded,
		exchange.DeadlineExceeded:               DeadlineExceeded,
		exchange.UpstreamTimeout:                DeadlineExceeded,
		exchange.UpstreamUnreachable:            Unavailable,
		exchange.UpstreamUntrusted:              Unavailable,
		exchange.UpstreamClosed:                 Unavailable,
		exchange.UpstreamInvalid:                Internal,
		exchange.NoTarget:                       Unavailable,
		exchange.TooManyConnections:             Unavailable,
		exchange.Misdirected:                    Unavailable,
		exchange.LoopDetected:                   Internal,
		exchange.ClientGone:                     Cancelled,
		exchange.PolicyFailed:                   Internal,
		exchange.PolicyUnavailable:              Unavailable,
		exchange.Internal:                       Internal,
		declared("rate_limited", 429):           ResourceExhausted,
		declared("unauthenticated", 401):        Unauthenticated,
		declared("forbidden", 403):              PermissionDenied,
		declared("conflict", 409):               Aborted,
		declared("precondition", 412):           FailedPrecondition,
		declared("range", 416):                  OutOfRange,
		declared("too_busy", 503):               Unavailable,
		declared("teapot", 418):                 Unknown,
		declared("body_schema", 422):            InvalidArgument,
		declared("for_legal_reasons", 451):      PermissionDenied,
		declared("insufficient_storage", 507):   ResourceExhausted,
		exchange.ExpectationFailed:              Internal,
		exchange.VersionNotSupported:            Internal,
		exchange.WebSocketVersion:               Unknown,
		exchange.TooManyUpgradesOfConsumer:      ResourceExhausted,
		declared("unsupported_media_type", 415): InvalidArgument,
	} {
		x, c := ask(t, "application/grpc+proto")
		x.ID = "id-1"
		x.Problem(code, "50% of it.")
		x.Err = &exchange.Error{Code: code, Detail: "50% of it."}
		x.Reply.Header.Add("WWW-Authenticate", "Bearer")
		c.Settle(x)
		c.Ended(x)
		r := &x.Reply
		if got, _ := parseStatus(r.Header.Get("grpc-status")); got != want {
			t.Errorf("%s: %d, want %d", code.Name, got, want)
		}
		if got, ok := x.Usage.GRPC.Code(); !ok || Status(got) != want {
			t.Errorf("%s: recorded as %d", code.Name, got)
		}
		if r.Status != 200 || !r.Body.None() || r.Body.Length != 0 || r.Trailer.Len() != 0 ||
			r.Header.Joined("Content-Type") != "application/grpc+proto" || r.Header.Get(codeField) != code.Name ||
			r.Header.Get("grpc-message") != code.Title+" 50%25 of it." || !r.Header.Has("WWW-Authenticate") {
			t.Errorf("%s: %d %+v\n%s", code.Name, r.Status, r.Body, r.Header.AppendTo(nil))
		}
	}
}

func TestARefusalThatMayBeRetriedSaysWhen(t *testing.T) {
	for _, c := range []struct {
		status     int
		retryAfter string
		want       string
	}{
		{429, "7", "7000"}, {503, "1", "1000"}, {503, "Wed, 21 Oct 2026 07:28:00 GMT", ""}, {503, "", ""}, {401, "7", ""}, {429, "99999999", ""},
	} {
		x, call := ask(t, "application/grpc")
		code := exchange.Code{Name: "no", Status: c.status, Title: "No."}
		x.Problem(code, "")
		x.Err = &exchange.Error{Code: code}
		if c.retryAfter != "" {
			x.Reply.Header.Add("Retry-After", c.retryAfter)
		}
		call.Settle(x)
		if got := x.Reply.Header.Get("grpc-retry-pushback-ms"); got != c.want || x.Reply.Header.Get("Retry-After") != c.retryAfter {
			t.Errorf("%d, Retry-After %q: pushback %q, want %q", c.status, c.retryAfter, got, c.want)
		}
	}
}

// A proxy behind us knows nothing of gRPC: its page becomes what http-grpc-status-mapping.md says.
func TestAnAnswerThatIsNotGRPCIsMapped(t *testing.T) {
	for _, c := range []struct {
		status      int
		contentType string
		want        Status
	}{
		{400, "text/html", Internal}, {401, "text/html", Unauthenticated}, {403, "text/html", PermissionDenied},
		{404, "text/html", Unimplemented}, {429, "text/html", Unavailable}, {502, "text/html", Unavailable},
		{503, "text/html", Unavailable}, {504, "text/html", Unavailable}, {500, "text/html", Unknown}, {200, "text/html", Unknown},
		{302, "", Unknown}, {200, "application/grpc-web", Unknown}, {503, "application/grpc", Unavailable},
	} {
		x, call := ask(t, "application/grpc")
		upstreamReply(x, c.status, c.contentType, strings.NewReader("<html>"))
		x.Reply.Header.Add("Content-Length", "6")
		x.Reply.Header.Add("ETag", `"1"`)
		call.Settle(x)
		r := &x.Reply
		if got, _ := parseStatus(r.Header.Get("grpc-status")); got != c.want || r.Status != 200 || !r.Body.None() {
			t.Errorf("%d %s: %d, want %d", c.status, c.contentType, got, c.want)
		}
		if r.Header.Has("ETag") || r.Header.Has("Content-Length") || r.Header.Joined("Content-Type") != "application/grpc" {
			t.Errorf("%d %s:\n%s", c.status, c.contentType, r.Header.AppendTo(nil))
		}
	}
}

func TestGRPCPassesUntouched(t *testing.T) {
	x, c := ask(t, "application/grpc")
	const message = "\x00\x00\x00\x00\x02hi"
	upstreamReply(x, 200, "application/grpc+proto", strings.NewReader(message))
	c.Settle(x)
	got, err := io.ReadAll(x.Reply.Body.Reader)
	x.Reply.Trailer.Add("grpc-status", "5")
	c.Ended(x)
	if code, ok := x.Usage.GRPC.Code(); string(got) != message || err != nil || x.Reply.Header.Len() != 1 || code != 5 || !ok {
		t.Errorf("%q %v %d %s", got, err, code, x.Reply.Header.AppendTo(nil))
	}
}

func TestATrailersOnlyAnswerKeepsItsStatus(t *testing.T) {
	for _, status := range []int{200, 503} {
		x, c := ask(t, "application/grpc")
		upstreamReply(x, status, "application/grpc", nil)
		x.Reply.Header.Add("grpc-status", "9")
		c.Settle(x)
		c.Ended(x)
		if code, _ := x.Usage.GRPC.Code(); x.Reply.Status != 200 || x.Reply.Header.Get("grpc-status") != "9" || code != 9 {
			t.Errorf("%d: %d, recorded %d\n%s", status, x.Reply.Status, code, x.Reply.Header.AppendTo(nil))
		}
	}
}

// source is a body that ends with an error, in pieces if that is asked for.
type source struct{ io.Reader }

func (s source) Next() ([]byte, error) {
	b := make([]byte, 4)
	n, err := s.Read(b)
	return b[:n], err
}

func TestAStreamThatBreaksOffEndsWithAStatus(t *testing.T) {
	gone := &exchange.Error{Code: exchange.UpstreamInvalid, Source: exchange.FromUpstream}
	late := func(c *exchange.Canceler) { now := time.Now(); c.Expire(now, now) }
	for name, c := range map[string]struct {
		err  error
		end  func(*exchange.Canceler)
		want Status
		code string
	}{
		"the connection ended":   {err: io.ErrUnexpectedEOF, want: Unavailable, code: "upstream_closed"},
		"it was not valid":       {err: gone, want: Internal, code: "upstream_invalid"},
		"its time has passed":    {err: gone, end: late, want: DeadlineExceeded, code: "deadline_exceeded"},
		"the client went away":   {err: gone, end: (*exchange.Canceler).Cancel},
		"and nobody can be told": {err: &exchange.Error{Code: exchange.ClientGone}},
	} {
		for _, piecewise := range []bool{false, true} {
			x, call := ask(t, "application/grpc")
			var body io.Reader = io.MultiReader(strings.NewReader("\x00\x00\x00\x00\x02hi"), iotest.ErrReader(c.err))
			if piecewise {
				body = source{body}
			}
			upstreamReply(x, 200, "application/grpc", body)
			call.Settle(x)
			if c.end != nil {
				c.end(x.Cancel)
			}
			got, err := drain(x.Reply.Body.Reader)
			call.Ended(x)
			if string(got) != "\x00\x00\x00\x00\x02hi" {
				t.Errorf("%s: %q", name, got)
			}
			if c.code == "" {
				if err == nil || x.Reply.Trailer.Len() > 0 {
					t.Errorf("%s: %v %s", name, err, x.Reply.Trailer.AppendTo(nil))
				}
				continue
			}
			status, _ := parseStatus(x.Reply.Trailer.Get("grpc-status"))
			if err != nil || status != c.want || x.Err == nil || x.Err.Code.Name != c.code || !x.Usage.Aborted ||
				x.Reply.Trailer.Get(codeField) != c.code {
				t.Errorf("%s: %v, status %d, %+v", name, err, status, x.Err)
			}
			if code, _ := x.Usage.GRPC.Code(); Status(code) != c.want {
				t.Errorf("%s: recorded as %d", name, code)
			}
		}
	}
}

// drain reads a body as a wire does: in pieces if it has them.
func drain(r io.Reader) (all []byte, err error) {
	p, ok := r.(exchange.Piecewise)
	if !ok {
		return io.ReadAll(r)
	}
	for err == nil {
		var b []byte
		b, err = p.Next()
		all = append(all, b...)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return all, err
}

func TestGRPCWebIsAskedAsGRPC(t *testing.T) {
	const message = "\x00\x00\x00\x00\x02hi"
	for _, text := range []bool{false, true} {
		contentType, body := "application/grpc-web+proto", message
		if text {
			contentType, body = "application/grpc-web-text+proto", base64.StdEncoding.EncodeToString([]byte(message))
		}
		x, c := ask(t, contentType, "Accept: "+contentType, "X-Grpc-Web: 1", "X-User-Agent: grpc-web-javascript/0.1")
		x.Request.Body = exchange.Text(body)
		if err := c.Begin(x, settings(model.GRPC{Web: "translate"})); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(x.Request.Body.Reader)
		want := "content-type: application/grpc+proto\r\nX-User-Agent: grpc-web-javascript/0.1\r\n"
		if h := string(x.Request.Header.AppendTo(nil)); !strings.EqualFold(h, want) || string(got) != message || err != nil {
			t.Errorf("%s: %q %v\n%s", contentType, got, err, h)
		}
		if text != (x.Request.Body.Length == -1) {
			t.Errorf("%s: length %d", contentType, x.Request.Body.Length)
		}
	}
}

func TestGRPCIsAnsweredAsGRPCWeb(t *testing.T) {
	const message = "\x00\x00\x00\x00\x02hi"
	const trailers = "\x80\x00\x00\x00\x1bgrpc-status: 0\r\nx-cost: 3\r\n"
	for _, c := range []struct{ asked, accept, want string }{
		{"application/grpc-web+proto", "", "application/grpc-web+proto"},
		{"application/grpc-web-text", "", "application/grpc-web-text+proto"},
		{"application/grpc-web", "application/grpc-web-text", "application/grpc-web-text+proto"},
	} {
		x, call := ask(t, c.asked, "Accept: "+c.accept)
		if err := call.Begin(x, settings(model.GRPC{Web: "translate"})); err != nil {
			t.Fatal(err)
		}
		upstreamReply(x, 200, "application/grpc+proto", iotest.OneByteReader(strings.NewReader(message+message)))
		x.Reply.Header.Add("Trailer", "grpc-status")
		call.Settle(x)
		x.Reply.Trailer.Add("Grpc-Status", "0")
		x.Reply.Trailer.Add("X-Cost", "3")
		got, err := io.ReadAll(x.Reply.Body.Reader)
		if strings.Contains(c.want, "text") {
			decoder := &decoder{from: strings.NewReader(string(got))}
			got, err = io.ReadAll(decoder)
			decoder.release()
		}
		call.Ended(x)
		code, ok := x.Usage.GRPC.Code()
		if string(got) != message+message+trailers || err != nil || x.Reply.Trailer.Len() != 0 || x.Reply.Body.Length != -1 || code != 0 || !ok {
			t.Errorf("%+v: %q %v", c, got, err)
		}
		if h := string(x.Reply.Header.AppendTo(nil)); h != "content-type: "+c.want+"\r\n" && h != "Content-Type: "+c.want+"\r\n" {
			t.Errorf("%+v:\n%s", c, h)
		}
	}
}

func TestAStatusAheadOfABodyIsSaidBehindItToo(t *testing.T) {
	const message = "\x00\x00\x00\x00\x02hi"
	x, call := ask(t, "application/grpc-web")
	if err := call.Begin(x, settings(model.GRPC{Web: "translate"})); err != nil {
		t.Fatal(err)
	}
	upstreamReply(x, 200, "application/grpc", strings.NewReader(message))
	x.Reply.Header.Add("grpc-status", "0")
	call.Settle(x)
	got, err := io.ReadAll(x.Reply.Body.Reader)
	call.Ended(x)
	if code, ok := x.Usage.GRPC.Code(); string(got) != message+"\x80\x00\x00\x00\x10grpc-status: 0\r\n" || err != nil || code != 0 || !ok {
		t.Errorf("%q %v", got, err)
	}
}

// Every piece of a stream is sent when it comes: what is encoded never waits for the next piece.
func TestTextOfAStreamIsFlushedWithEachPiece(t *testing.T) {
	x, call := ask(t, "application/grpc-web-text")
	if err := call.Begin(x, settings(model.GRPC{Web: "translate"})); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	upstreamReply(x, 200, "application/grpc", r)
	call.Settle(x)
	buf := make([]byte, 256)
	for _, message := range []string{"\x00\x00\x00\x00\x01a", "\x00\x00\x00\x00\x02bc", "\x00\x00\x00\x00\x03def"} {
		go func() { _, _ = io.WriteString(w, message) }()
		n, err := x.Reply.Body.Reader.Read(buf)
		if got, _ := base64.StdEncoding.DecodeString(string(buf[:n])); string(got) != message || err != nil {
			t.Errorf("%q came as %q, %v", message, buf[:n], err)
		}
	}
	_ = w.Close() // a pipe closes
}

// Behind half a message a frame of trailers would be read as the message's other half.
func TestGRPCWebThatBreaksOffInsideAMessageIsBrokenOff(t *testing.T) {
	for body, whole := range map[string]bool{"\x00\x00\x00\x00\x02hi": true, "\x00\x00\x00\x00\x02h": false, "\x00\x00": false, "": true} {
		for _, err := range []error{io.EOF, io.ErrUnexpectedEOF} {
			x, call := ask(t, "application/grpc-web")
			if err := call.Begin(x, settings(model.GRPC{Web: "translate"})); err != nil {
				t.Fatal(err)
			}
			upstreamReply(x, 200, "application/grpc", io.MultiReader(strings.NewReader(body), iotest.ErrReader(err)))
			call.Settle(x)
			got, broken := io.ReadAll(x.Reply.Body.Reader)
			if whole != (broken == nil) || strings.Contains(string(got), "\x80") != whole {
				t.Errorf("%q and %v: %q %v", body, err, got, broken)
			}
		}
	}
}

func TestAProblemReachesAGRPCWebClientInItsOwnType(t *testing.T) {
	for _, web := range []string{"translate", "pass"} {
		for asked, want := range map[string]string{
			"application/grpc-web+proto": "application/grpc-web+proto", "application/grpc-web-text": "application/grpc-web-text",
		} {
			x, call := ask(t, asked)
			if err := call.Begin(x, settings(model.GRPC{Web: web})); err != nil {
				t.Fatal(err)
			}
			x.Problem(exchange.NoTarget, "")
			x.Err = &exchange.Error{Code: exchange.NoTarget}
			call.Settle(x)
			if h := &x.Reply.Header; x.Reply.Status != 200 || h.Joined("Content-Type") != want || h.Get("grpc-status") != "14" {
				t.Errorf("%s, %s: %d\n%s", web, asked, x.Reply.Status, h.AppendTo(nil))
			}
		}
	}
}

func TestGRPCWebIsPassedOnWhenTheUpstreamSpeaksIt(t *testing.T) {
	x, call := ask(t, "application/grpc-web-text+proto", "Accept: application/grpc-web-text")
	x.Request.Body = exchange.Text("AAAAAAA=")
	before := string(x.Request.Header.AppendTo(nil))
	if err := call.Begin(x, settings(model.GRPC{Web: "pass"})); err != nil {
		t.Fatal(err)
	}
	call.Forward(x)
	if got := string(x.Request.Header.AppendTo(nil)); got != before || x.Request.Body.Length != 8 {
		t.Errorf("%s\nbecomes\n%s", before, got)
	}
	upstreamReply(x, 200, "application/grpc-web-text+proto", strings.NewReader("AAAAAAA="))
	call.Settle(x)
	got, err := io.ReadAll(x.Reply.Body.Reader)
	if string(got) != "AAAAAAA=" || err != nil || x.Reply.Status != 200 {
		t.Errorf("%q %v", got, err)
	}
}

func TestTimeIsLimitedAndToldOn(t *testing.T) {
	for name, c := range map[string]struct {
		contentType, field string
		longest            time.Duration
		passes             time.Duration // before the upstream is asked
		left               string        // told to the upstream
		until              time.Duration // 0: no deadline
	}{
		"as asked":          {"application/grpc", "grpc-timeout: 10S", 0, 0, "10000000u", 10 * time.Second},
		"less what is gone": {"application/grpc", "grpc-timeout: 10S", 0, 3 * time.Second, "7000000u", 10 * time.Second},
		"capped":            {"application/grpc", "grpc-timeout: 1H", time.Minute, 0, "60000000u", time.Minute},
		"not asked, set":    {"application/grpc", "x: y", time.Minute, 0, "60000000u", time.Minute},
		"not asked":         {"application/grpc", "x: y", 0, 0, "", 0},
		"for ever":          {"application/grpc", "grpc-timeout: 99999999H", 0, 0, "99999999H", 0},
		"of gRPC-Web":       {"application/grpc-web", "grpc-timeout: 10S", 0, 0, "10000000u", 10 * time.Second},
		"of Connect":        {"application/connect+proto", "Connect-Timeout-Ms: 10000", 0, 3 * time.Second, "7000", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, call := ask(t, c.contentType, c.field)
				if err := call.Begin(x, settings(model.GRPC{MaxDeadline: c.longest})); err != nil {
					t.Fatal(err)
				}
				time.Sleep(c.passes)
				call.Forward(x)
				field, _ := call.timeoutField()
				if got := x.Request.Header.Get(field); got != c.left {
					t.Errorf("the upstream is told %q, want %q", got, c.left)
				}
				if c.until == 0 {
					if _, ok := x.Cancel.Until(); ok {
						t.Error("there is a deadline")
					}
					return
				}
				time.Sleep(c.until - c.passes - 1)
				synctest.Wait()
				if x.Cancel.Expired() {
					t.Fatal("too early")
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if !x.Cancel.Expired() {
					t.Error("too late")
				}
			})
		})
	}
}

// A service that was told when the call ends may break off a moment before we do.
func TestAServiceThatBreaksOffAtTheDeadlineIsLate(t *testing.T) {
	for passed, want := range map[time.Duration]Status{10*time.Second - time.Millisecond: DeadlineExceeded, 9 * time.Second: Unavailable} {
		synctest.Test(t, func(t *testing.T) {
			for _, begun := range []bool{false, true} {
				x, call := ask(t, "application/grpc", "grpc-timeout: 10S")
				if err := call.Begin(x, settings(model.GRPC{})); err != nil {
					t.Fatal(err)
				}
				time.Sleep(passed)
				gone := &exchange.Error{Code: exchange.UpstreamClosed, Source: exchange.FromUpstream}
				if begun {
					upstreamReply(x, 200, "application/grpc", iotest.ErrReader(gone))
					call.Settle(x)
					_, _ = io.ReadAll(x.Reply.Body.Reader) // what matters is the trailers
				} else {
					x.Problem(gone.Code, "")
					x.Err = gone
					call.Settle(x)
				}
				if code, _ := x.Usage.GRPC.Code(); Status(code) != want {
					t.Errorf("after %v, begun %v: %d, want %d", passed, begun, code, want)
				}
			}
		})
	}
}

func TestATimeoutThatIsNoneIsRefused(t *testing.T) {
	for contentType, field := range map[string]string{
		"application/grpc": "grpc-timeout: soon", "application/grpc-web": "grpc-timeout: 1",
		"application/connect+proto": "connect-timeout-ms: 1s",
	} {
		x, call := ask(t, contentType, field)
		err := call.Begin(x, settings(model.GRPC{}))
		if err == nil || err.Code != exchange.BadRequest || err.Source != exchange.FromClient || !strings.Contains(err.Detail, "digits") {
			t.Errorf("%s: %+v", field, err)
		}
	}
}

func TestProblemsReachConnectClientsAsConnectErrors(t *testing.T) {
	limited := exchange.Code{Name: "rate_limited", Status: 429, Title: "Too much."}
	for _, c := range []struct{ contentType, want string }{
		{"application/proto", `{"code":"resource_exhausted","message":"Too much."}`},
		{"application/connect+json", "\x02\x00\x00\x00\x3e" + `{"error":{"code":"resource_exhausted","message":"Too much."}}`},
	} {
		x, call := ask(t, c.contentType, "Connect-Protocol-Version: 1")
		x.Problem(limited, "")
		x.Err = &exchange.Error{Code: limited}
		call.Settle(x)
		call.Ended(x)
		got, err := io.ReadAll(x.Reply.Body.Reader)
		if len(c.want) > 5 && c.want[0] == 2 {
			c.want = string(appendFrame(nil, 2, []byte(c.want[5:])))
		}
		if string(got) != c.want || err != nil || x.Usage.GRPC != 0 || x.Reply.Body.Length != int64(len(got)) {
			t.Errorf("%s: %q %v", c.contentType, got, err)
		}
		wantStatus, wantType := 429, "application/json"
		if c.contentType != "application/proto" {
			wantStatus, wantType = 200, c.contentType
		}
		if x.Reply.Status != wantStatus || x.Reply.Header.Joined("Content-Type") != wantType {
			t.Errorf("%s: %d %s", c.contentType, x.Reply.Status, x.Reply.Header.AppendTo(nil))
		}
	}
	x, call := ask(t, "application/proto", "Connect-Protocol-Version: 1")
	upstreamReply(x, 409, "application/json", strings.NewReader(`{"code":"aborted"}`))
	call.Settle(x)
	if got, _ := io.ReadAll(x.Reply.Body.Reader); string(got) != `{"code":"aborted"}` || x.Reply.Status != 409 {
		t.Errorf("the service's own error became %d %q", x.Reply.Status, got)
	}
}

// A stream that says by its last message how it ended gets one from us when its service fails, unless it is inside of one.
func TestAStreamThatIsPassedOnEndsWithAnError(t *testing.T) {
	const message, trailer = "\x00\x00\x00\x00\x02hi", "\x80\x00\x00\x00\x10grpc-status: 0\r\n"
	var unavailable exchange.Header
	addStatus(&unavailable, Unavailable, exchange.UpstreamClosed.Title, exchange.UpstreamClosed.Name)
	for contentType, farewell := range map[string][]byte{
		"application/connect+proto":  endStream(connectError{"unavailable", exchange.UpstreamClosed.Title}),
		"application/grpc-web+proto": appendTrailers(nil, &unavailable),
	} {
		for body, want := range map[string]string{
			message: message + string(farewell), "": string(farewell), message + "\x00": "", message + trailer: message + trailer,
		} {
			x, call := ask(t, contentType)
			upstreamReply(x, 200, contentType, io.MultiReader(strings.NewReader(body), iotest.ErrReader(io.ErrUnexpectedEOF)))
			call.Settle(x)
			got, err := io.ReadAll(iotest.OneByteReader(x.Reply.Body.Reader))
			if want == "" {
				if string(got) != body || err == nil {
					t.Errorf("%s, %q: %q %v", contentType, body, got, err)
				}
				continue
			}
			if string(got) != want || err != nil || x.Reply.Trailer.Len() != 0 || (want != body) != (x.Err != nil) {
				t.Errorf("%s, %q: %q %v %+v", contentType, body, got, err, x.Err)
			}
		}
		x, call := ask(t, contentType)
		upstreamReply(x, 200, contentType, strings.NewReader(message))
		call.Settle(x)
		if got, err := io.ReadAll(x.Reply.Body.Reader); string(got) != message || err != nil || x.Err != nil {
			t.Errorf("%q %v", got, err)
		}
	}
}

func TestWhatIsNoCallIsLeftAsItIs(t *testing.T) {
	x := &exchange.Exchange{}
	x.Request.Method = "POST"
	x.Request.Header.Add("Content-Type", "application/json")
	c := Recognize(x)
	if c != nil {
		t.Fatal("it is taken for a call")
	}
	x.Problem(exchange.RouteNotFound, "")
	if err := c.Begin(x, settings(model.GRPC{})); err != nil {
		t.Error(err)
	}
	c.Forward(x)
	c.Settle(x)
	c.Ended(x)
	c.Release()
	if x.Reply.Status != 404 || x.Usage.GRPC != 0 {
		t.Errorf("%d %d", x.Reply.Status, x.Usage.GRPC)
	}
	if n := testing.AllocsPerRun(100, func() { Recognize(x) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestACallAllocatesNothingOfItsOwn(t *testing.T) {
	x := &exchange.Exchange{Cancel: new(exchange.Canceler)}
	x.Request.Method = "POST"
	x.Request.Header.Add("Content-Type", "application/grpc")
	s, body := settings(model.GRPC{}), strings.NewReader("")
	upstreamReply(x, 200, "application/grpc", body)
	x.Reply.Trailer.Add("grpc-status", "0")
	if n := testing.AllocsPerRun(100, func() {
		x.Reply.Body.Reader, x.Usage.GRPC = body, 0
		c := Recognize(x)
		_ = c.Begin(x, s)
		c.Forward(x)
		c.Settle(x)
		c.Ended(x)
		c.Release()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
