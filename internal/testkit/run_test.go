package testkit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// document is what the stand-in understands.
const document = `# Proves the runner.
-- environment --
TESTKIT_STANDIN=1
-- headgate.yaml --
listen: "${LISTEN}"
upstream: "${UPSTREAM}"
`

// outcome runs a script against the stand-in.
func outcome(t *testing.T, text string) string {
	t.Helper()
	t.Setenv("TESTKIT_STANDIN", "1")
	path := filepath.Join(t.TempDir(), "script.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return runFile(path, os.Args[0], t.TempDir())
}

// TestScriptsThatHoldPass runs every statement once with an expectation that is met.
func TestScriptsThatHoldPass(t *testing.T) {
	for name, rest := range map[string]string{
		"echo": `-- script --
> POST /orders?a=%2F HTTP/1.1
> Host: shop
> Content-Length: 5
>
>| h\x65llo
< 200
< Content-Type: application/json
<? Content-Length: [0-9]+
<! X-Nothing
<~ "path":"/orders?a=%2F"
<~ "body":"hello"
^ POST /orders?a=%2F HTTP/1.1
^ Host: shop
^! Connection
^? X-Forwarded-For: 127\..*
^~ Content-Length: 5
^| hello
^count 1

connect second
> HEAD /x HTTP/1.1
> Host: shop
>
< 200
<= 
^ HEAD /x HTTP/1.1
<none

on main
> GET /bad HTTP/1.1
>
< 400
<closed
^none
status ~ all is well
status ! ill
signal TERM
exit 0
`,
		"clock, reload, log, crowd": `-- headgate.yaml 2 --
wrong: "${LISTEN}"
-- headgate.yaml 3 --
listen: "${LISTEN}"
-- file extra.txt --
from ${DIR}
-- script --
advance 1m
log ~ advanced by 1m --test-clock
reload refused
reload
file extra.txt ~ ^from /
limit nofile 100
crowd 5 GET / HTTP/1.1\r\nHost: a\r\n
signal TERM
within 5s
await crowd closed
exit 0
`,
		"scripted upstream": `-- upstream --
expect GET /one
send HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none
expect-head POST /two
send HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n
body
flood 3 HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n
send HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3\r\ntwo\r\n0\r\nT: yes\r\n\r\n
close
expect GET /three
send HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n
flood 2000 three
close
expect-head GET /four
wait-closed
-- script --
> GET /one HTTP/1.1
> Host: a
>
< 200
<= one

> POST /two HTTP/1.1
> Host: a
> Transfer-Encoding: chunked
>
>| 2\r\nab\r\n0\r\n\r\n
< 103
< Link: </a>
< 103
< 103
< 103
< Link: </b>
< 200
<~ two
<trailer T: yes
^| ab

> GET /three HTTP/1.1
> Host: a
>
< 200
<aborted

connect
> GET /four HTTP/1.1
> Host: a
>
^ GET /four HTTP/1.1
hangup
await upstream
`,
		"down and up": `-- script --
upstream down
> GET / HTTP/1.1
> Host: a
>
< 502

upstream up
> GET / HTTP/1.1
> Host: a
>
< 200
`,
	} {
		t.Run(name, func(t *testing.T) {
			if report := outcome(t, document+rest); report != "" {
				t.Error(report)
			}
		})
	}
}

// TestScriptsThatDoNotHoldFail breaks one expectation at a time; the report names the line and says what was found.
func TestScriptsThatDoNotHoldFail(t *testing.T) {
	const get = "-- script --\n> GET /x HTTP/1.1\n> Host: shop\n>\n"
	for _, c := range []struct{ name, rest, want string }{
		{"status", get + "< 404", "script.txt:11: < 404: the answer is \"HTTP/1.1 200 OK"},
		{"header", get + "< 200\n< Content-Type: text/plain", `script.txt:12: < Content-Type: text/plain: its values are ["application/json"]`},
		{"absent header", get + "< 200\n<! Date", "script.txt:12: <! Date: it is there"},
		{"header pattern", get + "< 200\n<? Date: [0-9]", "script.txt:12: <? Date: [0-9]: its values"},
		{"body", get + "< 200\n<~ no such text", `script.txt:12: <~ no such text: the body is "{\"method\"`},
		{"exact body", get + "< 200\n<= x", "script.txt:12: <= x: the body is"},
		{"stays open", get + "within 300ms\n< 200\n<closed", "script.txt:13: <closed: the connection stays open"},
		{"whole body", get + "< 200\n<aborted", "script.txt:12: <aborted: the body of"},
		{"answers", get + "<none", "script.txt:11: <none: received \"HTTP/1.1 200"},
		{"forwarded", get + "< 200\n^none", `script.txt:12: ^none: it received "GET /x`},
		{"forwarded line", get + "< 200\n^ GET /y HTTP/1.1", `script.txt:12: ^ GET /y HTTP/1.1: it received "GET /x HTTP/1.1"`},
		{"forwarded header", get + "< 200\n^ Host: other", `script.txt:12: ^ Host: other: its values are ["shop"]`},
		{"forwarded head", get + "< 200\n^= GET", `script.txt:12: ^= GET: it received "GET /x`},
		{"forwarded body", get + "< 200\n^| x", `script.txt:12: ^| x: it received the body ""`},
		{"not forwarded", get + "< 200\n\nwithin 300ms\n^ GET /y HTTP/1.1", "it received 0 requests"},
		{"unread answer", "-- script --\n> GET /twice HTTP/1.1\n> Host: a\n>\n< 200\n<= x\n\nconnect", "more than the script reads"},
		{"unread answer at the end", "-- script --\n> GET /twice HTTP/1.1\n> Host: a\n>\n< 200\n<= x", "more than the script reads"},
		{"upstream's order", "-- upstream --\nexpect GET /other\n" + get + "< 502", `upstream: line 8: expect GET /other: got "GET /x HTTP/1.1"`},
		{"upstream asked too much", "-- upstream --\nexpect\nsend HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n\n" + get + "< 200\n\n" +
			"> GET /again HTTP/1.1\n> Host: a\n>\n< 502", `a request that the script does not expect: "GET /again HTTP/1.1"`},
		{"status page", "-- script --\nstatus ! well", `script.txt:8: status ! well: it says "well"`},
		{"log", "-- script --\nwithin 100ms\nlog ~ something", "script.txt:9: log ~ something: waited 100ms"},
		{"reload", "-- script --\nreload refused", "POST /reload is answered 200"},
		{"exit code", "-- script --\nsignal KILL\nexit 0", "it exits with code -1"},
		{"unknown statement", "-- script --\nsleep 1s", `line 8: "sleep" is no statement; there are connect`},
		{"unknown section", "-- scripts --\n", `no section is called "scripts"`},
		{"wrong errors", "-- bad.yaml --\n\n-- error --\nbad.yaml:2:2: other\n-- script --\n",
			"headgate check says\nbad.yaml:1:1: 1 bytes\nnot\n"},
		{"dies", "-- script --\nsignal KILL\nlog ~ something", "it has exited with code -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if report := outcome(t, document+c.rest); !strings.Contains(report, c.want) {
				t.Errorf("the report does not say %q:\n%s", c.want, report)
			}
		})
	}
}

// TestFailureLeadsToTheNextConnection proves that one run shows every case that fails, and only those.
func TestFailureLeadsToTheNextConnection(t *testing.T) {
	report := outcome(t, document+`-- script --
> GET /a HTTP/1.1
> Host: a
>
< 404
< 405

connect
> GET /b HTTP/1.1
> Host: a
>
< 200

connect
> GET /c HTTP/1.1
> Host: a
>
< 406
`)
	if !strings.Contains(report, ":11: < 404:") || !strings.Contains(report, ":24: < 406:") || strings.Contains(report, "405:") {
		t.Error(report)
	}
}
