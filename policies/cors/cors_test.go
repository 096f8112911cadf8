package cors

import (
	"slices"
	"strings"
	"testing"

	"headgate/gateway/exchange"
	"headgate/gateway/policy/policytest"
)

// fields returns the lines of a reply that belong to the protocol.
func fields(h *exchange.Header) []string {
	return slices.DeleteFunc(policytest.Lines(h), func(line string) bool {
		return !strings.HasPrefix(line, "Access-Control-") && !strings.HasPrefix(line, "Vary")
	})
}

func TestWhatAPageGetsToRead(t *testing.T) {
	const one = `{origins: ["https://a.example", "https://*.b.example"], expose: [ETag, X-Total]}`
	for _, c := range []struct {
		name, options, origin string
		upstream              []string
		want                  []string
	}{
		{"an origin that may", one, "https://a.example", nil,
			[]string{"Vary: Origin", "Access-Control-Allow-Origin: https://a.example", "Access-Control-Expose-Headers: ETag, X-Total"}},
		{"one below a domain that may", one, "https://x.y.b.example", nil,
			[]string{"Vary: Origin", "Access-Control-Allow-Origin: https://x.y.b.example", "Access-Control-Expose-Headers: ETag, X-Total"}},
		{"the domain itself may not", one, "https://b.example", nil, []string{"Vary: Origin"}},
		{"another may not", one, "https://c.example", nil, []string{"Vary: Origin"}},
		{"no origin", one, "", nil, []string{"Vary: Origin"}},
		{"what the upstream says is replaced", one, "https://a.example",
			[]string{"access-control-allow-origin: *", "Access-Control-Allow-Credentials: true", "Vary: Accept"},
			[]string{"Vary: Accept, Origin", "Access-Control-Allow-Origin: https://a.example", "Access-Control-Expose-Headers: ETag, X-Total"}},
		{"what the upstream says is not for those who may not", one, "https://c.example",
			[]string{"Access-Control-Allow-Origin: *"}, []string{"Vary: Origin"}},
		{"Vary is not written twice", one, "", []string{"Vary: Accept, ORIGIN"}, []string{"Vary: Accept, ORIGIN"}},
		{"Vary * says it all", one, "", []string{"Vary: *"}, []string{"Vary: *"}},
		{"everybody gets the same", `{origins: ["*"]}`, "https://x.example", nil, []string{"Access-Control-Allow-Origin: *"}},
		{"and no origin nothing", `{origins: ["*"]}`, "", []string{"Access-Control-Allow-Origin: *"}, nil},
		{"credentials", `{origins: ["https://a.example"], credentials: true}`, "https://a.example", nil,
			[]string{"Vary: Origin", "Access-Control-Allow-Origin: https://a.example", "Access-Control-Allow-Credentials: true"}},
		{"a page without an origin of its own", `{origins: ["null"]}`, "null", nil,
			[]string{"Vary: Origin", "Access-Control-Allow-Origin: null"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := policytest.Open(t, Kind, c.options)
			x := b.Exchange("GET /orders")
			if c.origin != "" {
				x.Request.Header.Add("Origin", c.origin)
			}
			out := b.Run(x, policytest.Reply(200, "text/plain", "hello", c.upstream...))
			if got := fields(out.Header); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestPreflightsAreAnsweredHere(t *testing.T) {
	const vary = "Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
	const varyAll = "Vary: Access-Control-Request-Method, Access-Control-Request-Headers"
	for _, c := range []struct {
		name, options string
		request, want []string
	}{
		{"the whole lists", `{origins: ["https://a.example"], methods: [PUT, DELETE], headers: [X-A, X-B], max_age: 1h}`,
			[]string{"Origin: https://a.example", "Access-Control-Request-Method: PUT"},
			[]string{vary, "Access-Control-Allow-Origin: https://a.example", "Access-Control-Allow-Methods: PUT, DELETE",
				"Access-Control-Allow-Headers: X-A, X-B", "Access-Control-Max-Age: 3600"}},
		{"another origin", `{origins: ["https://a.example"]}`,
			[]string{"Origin: https://b.example", "Access-Control-Request-Method: PUT"}, []string{vary}},
		{"two origins", `{origins: ["https://a.example"]}`,
			[]string{"Origin: https://a.example", "Origin: https://b.example", "Access-Control-Request-Method: PUT"}, []string{vary}},
		{"any method and field", `{origins: ["*"], methods: ["*"], headers: ["*"], max_age: 0s}`,
			[]string{"Origin: https://b.example", "Access-Control-Request-Method: PURGE", "Access-Control-Request-Headers: authorization,x-y"},
			[]string{varyAll, "Access-Control-Allow-Origin: *", "Access-Control-Allow-Methods: PURGE",
				"Access-Control-Allow-Headers: authorization,x-y", "Access-Control-Max-Age: 0"}},
		{"what is no list of names is not sent back", `{origins: ["*"], methods: ["*"], headers: ["*"]}`,
			[]string{"Origin: https://b.example", "Access-Control-Request-Method: A B", "Access-Control-Request-Headers: a, <b>"},
			[]string{varyAll, "Access-Control-Allow-Origin: *", "Access-Control-Max-Age: 600"}},
		{"a private network", `{origins: ["https://a.example"], private_network: true, methods: [GET], headers: []}`,
			[]string{"Origin: https://a.example", "Access-Control-Request-Method: GET", "Access-Control-Request-Private-Network: true"},
			[]string{vary + ", Access-Control-Request-Private-Network", "Access-Control-Allow-Origin: https://a.example",
				"Access-Control-Allow-Methods: GET", "Access-Control-Max-Age: 600", "Access-Control-Allow-Private-Network: true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := policytest.Open(t, Kind, c.options)
			out := b.Run(b.Exchange("OPTIONS /orders", c.request...), policytest.Reply(500, "", ""))
			if out.Asked || out.Status != 204 || out.Body != "" {
				t.Errorf("upstream asked %v, %d %q; want 204 from the gateway", out.Asked, out.Status, out.Body)
			}
			if got := fields(out.Header); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestAnOptionsRequestThatIsNoPreflightGoesOn(t *testing.T) {
	b := policytest.Open(t, Kind, `{origins: ["*"]}`)
	for _, header := range [][]string{{"Origin: https://a.example"}, {"Access-Control-Request-Method: PUT"}, {}} {
		if out := b.Run(b.Exchange("OPTIONS /orders", header...), policytest.Reply(200, "", "")); !out.Asked {
			t.Errorf("%q: the upstream was not asked", header)
		}
	}
}

func TestErrorsOfTheGatewayCanBeReadByThePageToo(t *testing.T) {
	b := policytest.Open(t, Kind, `{origins: ["https://a.example"]}`)
	x := b.Exchange("GET /orders", "Origin: https://a.example")
	x.Problem(exchange.UpstreamTimeout, "")
	b.Hooks.Response.Now(x)
	if got := x.Reply.Header.Get(allowOrigin); got != "https://a.example" {
		t.Errorf("%s: %q", allowOrigin, got)
	}
}

func TestOnlyHostsBelowTheDomainMatchAPattern(t *testing.T) {
	o, err := parseOrigin("https://*.example.com")
	if err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]bool{
		"https://a.example.com": true, "https://a-1.b_2.example.com": true,
		"https://example.com": false, "https://.example.com": false, "https://a..example.com": false, "https://..example.com": false,
		"http://a.example.com": false, "https://aexample.com": false, "https://a.example.com.evil": false,
		"https://a.example.com:8443": false, "https://evil/.example.com": false, "https://evil#.example.com": false,
		"https://evil@a.example.com": false, "https://evil:1.example.com": false, "https://A.example.com": false,
		"https://a.example.com ": false, "https://" + strings.Repeat("a", 300) + ".example.com": false,
	} {
		if got := o.below.matches(origin); got != want {
			t.Errorf("%s: %v, want %v", origin, got, want)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{`{}`, "origins is missing"},
		{`{origins: ["a.example"]}`, `"a.example" is not an origin; write a scheme and a host`},
		{`{origins: ["https://a.example/shop"]}`, `has more than an origin, which ends after the host and port: https://a.example`},
		{`{origins: ["https://a.example:443"]}`, `browsers leave out the default port; write https://a.example`},
		{`{origins: ["https://a.*.example"]}`, `has a * in a place where it means nothing`},
		{`{origins: ["*", "https://a.example"]}`, `"*" stands beside other origins`},
		{`{origins: ["*"], credentials: true}`, `credentials with origin "*" would let every web page act as its visitors`},
		{`{origins: ["null"], credentials: true}`, `credentials with origin "null"`},
		{`{origins: ["*"], methods: ["A B"]}`, `"A B" is not a name`},
		{`{origins: ["*"], headers: [""]}`, `"" is not a name`},
		{`{origins: ["*"], expose: ["a,b"]}`, `"a,b" is not a name`},
	} {
		if got := policytest.Wrong(t, Kind, c.options); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want something with %q", c.options, got, c.want)
		}
	}
}

func TestAReplyToAPageCostsNoAllocation(t *testing.T) {
	b := policytest.Open(t, Kind, `{origins: ["https://*.example.com"], credentials: true, expose: [ETag]}`)
	x := b.Exchange("GET /orders", "Origin: https://app.example.com")
	if n := testing.AllocsPerRun(100, func() {
		x.Reply.Header.Reset("")
		b.Hooks.Request.Now(x)
		b.Hooks.Response.Now(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
