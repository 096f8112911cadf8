package decode

import (
	"strings"
	"testing"

	"headgate/internal/secret"
)

// guarded has secrets that must not stand in a document as they are.
type guarded struct {
	Key     secret.String            `yaml:"key" literal:"sha256: age:"`
	Keys    []secret.String          `yaml:"keys" literal:"sha256:"`
	Headers map[string]secret.String `yaml:"headers" literal:"never"`
	Pointer *secret.String           `yaml:"pointer" literal:"bcrypt:"`
	Free    secret.String            `yaml:"free"`
}

func TestSecretsStandInTheDocumentOnlyAsTheirTagAllows(t *testing.T) {
	t.Setenv("DECODE_TEST_TOKEN", "s3cret")
	const (
		text      = "this secret stands in the document as text, where others can read it; write "
		reference = "a reference such as ${env:NAME} or ${file:PATH} [literal_secret]"
		hash      = "sha256:HEX (printf %s KEY | sha256sum), or "
	)
	for _, c := range []struct{ yaml, want string }{
		{"key: sha256:00", ""},
		{"key: age:00", ""},
		{"key: ${env:DECODE_TEST_TOKEN}", ""},
		{"keys: [sha256:00, 'x${env:DECODE_TEST_TOKEN}']", ""},
		{"headers: {a: 'Bearer ${env:DECODE_TEST_TOKEN}'}", ""},
		{"pointer: bcrypt:x", ""},
		{"pointer: ~", ""},
		{"free: hunter2", ""},
		{"key: hunter2", "1:6: key: " + text + hash + "age:..., or " + reference},
		{"key: Sha256:hunter2", "1:6: key: " + text + hash + "age:..., or " + reference},
		{"keys: [sha256:00, hunter2]", "1:19: keys[1]: " + text + hash + reference},
		{"keys: [12345]", "1:8: keys[0]: " + text + hash + reference},
		{"keys: ['$${hunter2']", "1:8: keys[0]: " + text + hash + reference},
		{"x: &k hunter2\nkeys: [*k]", "1:4: keys[0]: " + text + hash + reference},
		{"headers: {a: sha256:hunter2}", "1:14: headers.a: " + text + reference},
		{"pointer: hunter2", "1:10: pointer: " + text + "bcrypt:HASH (htpasswd -nbB USER PASSWORD), or " + reference},
	} {
		var got guarded
		ps := Value(parse(t, c.yaml), &got)
		if told := ps.Error(); c.want == "" && len(ps) > 0 || !strings.Contains(told, c.want) || strings.Contains(told, "hunter2") {
			t.Errorf("%s\n got: %s\nwant: %s", c.yaml, told, c.want)
		}
	}
}
