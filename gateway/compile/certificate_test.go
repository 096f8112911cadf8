package compile

import (
	"strings"
	"testing"
)

func TestPropertiesOfCertificatesAreBroughtIntoOneForm(t *testing.T) {
	const sum = "ABEiM0RVZneImaq7zN3u_wARIjNEVWZ3iJmqu8zd7v8"
	for written, want := range map[string]certificateKey{
		"thumbprint:" + strings.Repeat("00112233445566778899aabbccddeeff", 2):                                    {"thumbprint", sum},
		"thumbprint:" + strings.Trim(strings.Repeat("00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:", 2), ":"): {"thumbprint", sum},
		"thumbprint:" + sum:          {"thumbprint", sum},
		"subject:CN=a,O=B: C":        {"subject", "CN=a,O=B: C"},
		"dns:A.Example":              {"dns", "a.example"},
		"uri:spiffe://example.com/A": {"uri", "spiffe://example.com/A"},
		"email:A@example.com":        {"email", "a@example.com"},
	} {
		if got, err := parseCertificate(written); err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", written, got, err, want)
		}
	}
	for _, wrong := range []string{"", "dns", "dns:", "thumbprint:00", "subject:a", "email:a", "uri:a", "name:a"} {
		if got, err := parseCertificate(wrong); err == nil {
			t.Errorf("%q is read as %v", wrong, got)
		}
	}
}
