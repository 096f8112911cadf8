package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"
)

type holder struct {
	Password String            `json:"password" yaml:"password"`
	Keys     []String          `json:"keys" yaml:"keys"`
	ByName   map[string]String `json:"by_name" yaml:"by_name"`
	Pointer  *String           `json:"pointer" yaml:"pointer"`
	hidden   String
}

// Every way in which programs print values, of a secret and of what holds one.
func printed(t *testing.T, s String) map[string]string {
	t.Helper()
	h := holder{s, []String{s}, map[string]String{"a": s}, &s, s}
	out := map[string]string{"Stringer": s.String(), "error": errors.Join(fmt.Errorf("bad %w of %v", errors.New("use"), s)).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		out[verb] = fmt.Sprintf(verb, s) + fmt.Sprintf(verb, &s) + fmt.Sprintf(verb, h) + fmt.Sprintf(verb, []any{s, h})
	}
	for name, marshal := range map[string]func(any) ([]byte, error){"JSON": json.Marshal, "YAML": yaml.Marshal} {
		b, err := marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(b)
	}
	var b bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(handler).Info("a message", "secret", s, "pointer", &s, "holder", h, slog.Group("g", "secret", s))
	}
	out["slog"] = b.String()
	return out
}

func TestASecretIsNeverPrinted(t *testing.T) {
	const value = "correct horse battery staple"
	hex := fmt.Sprintf("%x", value)
	for how, got := range printed(t, New(value)) {
		if strings.Contains(got, value) || strings.Contains(strings.ToLower(got), hex) || strings.Contains(got, "99 111 114 114") {
			t.Errorf("%s shows it: %s", how, got)
		}
	}
	if New(value).Reveal() != value {
		t.Error("lost")
	}
}

func TestAnEmptySecretPrintsAsNothing(t *testing.T) {
	var s String
	if !s.Empty() || s.String() != "" || New("x").Empty() || New("x").String() != "<secret>" {
		t.Errorf("%q", s)
	}
}

func TestSecretsAreComparedByTheirValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		if New(a).Equal(b) != (a == b) || !New(a).Equal(a) {
			t.Fatalf("%q and %q", a, b)
		}
	})
}
