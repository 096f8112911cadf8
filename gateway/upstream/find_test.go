package upstream

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/gateway/upstream/discover"
)

// discovering returns an upstream whose targets stand in a file with the text.
func discovering(t *testing.T, e Env, text string) (u *Upstream, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "targets.yaml")
	put(t, path, text)
	return build(t, e, config(func(m *model.Upstream) {
		m.Discover = new(model.Discover)
		m.Discover.SetDefaults()
		m.Discover.File = path
	})), path
}

// put replaces a file as a whole.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestTheFirstRequestWaitsForTheFirstAnswer(t *testing.T) {
	o := serve(t, answers(ok, 0))
	u, _ := discovering(t, env(io.Discard), "- "+o.address())
	u.Start()
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Errorf("%d %s", status, code)
	}
	if d := u.Status().Discovery; d == nil || d.State != "current" || !strings.HasPrefix(d.Source, "file ") || d.Changes != 1 {
		t.Errorf("%+v", d)
	}
}

func TestWithoutATargetItIsSaidSoAndTriedAgain(t *testing.T) {
	o := serve(t, answers(ok, 0))
	u, path := discovering(t, env(io.Discard), "[]")
	u.Start()
	for range 2 {
		if status, code := send(t, u, ask("GET")); status != 0 || code != "no_target" {
			t.Errorf("%d %s", status, code)
		}
	}
	if d := u.Status().Discovery; d.State != "waiting" || !strings.Contains(d.Error, "no target") {
		t.Errorf("%+v", d)
	}
	put(t, path, "- "+o.address())
	until(t, "it is found", func() bool { return len(u.Status().Targets) == 1 })
	if status, code := send(t, u, ask("GET")); status != 200 {
		t.Errorf("%d %s", status, code)
	}
}

// A new document, which makes the upstream anew, begins with what was known, whether or not the source still answers.
func TestTheNextDocumentBeginsWithWhatWasKnown(t *testing.T) {
	o := serve(t, answers(ok, 0))
	e := env(io.Discard)
	e.Discovered = discover.NewStore("")
	u, path := discovering(t, e, "- "+o.address())
	u.Start()
	if status, _ := send(t, u, ask("GET")); status != 200 {
		t.Fatal(status)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	m := u.config
	m.Timeouts.Connect++
	next := build(t, e, m)
	next.Start()
	if status, code := send(t, next, ask("GET")); status != 200 {
		t.Errorf("%d %s", status, code)
	}
	until(t, "the missing file is noticed", func() bool { return next.Status().Discovery.State == "last_good" })
}

func TestADrainingTargetTakesNoRequests(t *testing.T) {
	a, b := serve(t, answers(ok, 0)), serve(t, answers(ok, 0))
	u, _ := discovering(t, env(io.Discard), "[{address: "+a.address()+", draining: true}, {address: "+b.address()+", weight: 7}]")
	u.Start()
	for range 10 {
		if status, code := send(t, u, ask("GET")); status != 200 {
			t.Fatal(code)
		}
	}
	if len(a.requests()) != 0 || len(b.requests()) != 10 {
		t.Errorf("%d and %d", len(a.requests()), len(b.requests()))
	}
}

func TestWhatDiscoveryCannotBeIsRefused(t *testing.T) {
	dns := model.DiscoverDNS{Name: "shop.example", Port: 80}
	dns.SetDefaults()
	with := func(change func(*model.DiscoverDNS)) *model.DiscoverDNS {
		d := dns
		d.Name, d.Port = "shop.example", 80
		change(&d)
		return &d
	}
	for _, test := range []struct {
		is          model.Discover
		change      func(*model.Upstream)
		place, says string
	}{
		{model.Discover{}, nil, "discover", "names no source"},
		{model.Discover{File: "a", DNS: with(func(*model.DiscoverDNS) {})}, nil, "discover", "exclude each other"},
		{model.Discover{File: "a"}, func(m *model.Upstream) { m.Targets = []model.Target{{URL: "http://a", Weight: 1}} }, "discover", "exclude"},
		{model.Discover{File: "a", Scheme: "h2c"}, func(m *model.Upstream) { m.Protocol = "h1" }, "discover.scheme", "h2c is HTTP/2"},
		{model.Discover{File: "a"}, func(m *model.Upstream) { m.TLS = &model.UpstreamTLS{} }, "tls", "tls is for targets over TLS"},
		{model.Discover{DNS: with(func(d *model.DiscoverDNS) { d.Port = 0 })}, nil, "discover.dns.port", "have no port"},
		{model.Discover{DNS: with(func(d *model.DiscoverDNS) { d.SRV = true })}, nil, "discover.dns.port", "their own port"},
		{model.Discover{DNS: with(func(d *model.DiscoverDNS) { d.Name = "::1" })}, nil, "discover.dns.name", "is an address"},
		{model.Discover{DNS: with(func(d *model.DiscoverDNS) { d.MinTTL = d.MaxTTL + 1 })}, nil, "discover.dns.min_ttl", "more than max_ttl"},
		{model.Discover{DNS: with(func(d *model.DiscoverDNS) { d.Servers = []string{"ns"} })}, nil, "discover.dns.servers.0", "10.0.0.2:53"},
		{model.Discover{Consul: &model.DiscoverConsul{Address: "http://u:p@h", Service: "s"}}, nil, "discover.consul.address", "token"},
	} {
		if test.is.Scheme == "" {
			test.is.Scheme = "http"
		}
		_, err := New("shop", config(func(m *model.Upstream) {
			m.Discover = &test.is
			if test.change != nil {
				test.change(m)
			}
		}), env(io.Discard))
		found := false
		for _, e := range decode.Flatten(err) {
			at, placed := e.(*decode.PathError)
			found = found || placed && strings.Join(at.Path, ".") == test.place && strings.Contains(e.Error(), test.says)
		}
		if !found {
			t.Errorf("%s %s: %v", test.place, test.says, err)
		}
	}
}
