package compile

import (
	"slices"
	"testing"
)

func TestWhatHTTP3NeedsBesideItIsSaidAtItsPlace(t *testing.T) {
	got := newWorld(t).refuse(`
listeners:
  a: {address: ":1", protocols: [h1, h3]}
  b: {address: ":2", protocols: [h3], tls: {internal: [localhost]}}
  c: {address: ":3", protocols: [h2, h3], tls: {internal: [localhost], early_data: true, client_auth: {ca: [ca.pem]}}}
`)
	for _, want := range []string{
		"gate.yaml:3:33: listeners.a.protocols: h3 is always encrypted; give the listener tls, or leave h3 out [invalid_value]",
		"gate.yaml:4:33: listeners.b.protocols: h3 alone is found by nobody: clients hear of it over h1 or h2; " +
			"write [h1, h2, h3] [invalid_value]",
		"gate.yaml:5:84: listeners.c.tls.early_data: early data comes before a client has shown who it is; " +
			"leave it out, or client_auth [invalid_value]",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("not said: %s\nsaid: %q", want, got)
		}
	}
}
