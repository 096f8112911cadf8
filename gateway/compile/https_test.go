package compile

import (
	"strings"
	"testing"
)

func TestHTTP01NeedsAListenerInClear(t *testing.T) {
	const acme = "{address: ':8443', tls: {acme: {domains: [a.example], challenges: [http-01]}}}"
	for doc, refused := range map[string]bool{
		"listeners: {a: " + acme + "}":                                                        true,
		"listeners: {a: " + acme + ", b: {address: ':80', tcp: {upstream: x}}}":               true,
		"listeners: {a: " + acme + ", b: {address: ':80', redirect_to_https: {port: 8443}}}":  false,
		"listeners: {a: " + strings.Replace(acme, "http-01", "http-01, tls-alpn-01", 1) + "}": false,
		"listeners: {a: " + strings.Replace(acme, ", challenges: [http-01]", "", 1) + "}":     false,
		"listeners: {a: " + strings.Replace(acme, "http-01", "tls-alpn-01", 1) + "}":          false,
	} {
		lines := strings.Join(newWorld(t).refuse(doc), "\n")
		if got := strings.Contains(lines, "http-01 is answered by a listener in clear"); got != refused {
			t.Errorf("%s\nrefused for that: %v, want %v\n%s", doc, got, refused, lines)
		}
	}
}
