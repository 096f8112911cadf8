package compile

import (
	"slices"
	"strings"
	"testing"

	"headgate/config/decode"
)

const tcpDocument = `
listeners:
  db: {address: ":5432", tcp: {upstream: db, connections_per_second: 10}}
  pass:
    address: ":8443"
    tcp: {by_sni: [{names: [a.example, "*.b.example"], upstream: a}, {names: [x.b.example], upstream: x}], upstream: rest}
  strict: {address: ":8444", tcp: {by_sni: [{names: [a.example], upstream: a}]}}
upstreams: {db: "tcp://127.0.0.1:1", a: "tcp://127.0.0.1:2", x: "tcp://127.0.0.1:3", rest: "http://127.0.0.1:4"}
`

func TestAConnectionGoesWhereItsNameLeads(t *testing.T) {
	w := newWorld(t)
	s := w.load(tcpDocument)
	for _, c := range []struct{ listener, name, upstream string }{
		{"db", "", "db"}, {"db", "anything", "db"},
		{"pass", "a.example", "a"}, {"pass", "one.b.example", "a"}, {"pass", "one.two.b.example", "a"}, {"pass", "x.b.example", "x"},
		{"pass", "b.example", "rest"}, {"pass", ".b.example", "rest"}, {"pass", "", "rest"}, {"pass", "other", "rest"},
		{"strict", "a.example", "a"}, {"strict", "b.example", ""}, {"strict", "", ""},
	} {
		got := ""
		if way := s.Doors[c.listener].TCP.Find(c.name); way != nil {
			got = way.Upstream.Name
			if way.Info.Name != c.listener || way.Info.Upstream != got || way.Meter == nil {
				t.Errorf("%+v", way)
			}
		}
		if e, err := ExplainConnection(s, c.listener, c.name); got != c.upstream || e.Upstream != got || err != nil {
			t.Errorf("%s, %q: %q, explained as %+v, %v; want %q", c.listener, c.name, got, e, err, c.upstream)
		}
	}
	var names []string
	for _, u := range s.Upstreams() {
		names = append(names, u.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"a", "db", "rest", "x"}) {
		t.Errorf("the snapshot's upstreams are %q", names)
	}
	limits := []string{"idle 10m", "10 new per second from one address", "65536 open"}
	if e, _ := ExplainConnection(s, "db", ""); !slices.Equal(e.Limits, limits) {
		t.Errorf("%q", e.Limits)
	}
	for _, listener := range []string{"dp", "http"} {
		if _, err := ExplainConnection(s, listener, ""); err == nil {
			t.Errorf("%s is explained", listener)
		}
	}
}

func TestMistakesOfTCPListenersAreTold(t *testing.T) {
	w := newWorld(t)
	const upstreams = "\nupstreams: {db: \"tcp://127.0.0.1:1\", enc: \"tls://127.0.0.1:2\", web: \"https://127.0.0.1:3\"}\n"
	for _, c := range []struct{ door, problem string }{
		{`tcp: {}`, `listeners.a.tcp: the listener leads nowhere; write upstream or by_sni; there are db, enc, web [missing_upstream]`},
		{`tcp: {upstream: dp}`, `listeners.a.tcp.upstream: there is no upstream "dp"; there are db, enc, web [unknown_upstream]`},
		{`tcp: {upstream: db}, protocols: [h1]`,
			`listeners.a.protocols: protocols is versions of HTTP, and a listener with tcp speaks none [exclusive_keys]`},
		{`tcp: {upstream: db}, redirect_to_https: {}`,
			`listeners.a.redirect_to_https: redirect_to_https is an answer of HTTP, and a listener with tcp gives none [exclusive_keys]`},
		{`tcp: {upstream: db}, trusted_proxies: [10.0.0.1]`, `listeners.a.trusted_proxies: trusted_proxies is about header fields, ` +
			`and a listener with tcp reads none; a load balancer tells the client by proxy_protocol [exclusive_keys]`},
		{`tcp: {upstream: db}, tls: {internal: [localhost], hsts: {}}`,
			`listeners.a.tls.hsts: hsts is a header field, and a listener with tcp sends none [exclusive_keys]`},
		{`tcp: {by_sni: [{names: [a.example], upstream: db}]}, tls: {internal: [localhost]}`,
			`listeners.a.tcp.by_sni: by_sni is for TLS that is passed on undecrypted, and tls beside it decrypts; leave one out [exclusive_keys]`},
		{`tcp: {by_sni: [{names: ["https://a"], upstream: db}]}`, `listeners.a.tcp.by_sni[0].names[0]: "https://a" is not a name ` +
			`that a TLS client can ask for; write it without scheme and port, such as db.example.com or *.example.com, and letters outside ASCII ` +
			`in their xn-- form [invalid_value]`},
		{`tcp: {by_sni: [{names: [10.0.0.1], upstream: db}]}`, `is not a name that a TLS client can ask for`},
		{`tcp: {by_sni: [{names: [a.example], upstream: db}, {names: [A.Example.], upstream: db}]}`,
			`listeners.a.tcp.by_sni[1].names[0]: "A.Example." stands in the list already; a name leads to one upstream [invalid_value]`},
		{`tcp: {by_sni: [{names: [a.example], upstream: enc}]}`, `listeners.a.tcp.by_sni[0].upstream: connections chosen by name are TLS already, ` +
			`and the targets of "enc" would have them encrypted twice; write tcp://host:port [invalid_value]`},
		{`tcp: {upstream: db}, proxy_protocol: {from: [nonsense]}`,
			`listeners.a.proxy_protocol.from[0]: "nonsense" is neither an address nor a CIDR range; write 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32`},
	} {
		problems := w.refuse("listeners: {a: {address: \":1\", " + c.door + "}}" + upstreams)
		if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, c.problem) }) {
			t.Errorf("%s\n got %s\nwant %s", c.door, strings.Join(problems, "\n     "), c.problem)
		}
	}
	for _, door := range []string{`tcp: {upstream: web}`, `tcp: {upstream: enc}`} {
		s, _, problems := w.Load(document("listeners: {a: {address: \":1\", " + door + "}}" + upstreams))
		if len(problems) > 0 {
			t.Errorf("%s: %v", door, problems)
			continue
		}
		for _, f := range s.OnClose {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	}
	problems := w.refuse("apis: {shop: {upstream: db, routes: {a: {match: /a}, b: {match: /b}}}}" + upstreams)
	if len(problems) != 1 || !strings.Contains(problems[0], `apis.shop.upstream: the targets of "db" carry bytes and no HTTP`) {
		t.Errorf("%q", problems)
	}
}

func document(text string) []decode.File {
	return []decode.File{{Name: "gate.yaml", Data: []byte(text)}}
}
