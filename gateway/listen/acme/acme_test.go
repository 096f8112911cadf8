package acme

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/internal/testkit"
)

func TestACertificateIsGotByEveryWayOfProof(t *testing.T) {
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		n := newNode(t, filepath.Join(t.TempDir(), "acme"))
		a := n.authority()
		m := n.settings(a, "Shop.example", "api.example")
		m.Challenges = []string{challenge}
		s := n.live(m)
		for _, name := range []string{"shop.example", "api.example"} {
			if c := n.await(a, name, nil); len(c.DNSNames) != 1 || c.DNSNames[0] != name {
				t.Errorf("%s: %s is shown a certificate for %v", challenge, name, c.DNSNames)
			}
		}
		if certificates, accounts := a.Issued(); certificates != 2 || accounts != 1 {
			t.Errorf("%s: %d certificates of %d accounts", challenge, certificates, accounts)
		}
		n.until("the end of the attempts", func() bool { return len(n.keeper.proofs.tokens)+len(n.keeper.proofs.certs) == 0 })
		for _, st := range s.Status() {
			if st.Source != "acme" || st.Error != "" || st.Days != 89 && st.Days != 90 || st.Issuer != "CN=Test authority" {
				t.Errorf("%s: %+v", challenge, st)
			}
		}
		if !n.exposes(`headgate_acme_attempts_total{result="success"} 2`) {
			t.Errorf("%s: not counted", challenge)
		}
	}
}

func TestWhichWaysAreOfferedIsTheDocumentsChoice(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "acme"))
	a := n.authority()
	a.Challenges = []string{"http-01"}
	m := n.settings(a, "shop.example")
	m.Challenges = []string{"tls-alpn-01"}
	s := n.live(m)
	n.until("the failure", func() bool { return s.Status()[0].Error != "" })
	if got := s.Status()[0].Error; !strings.Contains(got, "no solvers") {
		t.Errorf("%s", got)
	}
}

func TestAStartFindsTheCertificatesOfTheOneBefore(t *testing.T) {
	storage := filepath.Join(t.TempDir(), "acme")
	first := newNode(t, storage)
	a := first.authority()
	serial := func(n *node) string { return n.await(a, "shop.example", nil).SerialNumber.String() }
	m := first.settings(a, "shop.example")
	first.live(m)
	want := serial(first)
	a.Set(func(a *testkit.ACME) { a.Problem = "serverInternal" }) // nobody needs it now
	second := newNode(t, storage)
	second.live(m)
	if got := serial(second); got != want {
		t.Errorf("the certificate is another: %s, %s", got, want)
	}
	if certificates, accounts := a.Issued(); certificates != 1 || accounts != 1 {
		t.Errorf("%d certificates of %d accounts", certificates, accounts)
	}
	if err := filepath.WalkDir(storage, func(path string, d fs.DirEntry, err error) error {
		if err != nil && errors.Is(err, fs.ErrNotExist) { // a lock that came and went
			return nil
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && !strings.Contains(path, "locks") {
			t.Errorf("%s may be read by others: %v", path, info.Mode())
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestACertificateThatEndsSoonIsRenewedWhileTheOldOneIsServed(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "acme"))
	a := n.authority()
	a.Validity = func(now time.Time) (from, to time.Time) { return now.AddDate(0, 0, -80), now.AddDate(0, 0, 10) } // 30 are a third of 90 days
	n.live(n.settings(a, "shop.example"))
	first := n.await(a, "shop.example", nil)
	a.Set(func(a *testkit.ACME) { a.Problem = "rateLimited" })
	n.until("a failed renewal", func() bool { return n.source.Status()[0].Error != "" })
	if c, err := n.shown(a, "shop.example"); err != nil || c.NotAfter.Before(first.NotAfter.Add(-time.Hour)) {
		t.Errorf("the old one is not served meanwhile: %v", err)
	}
	if st := n.source.Status()[0]; !strings.Contains(st.Error, "has had too many requests") || st.ErrorAt == nil || st.Days > 10 {
		t.Errorf("%+v", st)
	}
}

func TestRenewedCertificatesAreServedAtOnce(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "acme"))
	a := n.authority()
	a.Validity = func(now time.Time) (time.Time, time.Time) { return now.AddDate(0, 0, -80), now.AddDate(0, 0, 10) }
	n.live(n.settings(a, "renewed.example"))
	first := n.await(a, "renewed.example", nil)
	a.Set(func(a *testkit.ACME) { a.Validity = nil })
	renewed := n.await(a, "renewed.example", func(c *x509.Certificate) bool { return c.NotAfter.Sub(first.NotAfter) > 24*time.Hour })
	if renewed.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("it is the same")
	}
	n.until("the good news", func() bool { return n.source.Status()[0].Error == "" })
}

