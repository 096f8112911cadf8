package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// certificates is what /status says about them.
func (s *secured) certificates() (list []struct {
	Names []string `json:"names"`
	Cert  string   `json:"cert"`
	Error string   `json:"error"`
	Days  int      `json:"days_to_expiry"`
}) {
	s.t.Helper()
	var status struct {
		Certificates json.RawMessage `json:"certificates"`
	}
	if err := json.Unmarshal([]byte(s.Ask("/status")), &status); err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(status.Certificates, &list); err != nil {
		s.t.Fatal(err)
	}
	return list
}

// reload makes another document the live one.
func (s *secured) reload(settings string, certificates ...string) {
	s.t.Helper()
	admin := "\nadmin: {address: " + s.Admin() + "}\nlog: {access: {to: \"off\"}}\n"
	s.Write("headgate.yaml", s.document(settings, certificates...)+admin)
	s.Ask("POST /reload")
}

// visitor keeps a connection, makes new ones, and counts what goes wrong.
type visitor struct {
	s              *secured
	asked, dropped atomic.Int64
	stop           chan struct{}
	runs           sync.WaitGroup
}

func (s *secured) visit(n int) *visitor {
	v := &visitor{s: s, stop: make(chan struct{})}
	for i := range n {
		v.runs.Go(func() { v.run(i%2 == 0) })
	}
	return v
}

func (v *visitor) run(keep bool) {
	var c *tls.Conn
	for {
		select {
		case <-v.stop:
			if c != nil {
				_ = c.Close()
			}
			return
		default:
		}
		var err error
		if c == nil {
			c, err = v.s.dial(v.s.client("a.example"))
		}
		if err == nil {
			_, _, err = ask(c, "a.example")
		}
		v.asked.Add(1)
		if err != nil {
			v.dropped.Add(1)
			v.s.t.Log(err)
			c = nil
			continue
		}
		if !keep {
			_ = c.Close()
			c = nil
		}
	}
}

func (v *visitor) end() {
	v.s.t.Helper()
	close(v.stop)
	v.runs.Wait()
	if v.dropped.Load() > 0 || v.asked.Load() == 0 {
		v.s.t.Errorf("of %d requests %d failed", v.asked.Load(), v.dropped.Load())
	}
}

