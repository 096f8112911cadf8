package ipfilter

import (
	"net/netip"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

func open(t testing.TB, options string) (policy.Hooks, decode.Problems) {
	t.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(options), &node); err != nil {
		t.Fatal(err)
	}
	return Kind.Build(node.Content[0], policy.Env{})
}

func TestWhoMayCall(t *testing.T) {
	for _, c := range []struct {
		name, options string
		admitted      string
		refused       string
	}{
		{"nothing said", "{}", "192.0.2.1 2001:db8::1 ::ffff:192.0.2.1 unknown", ""},
		{"an address", "{allow: [192.0.2.1]}", "192.0.2.1 ::ffff:192.0.2.1", "192.0.2.2 2001:db8::1 unknown"},
		{"a range", "{allow: [192.0.2.0/24]}", "192.0.2.0 192.0.2.255", "192.0.3.0 192.0.1.255"},
		{"denied", "{deny: [192.0.2.0/24]}", "192.0.3.1 2001:db8::1", "192.0.2.1 ::ffff:192.0.2.1 unknown"},
		{"deny wins", "{allow: [192.0.2.7], deny: [192.0.2.0/24]}", "", "192.0.2.7 192.0.3.1"},
		{"a range written mapped", `{allow: ["::ffff:192.0.2.0/120"]}`, "192.0.2.1 ::ffff:192.0.2.1", "192.0.3.1"},
		{"an address written mapped", `{deny: ["::ffff:192.0.2.1"]}`, "192.0.2.2", "192.0.2.1 ::ffff:192.0.2.1"},
		{"IPv6", `{allow: ["2001:db8::/32", "fe80::/10"]}`, "2001:db8:1::1 fe80::1%eth0", "2001:db9::1 192.0.2.1"},
		{"every IPv4", "{deny: [0.0.0.0/0]}", "2001:db8::1", "192.0.2.1 ::ffff:192.0.2.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hooks, problems := open(t, c.options)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			ask := func(addresses string, admitted bool) {
				for a := range strings.FieldsSeq(addresses) {
					x := &exchange.Exchange{}
					if a != "unknown" {
						x.Client.IP = netip.MustParseAddr(a)
					}
					if v := hooks.Request.Now(x); v.Continues() != admitted {
						t.Errorf("%s: admitted %v, want %v", a, v.Continues(), admitted)
					}
					if !admitted && (x.Reply.Status != 403 || x.Err.Code != addressForbidden) {
						t.Errorf("%s: answered %d", a, x.Reply.Status)
					}
				}
			}
			ask(c.admitted, true)
			ask(c.refused, false)
		})
	}
}

func TestStatus404LooksLikeNoAPI(t *testing.T) {
	hooks, problems := open(t, "{allow: [192.0.2.1], status: 404}")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	x, nothing := &exchange.Exchange{}, &exchange.Exchange{}
	hooks.Request.Now(x)
	nothing.Problem(exchange.RouteNotFound, "")
	if x.Reply.Status != 404 || x.Reply.Body.Length != nothing.Reply.Body.Length {
		t.Errorf("answered %d with %d bytes", x.Reply.Status, x.Reply.Body.Length)
	}
}

func TestEveryWrongEntryIsReportedAtItsPlace(t *testing.T) {
	_, problems := open(t, `{allow: [192.0.2.1, 192.0.2.300], deny: [192.0.2.5/24, "fe80::1%eth0"], status: 418}`)
	var got []string
	for _, p := range problems {
		got = append(got, p.Message)
	}
	if len(got) == 1 && strings.Contains(got[0], "418") { // tags are checked first
		_, problems = open(t, `{allow: [192.0.2.1, 192.0.2.300], deny: [192.0.2.5/24, "fe80::1%eth0"]}`)
		got = nil
		for _, p := range problems {
			got = append(got, p.Message)
		}
	}
	want := []string{
		`"192.0.2.300" is not an address or range; write 192.0.2.7, 192.0.2.0/24, 2001:db8::7 or 2001:db8::/32`,
		`"192.0.2.5/24" has bits behind its prefix; write 192.0.2.0/24 for the range or 192.0.2.5 for the address`,
		`"fe80::1%eth0" is not an address or range; write 192.0.2.7, 192.0.2.0/24, 2001:db8::7 or 2001:db8::/32`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestTableAgreesWithTheRanges compares with the plain reading: some allowed range contains the address and no denied one does.
func TestTableAgreesWithTheRanges(t *testing.T) {
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		b := rapid.SliceOfN(rapid.ByteRange(0, 3), 4, 4).Draw(t, "bytes")
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), rapid.IntRange(0, 32).Draw(t, "bits")).Masked()
	})
	rapid.Check(t, func(t *rapid.T) {
		allow, deny := rapid.SliceOf(prefix).Draw(t, "allow"), rapid.SliceOf(prefix).Draw(t, "deny")
		c := Config{}
		contained := func(list []netip.Prefix, into *[]string, ip netip.Addr) (in bool) {
			for _, p := range list {
				*into = append(*into, p.String())
				in = in || p.Contains(ip)
			}
			return in
		}
		ip := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.ByteRange(0, 3), 4, 4).Draw(t, "ip")))
		allowed, denied := contained(allow, &c.Allow, ip), contained(deny, &c.Deny, ip)
		f, err := compile(c)
		if err != nil {
			t.Fatal(err)
		}
		if want := !denied && (allowed || len(allow) == 0); f.admits(ip) != want {
			t.Fatalf("%s: got %v, want %v", ip, !want, want)
		}
	})
}

func TestAdmittingAllocatesNothing(t *testing.T) {
	hooks, _ := open(t, "{allow: [192.0.2.0/24], deny: [192.0.2.7]}")
	x := &exchange.Exchange{}
	x.Client.IP = netip.MustParseAddr("::ffff:192.0.2.1")
	if n := testing.AllocsPerRun(100, func() {
		if !hooks.Request.Now(x).Continues() {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
