package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/examples"
	"headgate/internal/demo"
	"headgate/internal/testkit"
)

func TestTheRootIsPrintedAndItsFileIsNamed(t *testing.T) {
	t.Setenv(stateVariable, filepath.Join(t.TempDir(), "state"))
	out, errs, status := headgate(t, "ca")
	b, rest := pem.Decode([]byte(out))
	if status != 0 || errs != "" || b == nil || len(rest) != 0 {
		t.Fatalf("exit %d, %s\n%s", status, errs, out)
	}
	if c, err := x509.ParseCertificate(b.Bytes); err != nil || !c.IsCA {
		t.Errorf("it is no authority's: %v", err)
	}
	path, _, status := headgate(t, "ca", "--path")
	content, err := os.ReadFile(strings.TrimSpace(path))
	if err != nil || string(content) != out || status != 0 {
		t.Errorf("exit %d, %q: %v\n%s", status, path, err, content)
	}
	t.Setenv(stateVariable, filepath.Join(strings.TrimSpace(path), "under a file"))
	if _, errs, status := headgate(t, "ca"); status != exitFailed || !strings.Contains(errs, "the internal authority: ") {
		t.Errorf("exit %d, %s", status, errs)
	}
}

// HTTPS on a laptop is one command, and a second one that the first one prints.
func TestTheDemoOverTLSWorksAsItSays(t *testing.T) {
	t.Setenv(stateVariable, filepath.Join(t.TempDir(), "state"))
	args := []string{"demo", "--tls", "--admin", "off"}
	for _, flag := range []string{"address", "orders", "customers", "products"} {
		address, err := testkit.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--"+flag, address)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, self, args...)
	c.Env = append(os.Environ(), "HEADGATE_MAIN=1", "TMPDIR="+t.TempDir())
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	command := ""
	for lines := bufio.NewScanner(out); command == "" && lines.Scan(); {
		if text := strings.TrimSpace(lines.Text()); strings.HasPrefix(text, "curl ") {
			command = text
		}
	}
	for _, version := range []string{"--http1.1", "--http2"} {
		curl := exec.CommandContext(ctx, "sh", "-c", command+" --silent --show-error --retry 20 --retry-connrefused --retry-delay 1 "+version)
		reply, err := curl.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(reply), "HTTP/"+strings.TrimPrefix(version, "--http")+" 200") ||
			!strings.Contains(string(reply), `{"items":[{"id":"o-1"`) {
			t.Errorf("%s %s: %v\n%s", command, version, err, reply)
		}
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("it did not end well: %v", err)
	}
}

func TestTheDemosDocumentIsTheExampleWithOtherDoors(t *testing.T) {
	g := demoGateway{address: "127.0.0.1:8443", admin: "off", services: map[string]string{}}
	for _, s := range demo.Services() {
		g.services[s.Name] = s.Address
	}
	document, err := g.document()
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(examples.Shop(), "upstreams:")
	if _, got, _ := strings.Cut(document, "upstreams:"); got != want {
		t.Errorf("what follows the doors is not the example's:\n%s", got)
	}
	if s, _, problems := newBench().compile([]decode.File{{Name: "shop.yaml", Data: []byte(document)}}); s == nil {
		t.Error(problems)
	}
	g.address = "8443"
	if _, err := g.document(); err == nil || !strings.Contains(err.Error(), "--address") {
		t.Error(err)
	}
}

func TestNamesOfTheInternalAuthorityAreChecked(t *testing.T) {
	_, _, problems := newBench().compile([]decode.File{{Name: "a.yaml", Data: []byte(
		"listeners: {a: {address: ':1', tls: {internal: [localhost, shop.com, 8.8.8.8], acme: {domains: [a.b], roots: x.pem}}}}")}})
	want := []string{"listeners.a.tls.acme.agree_to_terms", "listeners.a.tls.internal[1]", "listeners.a.tls.internal[2]"}
	var got []string
	for _, p := range problems {
		got = append(got, p.Path)
	}
	for _, w := range want {
		if !strings.Contains(strings.Join(got, "\n"), w) {
			t.Errorf("%s is not among the problems:\n%s", w, problems)
		}
	}
}

func TestAnAuthorityThatCannotBeOpenedIsToldAndTriedAgain(t *testing.T) {
	state := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(stateVariable, state)
	p := newBench()
	e, err := p.trust.byOwnAuthority("a", &model.ListenerTLS{Internal: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	e.Live()
	s := e.Sources[0]
	if c, err := s.Certificate(nil); c != nil || err == nil || !strings.Contains(err.Error(), "the internal authority") {
		t.Errorf("%v %v", c, err)
	}
	if st := s.Status()[0]; st.Error == "" || st.ErrorAt == nil {
		t.Errorf("%+v", st)
	}
	if err := errors.Join(os.Remove(state), os.Mkdir(state, 0o700)); err != nil {
		t.Fatal(err)
	}
	own := s.(*ownSource)
	own.again = time.Time{} // the pause has passed
	if c, err := s.Certificate(nil); err != nil || c.Leaf.DNSNames[0] != "localhost" {
		t.Errorf("%v", err)
	}
	if st := s.Status()[0]; st.Error != "" || st.Days != 6 {
		t.Errorf("%+v", st)
	}
}