func TestADirectoryThatIsDownHoldsNobodyUp(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "acme"))
	a := n.authority()
	m := n.settings(a, "shop.example")
	a.Set(func(a *testkit.ACME) { a.Problem = "serverInternal" })
	s := n.live(m) // returns at once
	if _, err := n.shown(a, "shop.example"); err == nil || !strings.Contains(err.Error(), "tls:") {
		t.Errorf("before the first certificate a handshake fails: %v", err)
	}
	n.until("two failures", func() bool { return n.exposes(`headgate_acme_attempts_total{result="failure"} 2`) })
	st := s.Status()[0]
	if st.Error == "" || st.ErrorAt == nil || len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "the next attempt is at") {
		t.Errorf("%+v", st)
	}
	failures := 0
	for line := range strings.Lines(n.log.String()) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") {
			failures++
			if !strings.Contains(line, "domain=shop.example") || !strings.Contains(line, "advice=") || !strings.Contains(line, "next_attempt=") {
				t.Errorf("it does not say what to do: %s", line)
			}
		}
	}
	if attempts := strings.Count(n.log.String(), "no certificate could be got"); failures != attempts {
		t.Errorf("%d lines about %d failed attempts", failures, attempts)
	}
	a.Set(func(a *testkit.ACME) { a.Problem = "" })
	n.await(a, "shop.example", nil)
	n.until("the good news", func() bool { return s.Status()[0].Error == "" })
}

func TestAnAuthorityThatNobodyAnswersGivesAdvice(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*testkit.ACME)
		want   string
	}{
		"proof": {func(a *testkit.ACME) { a.HTTP, a.TLS = "127.0.0.1:1", "127.0.0.1:1" }, "one in clear on port 80 for http-01"},
		"caa":   {func(a *testkit.ACME) { a.Problem = "caa" }, "a CAA record of shop.example"},
		"dns":   {func(a *testkit.ACME) { a.Problem = "dns" }, "let the DNS records of shop.example lead here"},
		"name":  {func(a *testkit.ACME) { a.Problem = "rejectedIdentifier" }, "does not issue for shop.example"},
		"eab":   {func(a *testkit.ACME) { a.Problem = "externalAccountRequired" }, "external account binding"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, filepath.Join(t.TempDir(), "acme"))
			a := n.authority()
			test.change(a)
			s := n.live(n.settings(a, "shop.example"))
			n.until("the failure", func() bool { return s.Status()[0].Error != "" })
			if got := s.Status()[0].Error; !strings.Contains(got, strings.Replace(test.want, "lead here", "lead to this gateway", 1)) {
				t.Errorf("%s, want %q", got, test.want)
			}
		})
	}
	n := newNode(t, filepath.Join(t.TempDir(), "acme"))
	a := n.authority()
	m := n.settings(a, "shop.example")
	m.Roots = ""
	s := n.live(m)
	n.until("the failure", func() bool { return s.Status()[0].Error != "" })
	if got := s.Status()[0].Error; !strings.Contains(got, "write its root's PEM file in roots") {
		t.Errorf("%s", got)
	}
	m = n.settings(a, "shop.example")
	m.Storage = filepath.Join(m.Roots, "under a file")
	s = n.live(m)
	n.until("the failure", func() bool { return s.Status()[0].Error != "" })
	if !strings.Contains(n.log.String(), "give the gateway a storage that it can write to") {
		t.Errorf("%s", s.Status()[0].Error)
	}
}

func TestAnAuthorityThatForgotTheAccountGetsANewOne(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "acme"))
	a := n.authority()
	m := n.settings(a, "one.example")
	n.live(m)
	n.await(a, "one.example", nil)
	a.Forget()
	m.Domains = []string{"one.example", "two.example"}
	n.live(m)
	n.await(a, "two.example", nil)
}

