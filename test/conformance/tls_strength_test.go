package conformance

import (
	"crypto/tls"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What every client of the last years offers.
var (
	goodSuites  = []uint16{0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8}
	goodGroups  = []uint16{0x11ec, 0x001d, 0x0017, 0x0018}
	goodSchemes = []uint16{0x0403, 0x0503, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601}
)

const alertVersion, alertFailure = 70, 40

// both is a gateway with an ECDSA and an RSA certificate for one name, so that nothing is refused for want of one.
func both(t *testing.T, settings string) *secured {
	s := newSecured(t)
	s.issue("ecdsa", nil, nil, "door.example")
	s.issue("rsa", rsaKey(t), nil, "door.example")
	return s.start(settings, "ecdsa", "rsa")
}

func TestTLSVersionsThatAreTaken(t *testing.T) {
	for _, test := range []struct {
		settings string
		taken    []uint16
	}{
		{"", []uint16{tls.VersionTLS12, tls.VersionTLS13}},
		{"profile: intermediate", []uint16{tls.VersionTLS12, tls.VersionTLS13}},
		{"profile: modern", []uint16{tls.VersionTLS13}},
	} {
		s := both(t, test.settings)
		for _, version := range []uint16{0x0200, 0x0300, tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
			got := s.offer(hello{version: version, suites: append([]uint16{0xc009, 0xc013, 0x002f, 0x000a}, goodSuites...), groups: goodGroups,
				schemes: goodSchemes, name: "door.example"})
			if want := slices.Contains(test.taken, version); got.taken != want || !want && got.alert != alertVersion {
				t.Errorf("%q: %s: %+v", test.settings, tls.VersionName(version), got)
			}
		}
		for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13, 0x7f1c, 0x0305} {
			got := s.offer(hello{version: tls.VersionTLS12, versions: []uint16{version}, suites: append([]uint16{0x1301}, goodSuites...),
				groups: goodGroups, schemes: goodSchemes, name: "door.example"})
			if want := slices.Contains(test.taken, version); got.taken != want || !want && got.alert != alertVersion {
				t.Errorf("%q: %#04x by supported_versions: %+v", test.settings, version, got)
			}
		}
	}
}

func TestCipherSuitesThatAreTaken(t *testing.T) {
	s := both(t, "")
	var taken12, taken13 []uint16
	every := func(yield func(uint16) bool) { // that is registered, or was ever in use
		for _, r := range [][2]uint16{{0x0000, 0x00ff}, {0x1300, 0x1307}, {0x5600, 0x5600}, {0xc001, 0xc0b7}, {0xcc13, 0xcc15},
			{0xcca8, 0xccae}, {0xd001, 0xd005}, {0xfefe, 0xfeff}, {0xff80, 0xff87}} {
			for id := r[0]; ; id++ {
				if !yield(id) {
					return
				}
				if id == r[1] {
					break
				}
			}
		}
	}
	for id := range every {
		h := hello{version: tls.VersionTLS12, suites: []uint16{id}, groups: goodGroups, schemes: goodSchemes, name: "door.example"}
		if got := s.offer(h); got.taken {
			taken12 = append(taken12, got.suite)
		} else if got.alert != alertFailure && id != 0x5600 { // TLS_FALLBACK_SCSV is no suite: RFC 7507
			t.Errorf("%#04x: alert %d", id, got.alert)
		}
		h.versions = []uint16{tls.VersionTLS13}
		if got := s.offer(h); got.taken {
			taken13 = append(taken13, got.suite)
		} else if got.alert != alertFailure {
			t.Errorf("TLS 1.3, %#04x: alert %d", id, got.alert)
		}
	}
	want := slices.Sorted(slices.Values(goodSuites))
	if !slices.Equal(taken12, want) {
		t.Errorf("TLS 1.2: %#04x, want %#04x", taken12, want)
	}
	if want := []uint16{0x1301, 0x1302, 0x1303}; !slices.Equal(taken13, want) {
		t.Errorf("TLS 1.3: %#04x, want %#04x", taken13, want)
	}
}

func TestKeyExchangesThatAreTaken(t *testing.T) {
	s := both(t, "")
	var taken12, taken13 []uint16
	for _, r := range [][2]uint16{{0x0001, 0x0030}, {0x0100, 0x0110}, {0x0200, 0x0204}, {0x11eb, 0x11ee}, {0x2f39, 0x2f3c}, {0x6399, 0x639b},
		{0xfe30, 0xfe32}, {0xff01, 0xff02}} {
		for id := r[0]; id <= r[1]; id++ {
			h := hello{version: tls.VersionTLS12, suites: goodSuites, groups: []uint16{id}, schemes: goodSchemes, name: "door.example"}
			if s.offer(h).taken {
				taken12 = append(taken12, id)
			}
			h.suites, h.versions = []uint16{0x1301}, []uint16{tls.VersionTLS13}
			if s.offer(h).taken {
				taken13 = append(taken13, id)
			}
		}
	}
	if want := []uint16{0x0017, 0x0018, 0x001d}; !slices.Equal(taken12, want) {
		t.Errorf("TLS 1.2: %#04x, want %#04x", taken12, want)
	}
	if want := []uint16{0x0017, 0x0018, 0x001d, 0x11ec}; !slices.Equal(taken13, want) {
		t.Errorf("TLS 1.3: %#04x, want %#04x", taken13, want)
	}
}

