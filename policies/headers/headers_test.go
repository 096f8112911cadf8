package headers

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headgate/gateway/exchange"
	"headgate/gateway/policy/policytest"
)

func TestWhatBecomesOfAHeader(t *testing.T) {
	for _, c := range []struct {
		name, edits string
		in, want    []string
	}{
		{"remove takes out every field of the name", `{remove: [x-a]}`, []string{"X-A: 1", "X-B: 2", "x-a: 3"}, []string{"X-B: 2"}},
		{"remove takes out all that begin so", `{remove: ["X-Internal-*"]}`,
			[]string{"x-internal-user: 1", "X-Internal-: 2", "X-Internal: 3", "Y: 4"}, []string{"X-Internal: 3", "Y: 4"}},
		{"remove leaves what frames the message", `{remove: ["co*"]}`,
			[]string{"Content-Type: a", "Content-Length: 5", "Connection: close", "Cookie: x"}, []string{"Content-Length: 5", "Connection: close"}},
		{"rename keeps values and order", `{rename: {X-A: X-C}}`, []string{"x-a: 1", "X-B: 2", "X-A: 3"}, []string{"X-C: 1", "X-B: 2", "X-C: 3"}},
		{"rename takes the place of what was there", `{rename: {X-Real: X-User}}`,
			[]string{"X-User: forged", "X-Real: ada"}, []string{"X-User: ada"}},
		{"rename of what is not there changes nothing", `{rename: {X-Real: X-User}}`, []string{"X-User: bob"}, []string{"X-User: bob"}},
		{"rename may change the spelling", `{rename: {x-a: X-A}}`, []string{"x-a: 1"}, []string{"X-A: 1"}},
		{"set replaces all", `{set: {X-A: new}}`, []string{"x-a: 1", "X-B: 2", "X-A: 3"}, []string{"X-A: new", "X-B: 2"}},
		{"set adds what is not there", `{set: {X-B: new, X-A: "{{}}"}}`, nil, []string{"X-A: {}", "X-B: new"}},
		{"set fills in templates", `{set: {X-Who: "<{consumer}> {header.x-b}"}}`, []string{"X-B: 2"}, []string{"X-B: 2", "X-Who: <ada> 2"}},
		{"set with nothing leaves nothing", `{set: {X-A: "{header.x-none}"}}`, []string{"X-A: forged"}, nil},
		{"add keeps what is there", `{add: {X-A: "{request.method}"}}`, []string{"X-A: 1"}, []string{"X-A: 1", "X-A: GET"}},
		{"add of nothing adds nothing", `{add: {X-A: "{header.x-none}"}}`, []string{"X-A: 1"}, []string{"X-A: 1"}},
		{"the order is remove, rename, set, add", `{add: {X-A: "4"}, set: {X-B: "3"}, rename: {X-A: X-B}, remove: [X-C]}`,
			[]string{"X-A: 1", "X-C: 2"}, []string{"X-B: 3", "X-A: 4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := policytest.Open(t, Kind, `{request: `+c.edits+`}`)
			x := b.Exchange("GET /", c.in...)
			x.Consumer = &exchange.Consumer{Name: "ada"}
			b.Hooks.Request.Now(x)
			if got := policytest.Lines(&x.Request.Header); !slices.Equal(got, c.want) {
				t.Errorf("the request has %q, want %q", got, c.want)
			}
			if b.Hooks.Response.Now != nil {
				t.Error("the reply is touched")
			}
			if strings.Contains(c.edits, "header.") {
				return // of the request
			}
			b = policytest.Open(t, Kind, `{response: `+c.edits+`}`)
			policytest.Fill(&x.Reply.Header, c.in...)
			b.Hooks.Response.Now(x)
			if got := policytest.Lines(&x.Reply.Header); !slices.Equal(got, c.want) {
				t.Errorf("the reply has %q, want %q", got, c.want)
			}
		})
	}
}

