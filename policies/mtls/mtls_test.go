package mtls

import (
	"testing"

	"go.uber.org/goleak"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
	"headgate/gateway/policy/policytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world knows one consumer by each property.
func world(t testing.TB) *policytest.World {
	w := policytest.New(t)
	for name, proof := range map[string][2]string{
		"thumb": {"thumbprint", "dGh1bWI"}, "ann": {"subject", "CN=ann,O=Shop"}, "host": {"dns", "orders.internal"},
		"spiffe": {"uri", "spiffe://example.com/orders"}, "mail": {"email", "ann@example.com"},
	} {
		w.Consumers.Add(&exchange.Consumer{Name: name}, policytest.Certificate(proof[0], proof[1]))
	}
	return w
}

func TestTheCallerIsFoundByWhatTheCertificateSays(t *testing.T) {
	all := exchange.Certificate{Thumbprint: "dGh1bWI", Subject: "CN=ann,O=Shop", DNS: []string{"x.internal", "Orders.INTERNAL"},
		URIs: []string{"spiffe://example.com/x", "spiffe://example.com/orders"}, Emails: []string{"Ann@example.com"}}
	for _, test := range []struct {
		name, options string
		cert          *exchange.Certificate
		consumer      string
		code          string
	}{
		{"everything: the order decides", "", &all, "thumb", ""},
		{"another order", "by: [email, thumbprint]", &all, "mail", ""},
		{"subject", "by: [subject]", &all, "ann", ""},
		{"names, in any case", "by: [dns]", &all, "host", ""},
		{"one of several URIs", "by: [uri]", &all, "spiffe", ""},
		{"mail", "", &exchange.Certificate{Emails: all.Emails}, "mail", ""},
		{"a property that does not count", "by: [thumbprint]", &exchange.Certificate{Subject: all.Subject}, "", "mtls_unknown"},
		{"a path in another case", "", &exchange.Certificate{URIs: []string{"spiffe://example.com/ORDERS"}}, "", "mtls_unknown"},
		{"a value of another property", "", &exchange.Certificate{DNS: []string{"CN=ann,O=Shop"}}, "", "mtls_unknown"},
		{"nobody's", "", &exchange.Certificate{Subject: "CN=eve"}, "", "mtls_unknown"},
		{"nobody's, which will do", "anybody: true", &exchange.Certificate{Subject: "CN=eve"}, "", ""},
		{"one that says nothing", "", &exchange.Certificate{}, "", "mtls_unknown"},
		{"none", "", nil, "", "mtls_missing"},
		{"none, although anybody's will do", "anybody: true", nil, "", "mtls_missing"},
		{"none, which will do", "required: false", nil, "", ""},
	} {
		p := world(t).Build(Kind, "{"+test.options+"}")
		out := p.Run(policytest.WithCertificate(policytest.Request("GET /orders"), test.cert), policytest.Reply(200, "text/plain", "hello"))
		consumer, code := "", ""
		if out.Exchange.Consumer != nil {
			consumer = out.Exchange.Consumer.Name
		}
		if out.Exchange.Err != nil {
			code = out.Exchange.Err.Code.Name
		}
		if consumer != test.consumer || code != test.code || (code == "") != (out.Status == 200) || code != "" && out.Status != 403 {
			t.Errorf("%s: consumer %q, code %q, status %d; want %q, %q", test.name, consumer, code, out.Status, test.consumer, test.code)
		}
		p.Close()
	}
}

func TestARequestInClearHasNoCertificate(t *testing.T) {
	p := world(t).Build(Kind, "{}")
	defer p.Close()
	// What a client writes into a field is not what it has shown.
	out := p.Run(policytest.Request("GET /orders", "X-Client-Cert-Subject: CN=ann,O=Shop"), policytest.Reply(200, "text/plain", "hello"))
	if out.Status != 403 || out.Exchange.Err.Code != certificateMissing {
		t.Errorf("%d %v", out.Status, out.Exchange.Err)
	}
}

func TestConsumersFollowAReload(t *testing.T) {
	w := world(t)
	p := w.Build(Kind, "{}")
	defer p.Close()
	ask := func() int {
		x := policytest.WithCertificate(policytest.Request("GET /orders"), &exchange.Certificate{Subject: "CN=ann,O=Shop"})
		return p.Run(x, policytest.Reply(200, "text/plain", "hello")).Status
	}
	if got := ask(); got != 200 {
		t.Errorf("%d", got)
	}
	w.Consumers.Clear()
	if got := ask(); got != 403 {
		t.Errorf("somebody who is no longer known: %d", got)
	}
}

func TestFindingTheCallerAllocatesNothing(t *testing.T) {
	w := world(t)
	g := &guard{consumers: w.Consumers, by: []string{"thumbprint", "subject", "dns", "uri", "email"}, required: true}
	x := policytest.WithCertificate(policytest.Request("GET /orders"), &exchange.Certificate{DNS: []string{"a.internal"},
		Emails: []string{"ann@example.com"}})
	if n := testing.AllocsPerRun(100, func() {
		if v := g.now(x); v != policy.Continue || x.Consumer == nil {
			t.Fatal(v)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestContract(t *testing.T) { policytest.Contract(t, Kind) }