func TestAReloadKeepsWhatItDoesNotChange(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "acme"))
	a := n.authority()
	m := n.settings(a, "one.example", "two.example")
	first := n.live(m)
	n.await(a, "one.example", nil)
	n.await(a, "two.example", nil)
	kept := first.manager
	m.Domains = []string{"two.example", "three.example"}
	second := n.live(m) // the next document is live before the one before it has drained
	if second.manager != kept {
		t.Error("the manager is another")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	n.await(a, "three.example", nil)
	n.await(a, "two.example", nil)
	if certificates, accounts := a.Issued(); certificates != 3 || accounts != 1 {
		t.Errorf("%d certificates of %d accounts", certificates, accounts)
	}
	if got := strings.Join(kept.names(), " "); got != "three.example two.example" || kept.certificate("one.example") != nil {
		t.Errorf("managed: %s; a domain that is gone is still served: %v", got, kept.certificate("one.example"))
	}
	hello := &tls.ClientHelloInfo{ServerName: "TWO.example."}
	c1, err1 := second.Certificate(hello)
	c2, err2 := second.Certificate(hello)
	if c1 == nil || c1 != c2 || err1 != nil || err2 != nil {
		t.Error("the same certificate is not the same value twice")
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if len(n.keeper.managers) != 0 {
		t.Error("a manager that nobody uses is kept")
	}
}

func TestADocumentThatIsOnlyCheckedDoesNothing(t *testing.T) {
	n := newNode(t, filepath.Join(t.TempDir(), "acme"))
	a := n.authority()
	m := n.settings(a, "shop.example")
	s, err := n.keeper.Compile(&m)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := s.Certificate(&tls.ClientHelloInfo{ServerName: "shop.example"}); c != nil || err != nil {
		t.Errorf("%v %v", c, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(n.storage); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the storage was made: %v", err)
	}
}

func TestWhatTagsCannotSayIsChecked(t *testing.T) {
	good := func() model.ACME {
		var m model.ACME
		m.SetDefaults()
		m.Domains, m.Agreed = []string{"shop.example"}, true
		return m
	}
	n := newNode(t, filepath.Join(t.TempDir(), "acme"))
	m := good()
	s, err := n.keeper.Compile(&m)
	if err != nil || s.Close() != nil {
		t.Fatalf("the default is refused: %v", err)
	}
	for want, change := range map[string]func(*model.ACME){
		"write agree_to_terms: true":                func(m *model.ACME) { m.Agreed = false },
		"is not the address of a directory":         func(m *model.ACME) { m.Directory = "http://ca.example/dir" },
		"is not an address of mail":                 func(m *model.ACME) { m.Email = "mailto:a@b" },
		"write a folder":                            func(m *model.ACME) { m.Storage = "" },
		"there are 0 names":                         func(m *model.ACME) { m.Domains = nil },
		"stands twice":                              func(m *model.ACME) { m.Domains = []string{"a.example", "A.example"} },
		"is an address":                             func(m *model.ACME) { m.Domains = []string{"192.0.2.1"} },
		"cannot be proven by":                       func(m *model.ACME) { m.Domains = []string{"*.example.com"} },
		"write letters outside ASCII":               func(m *model.ACME) { m.Domains = []string{"büro.example"} },
		`"-a.example" is not a host name`:           func(m *model.ACME) { m.Domains = []string{"-a.example"} },
		"no such file":                              func(m *model.ACME) { m.Roots = "/nowhere/roots.pem" },
		"holds no certificate":                      func(m *model.ACME) { m.Roots = "acme_test.go" },
		"is not a host name; write letters outside": func(m *model.ACME) { m.Domains = []string{"a..b"} },
	} {
		m := good()
		change(&m)
		if s, err := n.keeper.Compile(&m); s != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// A balancer sends the authority to whichever node it likes.
func TestNodesThatShareTheirStorageAnswerForEachOther(t *testing.T) {
	storage := filepath.Join(t.TempDir(), "acme")
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		name := challenge + ".example"
		asked, answers := newNode(t, storage), newNode(t, storage)
		a := asked.authority()
		a.HTTP, a.TLS = answers.clear.Listener.Addr().String(), answers.doorTLS.Addr().String()
		a.Problem = "serverInternal"
		m := asked.settings(a, name)
		m.Challenges = []string{challenge}
		idle := answers.live(m) // it knows the name, and gets nothing
		answers.until("the refusal", func() bool { return idle.Status()[0].Error != "" })
		idle.manager.cancel() // and does not try again
		a.Set(func(a *testkit.ACME) { a.Problem = "" })
		asked.live(m)
		asked.await(a, name, nil)
		if _, ok := answers.keeper.Answer("stranger.example", "x"); ok {
			t.Error("a name that nobody manages")
		}
		asked.until("the end of the challenge", func() bool {
			left, err := filepath.Glob(filepath.Join(storage, "challenges", "*", "*"))
			return err == nil && len(left) == 0
		})
	}
}

func TestNobodyGetsAProofForANameThatIsNotTheirs(t *testing.T) {
	p := newProofs()
	p.tokens[[2]string{"shop.example", "t"}] = "t.proof"
	for _, test := range []struct {
		host, token string
		ok          bool
	}{{"shop.example", "t", true}, {"SHOP.example.", "t", true}, {"evil.example", "t", false}, {"shop.example", "other", false},
		{"", "", false}} {
		if _, ok := p.answer(test.host, test.token); ok != test.ok {
			t.Errorf("%+v", test)
		}
	}
	s := &Source{keeper: &Keeper{proofs: p}}
	if _, err := s.Challenge(&tls.ClientHelloInfo{ServerName: "shop.example"}); err == nil {
		t.Error("a proof over TLS that nobody asked for")
	}
}
