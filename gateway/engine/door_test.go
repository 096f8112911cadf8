package engine

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// knock sends a request with the given header lines from a peer through a door that trusts 10.0.0.0/8 and fd00::/8.
func knock(forwarded, peer string, lines ...string) (*exchange.Exchange, bool) {
	d := NewDoor("main", model.Listener{Forwarded: forwarded},
		[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")})
	x := &exchange.Exchange{}
	x.Client.Peer = netip.AddrPortFrom(netip.MustParseAddr(peer), 4711)
	x.Client.Addr = peer
	x.Request.Scheme, x.Request.Host = "http", "shop.example:8080"
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		x.Request.Header.Add(name, value)
	}
	return x, d.receive(x)
}

// heard returns what the upstream is told, apart from Via.
func heard(x *exchange.Exchange) string {
	x.Request.Header.Del("Via")
	return strings.TrimSpace(strings.ReplaceAll(string(x.Request.Header.AppendTo(nil)), "\r\n", "\n"))
}

func TestWhatAnUnknownPeerClaimsIsReplaced(t *testing.T) {
	claims := []string{
		"X-Forwarded-For: 1.2.3.4", "x-forwarded-proto: https", "X-Forwarded-Host: evil", "X-Forwarded-Port: 1",
		"X-Forwarded-Prefix: /evil", "X-Forwarded-Server: evil", "x-headgate-mirror: 1", "X-Real-IP: 1.2.3.4",
		"Forwarded: for=1.2.3.4;proto=https",
	}
	for _, test := range []struct{ mode, peer, want string }{
		{"x-forwarded", "203.0.113.9", "A: b\nX-Forwarded-For: 203.0.113.9\nX-Forwarded-Proto: http\nX-Forwarded-Host: shop.example:8080"},
		{"rfc7239", "203.0.113.9", `A: b` + "\n" + `Forwarded: for=203.0.113.9;host="shop.example:8080";proto=http`},
		{"rfc7239", "2001:db8::7", `A: b` + "\n" + `Forwarded: for="[2001:db8::7]";host="shop.example:8080";proto=http`},
		{"both", "203.0.113.9", "A: b\nX-Forwarded-For: 203.0.113.9\nX-Forwarded-Proto: http\nX-Forwarded-Host: shop.example:8080\n" +
			`Forwarded: for=203.0.113.9;host="shop.example:8080";proto=http`},
		{"none", "203.0.113.9", "A: b"},
	} {
		for _, lines := range [][]string{{"A: b"}, append([]string{"A: b"}, claims...)} {
			x, ok := knock(test.mode, test.peer, lines...)
			if got := heard(x); !ok || got != test.want {
				t.Errorf("%s: the upstream hears\n%s\nwant\n%s", test.mode, got, test.want)
			}
			if x.Client.Trusted || x.Client.Secure || x.Client.IP.String() != test.peer || x.Request.Scheme != "http" {
				t.Errorf("%s: %+v", test.mode, x.Client)
			}
		}
	}
}

func TestATrustedProxySaysWhoTheClientIs(t *testing.T) {
	for _, test := range []struct {
		name   string
		lines  []string
		client string
		scheme string
	}{
		{"nothing", nil, "10.0.0.1", "http"},
		{"one", []string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"}, "203.0.113.9", "https"},
		{"the last one that is not a trusted proxy", []string{"X-Forwarded-For: 1.1.1.1, 203.0.113.9, 10.2.2.2"}, "203.0.113.9", "http"},
		{"over several lines", []string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 10.2.2.2,10.3.3.3"}, "203.0.113.9", "http"},
		{"only trusted ones", []string{"X-Forwarded-For: 10.9.9.9, 10.2.2.2"}, "10.9.9.9", "http"},
		{"nobody behind what cannot be read", []string{"X-Forwarded-For: 203.0.113.9, unknown, 10.2.2.2"}, "10.2.2.2", "http"},
		{"with ports", []string{"X-Forwarded-For: 203.0.113.9:55"}, "203.0.113.9", "http"},
		{"IPv6", []string{"X-Forwarded-For: 2001:db8::1, fd00::2"}, "2001:db8::1", "http"},
		{"IPv6 in brackets", []string{"X-Forwarded-For: [2001:db8::1]:99"}, "2001:db8::1", "http"},
		{"IPv4 in IPv6 is IPv4", []string{"X-Forwarded-For: 203.0.113.9, ::ffff:10.2.2.2"}, "203.0.113.9", "http"},
		{"a scheme that there is not", []string{"X-Forwarded-Proto: gopher"}, "10.0.0.1", "http"},
		{"RFC 7239", []string{`Forwarded: for=203.0.113.9;proto=https;host=a, for=10.2.2.2;proto=http`}, "203.0.113.9", "https"},
		{"RFC 7239, spelled otherwise", []string{`Forwarded: PROTO=HTTPS; For="[2001:db8::1]:4711"`}, "2001:db8::1", "https"},
		{"RFC 7239, hidden", []string{"Forwarded: for=203.0.113.9, for=_hidden, for=10.2.2.2"}, "10.2.2.2", "http"},
		{"RFC 7239, an element that names nobody", []string{"Forwarded: for=203.0.113.9, proto=http"}, "10.0.0.1", "http"},
		{"a host that looks like an element", []string{`Forwarded: for=203.0.113.9;host="a,for=10.6.6.6"`}, "203.0.113.9", "http"},
		{"a host that looks like a parameter", []string{`Forwarded: for=203.0.113.9;host="a;for=10.6.6.6"`}, "203.0.113.9", "http"},
		{"a host with a quote in it", []string{`Forwarded: for=203.0.113.9;host="a\",for=10.6.6.6"`}, "203.0.113.9", "http"},
		{"a quote that the client left open", []string{`Forwarded: for="1.1.1.1, for=203.0.113.9`}, "203.0.113.9", "http"},
		{"X-Forwarded-For goes first", []string{"X-Forwarded-For: 203.0.113.9", "Forwarded: for=1.1.1.1"}, "203.0.113.9", "http"},
	} {
		t.Run(test.name, func(t *testing.T) {
			x, _ := knock("both", "10.0.0.1", test.lines...)
			if !x.Client.Trusted || x.Client.IP.String() != test.client || x.Request.Scheme != test.scheme {
				t.Errorf("%v by %s, want %s by %s", x.Client.IP, x.Request.Scheme, test.client, test.scheme)
			}
			if x.Client.Secure != (test.scheme == "https") {
				t.Error("secure or not?")
			}
		})
	}
}

func TestWhatATrustedProxyToldIsHandedOnWithTheProxyBehindIt(t *testing.T) {
	for _, test := range []struct {
		mode  string
		lines []string
		want  string
	}{
		{"x-forwarded", []string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop"},
			"X-Forwarded-For: 203.0.113.9, 10.0.0.1\nX-Forwarded-Proto: https\nX-Forwarded-Host: shop"},
		{"x-forwarded", []string{"X-Forwarded-For: a", "X-Forwarded-For: b"},
			"X-Forwarded-For: a, b, 10.0.0.1\nX-Forwarded-Proto: http\nX-Forwarded-Host: shop.example:8080"},
		{"rfc7239", []string{"Forwarded: for=203.0.113.9"},
			`Forwarded: for=203.0.113.9, for=10.0.0.1;host="shop.example:8080";proto=http`},
		{"none", []string{"X-Forwarded-For: 203.0.113.9"}, "X-Forwarded-For: 203.0.113.9"},
	} {
		x, _ := knock(test.mode, "10.0.0.1", test.lines...)
		if got := heard(x); got != test.want {
			t.Errorf("%s: the upstream hears\n%s\nwant\n%s", test.mode, got, test.want)
		}
	}
}

// No list that a client sends ahead changes who the client is, as long as the trusted proxy appends its address.
func TestAClientCannotChooseItsAddress(t *testing.T) {
	piece := rapid.SampledFrom([]string{`"`, `\`, ",", ";", "for=", "10.6.6.6", "host=", " ", "unknown", "[", "::1"})
	rapid.Check(t, func(rt *rapid.T) {
		sent := strings.Join(rapid.SliceOf(piece).Draw(rt, "sent"), "")
		host := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{",", ";", "for=10.6.6.6", "=", "a"})).Draw(rt, "host"), "")
		for _, line := range []string{
			"X-Forwarded-For: " + sent + ", 203.0.113.9", "Forwarded: " + sent + `, for=203.0.113.9;host="` + host + `"`,
		} {
			if x, _ := knock("both", "10.0.0.1", line); x.Client.IP.String() != "203.0.113.9" {
				rt.Fatalf("%s: %v", line, x.Client.IP)
			}
		}
	})
}

func TestViaNamesTheGatewayAndStopsLoops(t *testing.T) {
	x, ok := knock("none", "203.0.113.9")
	if got := x.Request.Header.Joined("Via"); !ok || got != "1.1 headgate" {
		t.Errorf("%q, %v", got, ok)
	}
	x, ok = knock("none", "203.0.113.9", "Via: 1.0 fred", "Via: 1.1 p.example")
	if got := x.Request.Header.Joined("Via"); !ok || got != "1.0 fred, 1.1 p.example, 1.1 headgate" {
		t.Errorf("%q, %v", got, ok)
	}
	passes := 0
	for lines := []string(nil); passes <= maxVia; passes++ { // a service that sends everything back
		if x, ok = knock("none", "203.0.113.9", lines...); !ok {
			break
		}
		lines = []string{"Via: " + x.Request.Header.Joined("Via")}
	}
	if passes != maxVia {
		t.Errorf("stopped after %d passes, want %d", passes, maxVia)
	}
}
