package upstream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"headgate/config/model"
	"headgate/gateway/exchange"
)

// proxySignature begins a header of version 2.
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// overTCP makes the targets of a document ones that carry bytes.
func overTCP(m *model.Upstream) {
	for i := range m.Targets {
		m.Targets[i].URL = strings.Replace(m.Targets[i].URL, "http://", "tcp://", 1)
	}
}

// echo sends back what comes.
func echo(_ *origin, c net.Conn) { _, _ = io.Copy(c, c) }

func TestAConnectionOfBytesIsOpenedToATarget(t *testing.T) {
	o := serve(t, echo)
	u := build(t, env(io.Discard), config(overTCP, o.address()))
	x := ask0()
	c, release, err := u.Dial(x)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s := u.Status().Targets[0]; s.InFlight != 1 || !u.Raw() || x.Usage.Target != o.address() || x.Usage.Attempts != 1 {
		t.Errorf("%+v, %+v", s, x.Usage)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if n, err := c.Read(got); string(got[:n]) != "hello" || err != nil {
		t.Errorf("%q, %v", got[:n], err)
	}
	release()
	release() // twice does no harm
	if n := u.Status().Targets[0].InFlight; n != 0 {
		t.Errorf("%d in flight", n)
	}
}

func TestDialPassesOverATargetThatCannotBeReachedAndEjectsIt(t *testing.T) {
	o := serve(t, echo)
	u := build(t, env(io.Discard), config(func(m *model.Upstream) {
		overTCP(m)
		m.Balance.Algorithm, m.Ejection.Failures = "round-robin", 2
	}, refusing(t), o.address()))
	for range 6 {
		c, release, err := u.Dial(ask0())
		if err != nil {
			t.Fatal(err)
		}
		release()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if s := u.Status().Targets; s[0].State != "ejected" || s[1].State != "available" {
		t.Errorf("%+v", s)
	}
}

func TestDialSaysWhyThereIsNoConnection(t *testing.T) {
	u := build(t, env(io.Discard), config(overTCP, refusing(t)))
	x := ask0()
	_, _, err := u.Dial(x)
	var e *exchange.Error
	if !errors.As(err, &e) || e.Code != exchange.UpstreamUnreachable || x.Usage.Attempts != 1 || u.Status().Targets[0].Failures != 1 {
		t.Errorf("%v, %+v", err, x.Usage)
	}
	x = ask0()
	x.Cancel.Cancel()
	if _, _, err := u.Dial(x); !errors.As(err, &e) || e.Code != exchange.ClientGone || u.Status().Targets[0].Failures != 1 {
		t.Errorf("a client that is gone: %v", err)
	}
}

// What a target is told in front of everything else, byte for byte (PROXY protocol, versions 1 and 2).
func TestTheTargetIsToldTheClientsAddress(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:4711"), netip.MustParseAddrPort("[2001:db8::1]:4711")
	local4, local6 := netip.MustParseAddrPort("198.51.100.7:443"), netip.MustParseAddrPort("[2001:db8::7]:443")
	for _, test := range []struct {
		name, version string
		client        exchange.Client
		want          string
	}{
		{"v1 over IPv4", "v1", exchange.Client{Peer: v4, Local: local4}, "PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\n"},
		{"v1 over IPv6", "v1", exchange.Client{Peer: v6, Local: local6}, "PROXY TCP6 2001:db8::1 2001:db8::7 4711 443\r\n"},
		{"v1, of two families", "v1", exchange.Client{Peer: v6, Local: local4}, "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.7 4711 443\r\n"},
		{"v1, behind a trusted proxy, whose port is not the client's", "v1",
			exchange.Client{Peer: v4, Local: local4, IP: netip.MustParseAddr("203.0.113.9")}, "PROXY TCP4 203.0.113.9 198.51.100.7 0 443\r\n"},
		{"v1 for nobody", "v1", exchange.Client{}, "PROXY UNKNOWN\r\n"},
		{"v2 over IPv4", "v2", exchange.Client{Peer: v4, Local: local4},
			proxySignature + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\x12\x67\x01\xbb"},
		{"v2 over IPv6", "v2", exchange.Client{Peer: v6, Local: local6}, proxySignature + "\x21\x21\x00\x24" +
			"\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07\x12\x67\x01\xbb"},
		{"v2 for nobody", "v2", exchange.Client{}, proxySignature + "\x20\x00\x00\x00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			heard := make(chan string, 1)
			o := serve(t, func(_ *origin, c net.Conn) {
				b := make([]byte, len(test.want))
				n, _ := io.ReadFull(c, b)
				heard <- string(b[:n])
			})
			u := build(t, env(io.Discard), config(func(m *model.Upstream) { overTCP(m); m.Proxy = test.version }, o.address()))
			x := ask0()
			x.Client = test.client
			c, release, err := u.Dial(x)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			defer release()
			if got := <-heard; got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestAConnectionThatNamedAClientIsNotUsedAgain(t *testing.T) {
	o := serve(t, func(o *origin, c net.Conn) {
		line := make([]byte, len("PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\n"))
		if _, err := io.ReadFull(c, line); err != nil || !strings.HasPrefix(string(line), "PROXY TCP4 192.0.2.1 ") {
			t.Errorf("%q, %v", line, err)
		}
		answers(ok, 0)(o, c)
	})
	u := build(t, env(io.Discard), config(func(m *model.Upstream) { m.Proxy = "v1" }, o.address()))
	for range 3 {
		x := ask("GET")
		x.Client = exchange.Client{Peer: netip.MustParseAddrPort("192.0.2.1:4711"), Local: netip.MustParseAddrPort("198.51.100.7:443")}
		if status, code := send(t, u, x); status != 200 {
			t.Fatal(code)
		}
		if n := u.Status().Targets[0].Idle; n != 0 || u.env.Sweeper.Len() != 0 {
			t.Errorf("%d connections are kept", n)
		}
	}
}

// ask0 is an exchange of a TCP listener.
func ask0() *exchange.Exchange {
	x := ask("")
	x.Request.Proto = "TCP"
	return x
}

func TestAConnectionOfBytesOverTLS(t *testing.T) {
	ca := newAuthority(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	m := config(nil)
	m.Targets = []model.Target{{URL: "tls://" + l.Addr().String(), Weight: 1}}
	m.TLS = &model.UpstreamTLS{CA: []string{ca.file}}
	u := build(t, env(io.Discard), m)
	c, release, err := u.Dial(ask0())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	defer c.Close()
	if s := u.Status().Targets[0]; !c.Encrypted() || s.Protocol != "tcp" || s.TLS != "verified" {
		t.Errorf("%+v", s)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if n, err := c.Read(got); string(got[:n]) != "hello" || err != nil {
		t.Errorf("%q, %v", got[:n], err)
	}
}