func TestWeakSignaturesAreNotMade(t *testing.T) {
	s := both(t, "")
	for _, schemes := range [][]uint16{nil, {0x0201}, {0x0203}, {0x0101}, {0x0301, 0x0303}} { // none, SHA-1, MD5, SHA-224
		got := s.offer(hello{version: tls.VersionTLS12, suites: goodSuites, groups: goodGroups, schemes: schemes, name: "door.example"})
		if got.taken {
			t.Errorf("%#04x is taken", schemes)
		}
	}
}

func TestTheBestOfWhatAClientOffersIsChosen(t *testing.T) {
	s := both(t, "")
	for _, test := range []struct {
		offered tls.CurveID
		want    tls.CurveID
	}{{0, tls.X25519MLKEM768}, {tls.X25519, tls.X25519}, {tls.CurveP256, tls.CurveP256}} {
		c := s.client("door.example")
		if test.offered != 0 {
			c.CurvePreferences = []tls.CurveID{test.offered}
		}
		conn := must(s.dial(c))(t)
		if got := conn.ConnectionState(); got.Version != tls.VersionTLS13 || got.CurveID != test.want ||
			got.PeerCertificates[0].Subject.CommonName != "ecdsa" {
			t.Errorf("%s, %s, %s", tls.VersionName(got.Version), got.CurveID, got.PeerCertificates[0].Subject)
		}
		_ = conn.Close()
	}
}

// sslscan is an independent opinion. Debian has it as a package of that name.
func TestSSLScanFindsNothingWeak(t *testing.T) {
	path, err := exec.LookPath("sslscan")
	if err != nil {
		t.Skip("sslscan is not installed (apt-get install sslscan); the tests above ask the same by themselves")
	}
	s := both(t, "")
	out, err := exec.Command(path, "--no-colour", "--show-sigs", "--sni-name=door.example", s.address).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	report := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{
		"SSLv2 disabled", "SSLv3 disabled", "TLSv1.0 disabled", "TLSv1.1 disabled", "TLSv1.2 enabled", "TLSv1.3 enabled",
		"TLS renegotiation: Session renegotiation not supported",
		"TLSv1.2 not vulnerable to heartbleed", "TLSv1.3 not vulnerable to heartbleed", "Server supports TLS Fallback SCSV",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	for _, weak := range []string{"CBC", "RC4", "3DES", "NULL", "EXP", "anon", "-SHA ", " DHE-", "MD5", "sha1",
		"vulnerable to heartbleed (", " 56 bits"} {
		for _, line := range strings.Split(string(out), "\n") {
			if strings.HasPrefix(line, "Accepted") || strings.HasPrefix(line, "Preferred") || strings.Contains(line, "TLSv1.") {
				if strings.Contains(strings.ToLower(line), strings.ToLower(weak)) {
					t.Errorf("weak: %s", line)
				}
			}
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

func TestOpenSSLAgrees(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	s := both(t, "")
	root := filepath.Join(s.files, "root.pem")
	for _, test := range []struct {
		args string
		want string
	}{
		{"-tls1_3", "Verify return code: 0 (ok)"},
		{"-tls1_2", "Verify return code: 0 (ok)"},
		{"-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"},
		{"-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305"},
		{"-tls1_2 -cipher AES128-GCM-SHA256", "alert handshake failure"},
		{"-tls1_2 -cipher ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA256", "alert handshake failure"},
		{"-tls1_2 -cipher DHE-RSA-AES256-GCM-SHA384", "alert handshake failure"},
		{"-tls1_1 -cipher DEFAULT@SECLEVEL=0", "alert protocol version"},
		{"-tls1 -cipher DEFAULT@SECLEVEL=0", "alert protocol version"},
		{"-tls1_3 -curves P-521", "alert handshake failure"},
		{"-alpn h2,http/1.1", "ALPN protocol: h2"},
		{"-alpn http/1.1", "ALPN protocol: http/1.1"},
		{"-alpn smtp", "no application protocol"},
	} {
		args := append([]string{"s_client", "-connect", s.address, "-servername", "door.example", "-verify_hostname", "door.example",
			"-CAfile", root},
			strings.Fields(test.args)...)
		out, _ := exec.Command(path, args...).CombinedOutput() // it fails where the handshake does, which the output tells
		if !strings.Contains(string(out), test.want) {
			t.Errorf("openssl s_client %s: no %q in\n%s", test.args, test.want, out)
		}
	}
}
