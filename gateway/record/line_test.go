package record

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/exchange"
)

// lineOf formats the exchange as the access log would.
func lineOf(t testing.TB, a model.AccessLog, x *exchange.Exchange) string {
	t.Helper()
	m := newMask(a.Mask)
	y, err := newLayout(&a, m, plainExpressions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(y.append(nil, &line{x: x, duration: 1234567 * time.Nanosecond, mask: m}))
}

// plainExpressions knows the expressions of these tests.
type plainExpressions struct{}

func (plainExpressions) String(src string) (func(*exchange.Exchange) string, error) {
	if src == "consumer" {
		return consumer, nil
	}
	if name, ok := strings.CutPrefix(src, "header."); ok {
		return func(x *exchange.Exchange) string { return x.Request.Header.Get(name) }, nil
	}
	return nil, errors.New(`col 1: "` + src + `" is not known`)
}

func TestAccessLogGoldenLines(t *testing.T) {
	proxied := func() *exchange.Exchange {
		x := shop()
		answer(x)
		x.ID = "id-1"
		x.Original = exchange.Original{Method: "POST", Host: "shop.example.com", Path: "/shop/orders", Query: "page=2&api_key=hunter2"}
		return x
	}
	traced := proxied()
	traced.Trace, _ = parseTraceparent(parentA)
	refused := &exchange.Exchange{ID: "id-2", Start: began.Add(time.Second), Err: &exchange.Error{
		Code: exchange.UpstreamUnreachable, Source: exchange.FromUpstream, Cause: errors.New("dial \"x\":\nrefused")}}
	refused.Original.Path = "/\x00\x1b[31m\"\\"
	refused.Reply.Status, refused.Usage.Aborted = 502, true
	hostile := proxied()
	hostile.Request.Header.Set("User-Agent", "a\" \xff\u2028\u0085ä")
	hostile.Consumer.Name = "two words"

	for _, c := range []struct {
		name string
		log  model.AccessLog
		x    *exchange.Exchange
		want string
	}{
		{"json", model.AccessLog{Format: "json"}, traced,
			`{"time":"2026-11-21T04:26:04.123Z","id":"id-1","client":"192.0.2.7","method":"POST","host":"shop.example.com",` +
				`"path":"/shop/orders?page=2&api_key=<secret>","status":201,"source":"upstream","bytes_in":17,"bytes_out":230,` +
				`"duration_ms":1.234,` +
				`"api":"shop","route":"place order","consumer":"mobile-app","target":"10.0.0.4:9000","upstream_ms":0.987,"attempts":1,` +
				`"user_agent":"curl/8.5.0","trace":"4bf92f3577b34da6a3ce929d0e0e4736"}`},
		{"text", model.AccessLog{Format: "text"}, proxied(),
			`2026-11-21T04:26:04.123Z id=id-1 192.0.2.7 POST host=shop.example.com /shop/orders?page=2&api_key=<secret> 201 ` +
				`source=upstream bytes_in=17 bytes_out=230 duration_ms=1.234 api=shop route="place order" consumer=mobile-app target=10.0.0.4:9000 ` +
				`upstream_ms=0.987 attempts=1 user_agent=curl/8.5.0`},
		{"json of a failure before any route", model.AccessLog{Format: "json"}, refused,
			`{"time":"2026-11-21T04:26:05.123Z","id":"id-2","path":"/\u0000\u001b[31m\"\\","status":502,"source":"gateway",` +
				`"code":"upstream_unreachable","cause":"dial \"x\":\nrefused","bytes_in":0,"bytes_out":0,"duration_ms":1.234,"aborted":true}`},
		{"text of a failure before any route", model.AccessLog{Format: "text"}, refused,
			`2026-11-21T04:26:05.123Z id=id-2 - - /\u0000\u001b[31m\"\\ 502 source=gateway code=upstream_unreachable ` +
				`cause="dial \"x\":\nrefused" bytes_in=0 bytes_out=0 duration_ms=1.234 aborted=true`},
		{"json of what a client can send", model.AccessLog{Format: "json", Fields: []string{"user_agent", "consumer"}}, hostile,
			`{"user_agent":"a\" \ufffd\u2028\u0085ä","consumer":"two words"}`},
		{"headers and expressions, secrets masked", model.AccessLog{Format: "json", Mask: []string{"X-Tenant", "page"}, Fields: []string{
			"header.accept", "header.authorization", "header.cookie", "header.x-tenant", "reply_header.location",
			"{consumer}", "{header.Accept}", "{header.Authorization}", "{header.X-Tenant}", "path"}},
			func() *exchange.Exchange {
				x := proxied()
				x.Request.Header.Add("X-Tenant", "hunter2")
				x.Reply.Header.Add("Location", "https://x/cb?state=1&access_token=hunter2")
				return x
			}(),
			`{"header.accept":"*/*","header.authorization":"<secret>","header.x-tenant":"<secret>",` +
				`"reply_header.location":"https://x/cb?state=1&access_token=<secret>","consumer":"mobile-app","header.Accept":"*/*",` +
				`"header.Authorization":"<secret>","header.X-Tenant":"<secret>","path":"/shop/orders?page=<secret>&api_key=<secret>"}`},
		{"the other fields", model.AccessLog{Format: "json", Fields: []string{
			"span", "version", "upstream", "scheme", "proto", "peer", "cached"}}, proxied(),
			`{"version":"v1","upstream":"orders","scheme":"https","proto":"HTTP/1.1","peer":"10.0.0.1:5555"}`},
		{"of TLS", model.AccessLog{Format: "json", Fields: []string{"tls_version", "tls_cipher", "server_name", "client_cert"}},
			&exchange.Exchange{Client: exchange.Client{TLS: &exchange.TLS{Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256",
				ServerName: "shop.example", Certificate: &exchange.Certificate{Subject: `CN=a"b`}}}},
			`{"tls_version":"TLS 1.3","tls_cipher":"TLS_AES_128_GCM_SHA256","server_name":"shop.example","client_cert":"CN=a\"b"}`},
		{"of TLS, in clear", model.AccessLog{Format: "json", Fields: []string{"tls_version", "client_cert", "scheme"}}, proxied(),
			`{"scheme":"https"}`},
		{"a refusal without a cause tells its detail", model.AccessLog{Format: "json", Fields: []string{"code", "cause"}},
			&exchange.Exchange{Err: &exchange.Error{Code: exchange.BadRequest, Detail: "Host stands twice"}},
			`{"code":"bad_request","cause":"Host stands twice"}`},
		{"nothing to say", model.AccessLog{Format: "json", Fields: []string{"cached"}}, proxied(), `{}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lineOf(t, c.log, c.x)
			if diff := cmp.Diff(c.want+"\n", got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(got, "hunter2") {
				t.Error("a secret is in the log")
			}
			if c.log.Format == "json" && !json.Valid([]byte(got)) {
				t.Error("not JSON")
			}
		})
	}
}

func TestQuerySecretsAreMaskedHoweverTheyAreWritten(t *testing.T) {
	m := newMask([]string{"Session"})
	for query, want := range map[string]string{
		"":                            "",
		"a=1&b=2":                     "a=1&b=2",
		"api_key=x":                   "api_key=<secret>",
		"API_KEY=x&a=1":               "API_KEY=<secret>&a=1",
		"a=1;token=x;b=2":             "a=1;token=<secret>;b=2",
		"password=a=b&&session=y":     "password=<secret>&&session=<secret>",
		"api%5Fkey=x":                 "api%5Fkey=<secret>",
		"%61pi_key=x":                 "%61pi_key=<secret>",
		"api%5fke%79=x":               "api%5fke%79=<secret>",
		"token":                       "token",
		"token=":                      "token=",
		"tokens=x":                    "tokens=x",
		"%zz=1&%4=2&%":                "%zz=1&%4=2&%",
		"authorization=x&x-api-key=y": "authorization=<secret>&x-api-key=<secret>",
		"q=\"\n":                      `q=\"\n`,
	} {
		if got := string(m.appendQuery(nil, query)); got != want {
			t.Errorf("%q: got %q, want %q", query, got, want)
		}
	}
}

func TestALongValueIsCutBetweenCharacters(t *testing.T) {
	long := strings.Repeat("ä", maxValue) // two bytes each
	got := string(appendText(nil, "x"+long))
	if len(got) > maxValue+3 || !strings.HasSuffix(got, "ä...") || !utf8.ValidString(got) {
		t.Errorf("%d bytes, ends in %q", len(got), got[len(got)-8:])
	}
	if got := newMask(nil).appendQuery(nil, "token="+strings.Repeat("x", 2*maxValue)); string(got) != "token=<secret>..." {
		t.Errorf("got %.40q", got)
	}
}

func FuzzJSONString(f *testing.F) {
	f.Add("plain")
	f.Add("\"\\\n\r\t\x00\x7f\xff\u0085\u2028ä\U0001F600")
	f.Add("12345678\xe2\x80")
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q became %q: %v", s, b, err)
		}
		if len(s) <= maxValue && got != string([]rune(s)) { // each byte that is not UTF-8 has become U+FFFD
			t.Fatalf("%q came back as %q", s, got)
		}
		for _, r := range string(b) {
			if r < ' ' || (r >= 0x7f && r < 0xa0) || r == '\u2028' || r == '\u2029' {
				t.Fatalf("%q holds %U", b, r)
			}
		}
		if !utf8.Valid(b) {
			t.Fatalf("%q is not UTF-8", b)
		}
		word := string(appendWord(nil, s))
		if strings.ContainsAny(word, "\n\r") || (!strings.HasPrefix(word, `"`) && strings.Contains(word, " ")) {
			t.Fatalf("the readable form of %q is %q", s, word)
		}
	})
}