func TestNoTemplateBringsALineBreakOrControlIntoAHeader(t *testing.T) {
	b := policytest.Open(t, Kind, `{request: {set: {X-A: "a{path.id}b"}, add: {X-B: "{path.id}"}}}`)
	rapid.Check(t, func(t *rapid.T) {
		x := b.Exchange("GET /", "X-A: forged")
		x.Params = []exchange.Param{{Name: "id", Value: rapid.String().Draw(t, "captured")}}
		b.Hooks.Request.Now(x)
		for name, value := range x.Request.Header.All() {
			if !exchange.ValidValue(value) || strings.ContainsAny(value, "\r\n\x00") || value == "forged" {
				t.Fatalf("%s: %q", name, value)
			}
		}
	})
}

func TestAValueThatCannotBeIsLeftOutCountedAndLogged(t *testing.T) {
	for _, bad := range []string{"a\r\nSet-Cookie: b", "a\nb", "a\x00b", "a\x7fb", strings.Repeat("x", 9000)} {
		b := policytest.Open(t, Kind, `{request: {set: {X-A: "{path.id}"}}}`)
		x := b.Exchange("GET /", "X-A: forged", "X-B: 2")
		x.Params = []exchange.Param{{Name: "id", Value: bad}}
		b.Hooks.Request.Now(x)
		if got := policytest.Lines(&x.Request.Header); !slices.Equal(got, []string{"X-B: 2"}) {
			t.Errorf("%.20q: the request has %q", bad, got)
		}
		if n := b.Count("headgate_headers_dropped_total"); n != 1 {
			t.Errorf("%.20q: counted %d times", bad, n)
		}
		if log := b.Log.String(); !strings.Contains(log, "field=X-A") || strings.Contains(log, "Set-Cookie") {
			t.Errorf("%.20q: logged %q, want the field's name without its value", bad, log)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{`{request: {set: {"X A": b}}}`, `"X A" is not a name of a header field`},
		{`{request: {set: {host: b}}}`, `host cannot be changed here: the upstream is asked for another host by`},
		{`{response: {remove: [Content-Length]}}`, `Content-Length cannot be changed here: the gateway writes it to fit the body`},
		{`{request: {rename: {X-A: transfer-encoding}}}`, `transfer-encoding cannot be changed here`},
		{`{response: {add: {Connection: close}}}`, `Connection cannot be changed here`},
		{`{request: {rename: {X-A: X-B, X-B: X-C}}}`, `X-B is renamed itself`},
		{`{request: {rename: {X-A: X-B, x-a: X-C}}}`, `is renamed itself`},
		{`{request: {set: {X-A: a, x-a: b}}}`, `x-a stands here twice`},
		{`{request: {set: {X-A: ""}}}`, `the value is empty; remove: [X-A] takes a field out`},
		{`{request: {set: {X-A: "a\nb"}}}`, `"a\nb" cannot be the value of a header field`},
		{`{request: {set: {X-A: " a"}}}`, `" a" cannot be the value of a header field`},
		{`{request: {set: {X.A: "{nothing}"}}}`, `nothing`},
		{`{request: {remove: ["*"]}}`, `"*" would take out more than can be meant`},
		{`{request: {remove: ["X-*-A"]}}`, `"X-*-A" would take out more than can be meant`},
		{`{request: {sett: {}}}`, `did you mean "set"`},
	} {
		if got := policytest.Wrong(t, Kind, c.options); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want something with %q", c.options, got, c.want)
		}
	}
}

func TestFixedValuesCostNoAllocation(t *testing.T) {
	b := policytest.Open(t, Kind, `{request: {remove: [X-A, "X-Internal-*"], rename: {X-B: X-C}, set: {X-D: d}, add: {X-E: e}}}`)
	x := b.Exchange("GET /")
	var source exchange.Header
	policytest.Fill(&source, "X-A: 1", "X-B: 2", "X-Internal-C: 3", "X-D: 4", "Y: 5")
	x.Request.Header.CopyFrom(&source)
	b.Hooks.Request.Now(x)
	if n := testing.AllocsPerRun(100, func() {
		x.Request.Header.CopyFrom(&source)
		b.Hooks.Request.Now(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
