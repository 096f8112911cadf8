package expr

import (
	"testing"

	"headgate/gateway/exchange"
	"headgate/internal/metric"
)

func TestWhatIsKnownOfTheClientsTLSCanBeAsked(t *testing.T) {
	c := New(metric.NewRegistry())
	clear := &exchange.Exchange{}
	plain := &exchange.Exchange{Client: exchange.Client{TLS: &exchange.TLS{Version: "TLS 1.2"}}}
	mutual := &exchange.Exchange{Client: exchange.Client{TLS: &exchange.TLS{
		Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", ServerName: "shop.example", ALPN: "h2", Resumed: true, Early: true,
		Certificate: &exchange.Certificate{
			Subject: "CN=ann,O=Shop", Issuer: "CN=Root", Serial: "1f", Thumbprint: "dGh1bWI", DNS: []string{"ann.example", "b.example"},
			Emails: []string{"ann@example.com"}, URIs: []string{"spiffe://example.com/ann"}, IPs: []string{"10.0.0.7"},
		},
	}}}
	for src, want := range map[string][3]string{
		`client.secure`:          {"false", "true", "true"},
		`client.tls.version`:     {"", "TLS 1.2", "TLS 1.3"},
		`client.tls.cipher`:      {"", "", "TLS_AES_128_GCM_SHA256"},
		`client.tls.server_name`: {"", "", "shop.example"},
		`client.tls.alpn`:        {"", "", "h2"},
		`client.tls.resumed`:     {"false", "false", "true"},
		`client.tls.early`:       {"false", "false", "true"},
		`client.cert.subject`:    {"", "", "CN=ann,O=Shop"},
		`client.cert.issuer`:     {"", "", "CN=Root"},
		`client.cert.serial`:     {"", "", "1f"},
		`client.cert.thumbprint`: {"", "", "dGh1bWI"},
		`client.cert.dns`:        {"", "", "ann.example,b.example"},
		`client.cert.emails`:     {"", "", "ann@example.com"},
		`client.cert.uris`:       {"", "", "spiffe://example.com/ann"},
		`client.cert.ips`:        {"", "", "10.0.0.7"},
	} {
		text, err := c.String(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		for i, x := range []*exchange.Exchange{clear, plain, mutual} {
			if got := text(x); got != want[i] {
				t.Errorf("%s: %q, want %q", src, got, want[i])
			}
		}
	}
}

func TestConditionsAboutCertificatesMeanTheSamePlainAndInCEL(t *testing.T) {
	c := New(metric.NewRegistry())
	with := func(cert *exchange.Certificate) *exchange.Exchange {
		return &exchange.Exchange{Client: exchange.Client{TLS: &exchange.TLS{Version: "TLS 1.3", Certificate: cert}}}
	}
	ann := with(&exchange.Certificate{Subject: "CN=ann", DNS: []string{"ann.example"}, URIs: []string{"spiffe://example.com/ann"}})
	for src, want := range map[string][2]bool{
		`client.tls.version == "TLS 1.3" && client.cert.subject != ""`:                           {false, true},
		`"ann.example" in client.cert.dns`:                                                       {false, true},
		`client.cert.dns.exists(n, n.endsWith(".example"))`:                                      {false, true},
		`client.cert.uris.exists(u, u.startsWith("spiffe://example.com/"))`:                      {false, true},
		`!client.tls.resumed`:                                                                    {true, true},
		`client.cert.subject in ["CN=ann", "CN=bob"] && size(client.cert.emails) == 0`:           {false, true},
		`size(client.cert.dns) == 0 || client.cert.subject.contains("ann") && !client.tls.early`: {true, true},
	} {
		test, err := c.Bool(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		for i, x := range []*exchange.Exchange{{}, ann} {
			if got, err := test(x); err != nil || got != want[i] {
				t.Errorf("%s: %v %v, want %v", src, got, err, want[i])
			}
		}
	}
}

func TestAskingAboutTLSAllocatesNothing(t *testing.T) {
	c := New(metric.NewRegistry())
	test, err := c.Bool(`client.tls.version == "TLS 1.3" && "ann.example" in client.cert.dns && client.cert.thumbprint != ""`)
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange.Exchange{Client: exchange.Client{TLS: &exchange.TLS{Version: "TLS 1.3",
		Certificate: &exchange.Certificate{DNS: []string{"ann.example"}, Thumbprint: "x"}}}}
	if n := testing.AllocsPerRun(100, func() {
		if yes, err := test(x); !yes || err != nil {
			t.Fatal("no")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