func TestSettingsThatCannotBe(t *testing.T) {
	s := logTo("")
	s.Access.Fields = []string{"methd", "time", "time", "{nonsense}", "header.not a name"}
	s.Access.Mask = []string{""}
	s.Tracing.Endpoint, s.Tracing.Ratio = "collector:4318", 1.5
	s.Expr = plainExpressions{}
	var got []string
	for _, err := range decode.Flatten(Check(s)) {
		var at *decode.PathError
		if !errors.As(err, &at) {
			t.Fatalf("%v does not say where", err)
		}
		got = append(got, strings.Join(at.Path, ".")+": "+firstWords(at.Error()))
	}
	want := []string{
		`log.access.fields.0: "methd" is not a field of the access log; did you mean "method"`,
		`log.access.fields.2: field "time" stands twice in the list; leave one out`,
		`log.access.fields.3: col 1: "nonsense" is not known`,
		`log.access.fields.4: "header.not a name" is not a field of the access log; write one of time, id, client`,
		`log.access.to: it is empty; write stdout, stderr, off, or a file's path`,
		`log.access.mask.0: it is empty; write a header field's or a query parameter's name`,
		`tracing.endpoint: "collector:4318" is not a collector's URL; write one such as http://127.0.0.1:4318`,
		`tracing.ratio: 1.5 is not a share; write a number from 0 to 1`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	g := newRig(t)
	if g.Configure(s) == nil || g.current.Load().access != nil {
		t.Error("bad settings were taken")
	}
	err := g.Configure(logTo(filepath.Join(t.TempDir(), "no", "such", "folder")))
	if err == nil || !strings.Contains(err.Error(), "create it") {
		t.Errorf("got %v", err)
	}
}

// firstWords leaves out the tail of a list that is too long to repeat.
func firstWords(s string) string {
	for _, end := range []string{"?; write one of", ", method, host"} {
		if i := strings.Index(s, end); i >= 0 {
			return s[:i]
		}
	}
	return s
}