// served returns the serial number of the certificate for a name.
func (s *secured) served(name string) string {
	s.t.Helper()
	c := must(s.dial(s.client(name)))(s.t)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestCertificatesChangeUnderLoadWithoutADroppedConnection(t *testing.T) {
	s := newSecured(t)
	s.issue("a", nil, nil, "a.example")
	s.start("", "a")
	v := s.visit(6)
	for round := range 3 {
		before := s.served("a.example")
		c := s.issue("a", nil, nil, "a.example")
		until(t, "the new one is served", func() bool { return s.served("a.example") != before })
		if got := s.served("a.example"); got != c.SerialNumber.String() {
			t.Errorf("%s is served instead of %s", got, c.SerialNumber)
		}
		s.reload(fmt.Sprintf("handshakes: %d", 100+round), "a") // and the document, too
	}
	v.end()
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestABadFileKeepsTheOldCertificateInService(t *testing.T) {
	s := newSecured(t)
	s.issue("a", nil, nil, "a.example")
	s.start("", "a")
	v := s.visit(2)
	before := s.served("a.example")
	s.put("a.key", "not a key")
	until(t, "it is told", func() bool { return strings.Contains(s.certificates()[0].Error, "a.key holds no private key") })
	s.Await("/metrics", func(page string) bool {
		return strings.Contains(page, "headgate_certificate_failing{") && strings.Contains(page, "} 1\n")
	})
	if !strings.Contains(s.Log(), "a.key holds no private key") {
		t.Error("the log does not say so")
	}
	s.reload("handshakes: 100", "a") // a new document does not break on it
	if s.served("a.example") != before {
		t.Error("another certificate is served")
	}
	s.issue("a", nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "a.example")
	until(t, "it is told", func() bool { return strings.Contains(s.certificates()[0].Error, "it expired on") })
	good := s.issue("a", nil, nil, "a.example")
	until(t, "the good one is served", func() bool { return s.served("a.example") == good.SerialNumber.String() })
	if c := s.certificates()[0]; c.Error != "" || c.Days != 41 || c.Names[0] != "a.example" {
		t.Errorf("%+v", c)
	}
	v.end()
}

func TestABadFileIsAProblemOfTheDocument(t *testing.T) {
	s := newSecured(t)
	s.issue("a", nil, nil, "a.example")
	s.issue("b", nil, nil, "b.example")
	s.put("a.key", "not a key")
	document := filepath.Join(s.files, "headgate.yaml")
	s.put("headgate.yaml", s.document("", "b", "a"))
	out, err := exec.Command(must(binary())(t), "check", document).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "headgate.yaml:5:") ||
		!strings.Contains(string(out), "listeners.door.tls.certificates[1].key: ") ||
		!strings.Contains(string(out), "a.key holds no private key") {
		t.Errorf("%v\n%s", err, out)
	}
	s.issue("a", nil, nil, "a.example")
	s.start("", "a")
	bad := strings.Replace(s.document("", "a"), "a.crt", "nowhere.crt", 1)
	s.Write("headgate.yaml", bad+"\nadmin: {address: "+s.Admin()+"}\n")
	s.Await("/status", func(page string) bool { return strings.Contains(page, "nowhere.crt does not exist") })
	s.served("a.example") // the old document serves
}

func TestCheckNotesWhatClientsMayHoldAgainstACertificate(t *testing.T) {
	s := newSecured(t)
	s.issue("a", nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "a.example")
	s.put("headgate.yaml", s.document("", "a"))
	out, err := exec.Command(must(binary())(t), "check", filepath.Join(s.files, "headgate.yaml")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "note: "+filepath.Join(s.files, "headgate.yaml")+":5:") ||
		!strings.Contains(string(out), "it expired on") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSessionsAreResumedAcrossReloadsOfTheDocument(t *testing.T) {
	s := newSecured(t)
	s.issue("a", nil, nil, "a.example")
	s.start("", "a")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := s.client("a.example")
		c.ClientSessionCache, c.MaxVersion = tls.NewLRUClientSessionCache(2), version
		resumed := func() bool {
			conn := must(s.dial(c))(t)
			defer conn.Close()
			if _, _, err := ask(conn, "a.example"); err != nil { // the ticket comes with the answer
				t.Fatal(err)
			}
			return conn.ConnectionState().DidResume
		}
		if resumed() {
			t.Error("nothing could be resumed yet")
		}
		for round := range 3 {
			s.reload(fmt.Sprintf("handshakes: %d", 200+10*round+int(version&1)), "a")
			if !resumed() {
				t.Errorf("%s: not resumed after reload %d", tls.VersionName(version), round+1)
			}
		}
		s.reload(fmt.Sprintf("client_auth: {mode: request, ca: [%q]}", filepath.Join(s.files, "root.pem")), "a")
		if resumed() {
			t.Error("resumed although clients are asked for certificates since")
		}
		s.reload("", "a")
	}
}

func TestARequestForAnotherHostIsMisdirected(t *testing.T) {
	s := newSecured(t)
	s.issue("a", nil, nil, "a.example", "b.example", "*.w.example")
	s.issue("c", nil, nil, "c.example")
	s.start("", "a", "c")
	for _, test := range []struct {
		name, host string
		want       int
	}{
		{"a.example", "a.example", 200}, {"a.example", "A.EXAMPLE:443", 200}, {"a.example", "b.example", 200}, {"a.example", "x.w.example", 200},
		{"a.example", "c.example", 421}, {"c.example", "a.example", 421}, {"c.example", "c.example.", 200}, {"a.example", "127.0.0.1", 421},
		{"unknown.example", "unknown.example", 200}, {"unknown.example", "a.example", 200}, {"unknown.example", "c.example", 421},
		{"", "127.0.0.1", 200}, {"", "c.example", 200}, {"", "whatever", 200},
	} {
		c := s.client(test.name)
		c.InsecureSkipVerify = true
		conn := must(s.dial(c))(t)
		resp, body, err := ask(conn, test.host)
		if err != nil || resp.StatusCode != test.want || test.want == 421 && !strings.Contains(body, "misdirected_request") {
			t.Errorf("a connection for %q, asked for %q: %v %s %v", test.name, test.host, resp, body, err)
		}
		if resp, _, err := ask(conn, "a.example"); err != nil || test.want == 421 && resp.Close {
			t.Errorf("the connection is of no use afterwards: %v", err)
		}
		_ = conn.Close()
	}
}

func TestClientsWithCertificates(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	s := newSecured(t)
	clients := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	s.issue("a", nil, nil, "a.example")
	s.issue("me", nil, clients)
	s.issue("late", nil, func(c *x509.Certificate) { clients(c); c.NotAfter = time.Now().Add(-time.Minute) })
	other := newSecured(t)
	other.issue("stranger", nil, clients)
	s.start(fmt.Sprintf("client_auth: {ca: [%q]}", filepath.Join(s.files, "root.pem")), "a")
	_, port, _ := net.SplitHostPort(s.address)
	for _, version := range []string{"--tlsv1.3", "--tls-max 1.2"} {
		for _, test := range []struct {
			name, folder, file string
			ok                 bool
		}{{"none", "", "", false}, {"right", s.files, "me", true}, {"expired", s.files, "late", false},
			{"of another authority", other.files, "stranger", false}} {
			args := append(strings.Fields(version), "-sS", "--http1.1", "--cacert", filepath.Join(s.files, "root.pem"), "--resolve",
				"a.example:"+port+":127.0.0.1", "https://a.example:"+port+"/")
			if test.file != "" {
				args = append(args, "--cert", filepath.Join(test.folder, test.file+".crt"), "--key", filepath.Join(test.folder, test.file+".key"))
			}
			out, err := exec.Command(curl, args...).CombinedOutput()
			if (err == nil) != test.ok || test.ok && string(out) != "hello" {
				t.Errorf("%s, %s: %v %s", version, test.name, err, out)
			}
			if !test.ok && !strings.Contains(string(out), "alert") && !strings.Contains(string(out), "certificate") {
				t.Errorf("%s, %s: the client does not learn why: %s", version, test.name, out)
			}
		}
	}
	s.Await("/metrics", func(page string) bool {
		return strings.Contains(page, `headgate_tls_handshake_errors_total{listener="door",cause="client_certificate"} 6`)
	})
}

func TestPlainHTTPOnATLSPort(t *testing.T) {
	s := newSecured(t)
	s.issue("a", nil, nil, "a.example")
	s.start("", "a")
	c := dial(t, s.address)
	resp, body, err := ask(c, "a.example")
	if err != nil || resp.StatusCode != 400 || resp.Header.Get("Content-Type") != "application/problem+json" ||
		!strings.Contains(body, "plain_http") {
		t.Errorf("%v %s %v", resp, body, err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the connection stays open: %d, %v", n, err)
	}
}
