package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	josev4 "github.com/go-jose/go-jose/v4"
)

// pairs are made once: RSA keys take long.
var pairs = sync.OnceValue(func() map[string]any {
	must := func(k any, err error) any {
		if err != nil {
			panic(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return map[string]any{
		"RS": must(rsa.GenerateKey(rand.Reader, 2048)), "Ed": must(ed, err), "HS": []byte(strings.Repeat("s3cret!-", 8)),
		"ES256": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"ES384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ES512": must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
	}
})

// pair returns the private key for an algorithm.
func pair(alg string) any {
	if alg[0] == 'P' {
		alg = "RS256"
	}
	if k, ok := pairs()[alg]; ok {
		return k
	}
	return pairs()[alg[:2]]
}

func public(private any) any {
	if p, ok := private.(crypto.Signer); ok {
		return p.Public()
	}
	return private
}

// sign makes a token with another implementation than the one under test.
func sign(t testing.TB, alg string, key any, payload string, headers map[josev4.HeaderKey]any) string {
	t.Helper()
	with := josev4.SigningKey{Algorithm: josev4.SignatureAlgorithm(alg), Key: key}
	s, err := josev4.NewSigner(with, &josev4.SignerOptions{ExtraHeaders: headers})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// key returns our key for a private one, by way of a key set where there can be one.
func key(t testing.TB, private any) *Key {
	t.Helper()
	if secret, ok := private.([]byte); ok {
		k, err := Secret(secret)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	data, err := json.Marshal(josev4.JSONWebKeySet{Keys: []josev4.JSONWebKey{{Key: public(private), KeyID: "a", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	keys, skipped, err := Set(data)
	if err != nil || len(skipped) > 0 || len(keys) != 1 {
		t.Fatal(keys, skipped, err)
	}
	return keys[0]
}

func TestEveryAlgorithmVerifiesItsOwnSignaturesAndNoOthers(t *testing.T) {
	for _, alg := range Algorithms() {
		t.Run(alg, func(t *testing.T) {
			raw := sign(t, alg, pair(alg), `{"sub":"ann"}`, nil)
			token, err := Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			payload, err := token.Verify(key(t, pair(alg)))
			if err != nil || string(payload) != `{"sub":"ann"}` {
				t.Fatalf("got %q, %v", payload, err)
			}
			forged, err := Parse(raw[:len(raw)-8] + flip(raw[len(raw)-8:]))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := forged.Verify(key(t, pair(alg))); !errors.Is(err, ErrSignature) {
				t.Errorf("a changed signature: %v", err)
			}
			parts := strings.Split(raw, ".")
			changed, err := Parse(parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"eve"}`)) + "." + parts[2])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := changed.Verify(key(t, pair(alg))); !errors.Is(err, ErrSignature) {
				t.Errorf("changed claims: %v", err)
			}
			for _, other := range Algorithms() {
				if k := key(t, pair(other)); !k.Allows(alg) {
					if _, err := token.Verify(k); err == nil {
						t.Errorf("verified by a key for %s", other)
					}
				}
			}
		})
	}
}

func flip(s string) string {
	if s[0] == 'A' {
		return "B" + s[1:]
	}
	return "A" + s[1:]
}

// TestAPublicKeyIsNeverAnHMACSecret forges a token in the way of the algorithm confusion attack: HMAC with the public key as
// it is published for secret.
func TestAPublicKeyIsNeverAnHMACSecret(t *testing.T) {
	der, err := x509.MarshalPKIXPublicKey(public(pair("RS256")))
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for _, secret := range [][]byte{text, bytes.TrimSpace(text), der} {
		k, err := PEM(string(text))
		if err != nil {
			t.Fatal(err)
		}
		token, err := Parse(sign(t, "HS256", secret, `{}`, nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := token.Verify(k); err == nil {
			t.Error("a forged token was accepted")
		}
	}
}

func TestKeysThatATokenBringsAlongAreIgnored(t *testing.T) {
	eve := pair("ES256")
	raw := sign(t, "ES256", eve, `{}`, map[josev4.HeaderKey]any{
		"jwk": josev4.JSONWebKey{Key: public(eve)}, "jku": "https://eve.example/keys", "x5u": "https://eve.example/cert",
	})
	token, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Verify(key(t, other)); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v", err)
	}
}

func TestTokensThatTwoProgramsCouldReadDifferentlyAreRefused(t *testing.T) {
	enc := base64.RawURLEncoding.EncodeToString
	good := sign(t, "HS256", pair("HS256"), `{"sub":"ann"}`, nil)
	parts := strings.Split(good, ".")
	for name, raw := range map[string]string{
		"empty":                 "",
		"two parts":             parts[0] + "." + parts[1],
		"four parts":            good + ".x",
		"empty payload":         parts[0] + ".." + parts[2],
		"empty head":            "." + parts[1] + "." + parts[2],
		"encrypted":             "a.b.c.d.e",
		"white space":           " " + good,
		"line break":            parts[0][:4] + "\n" + parts[0][4:] + "." + parts[1] + "." + parts[2],
		"padding":               parts[0] + "=." + parts[1] + "." + parts[2],
		"not base64url":         "e+/." + parts[1] + "." + parts[2],
		"head is a list":        enc([]byte(`["HS256"]`)) + "." + parts[1] + "." + parts[2],
		"head is no JSON":       enc([]byte(`{"alg":"HS256"`)) + "." + parts[1] + "." + parts[2],
		"more behind the head":  enc([]byte(`{"alg":"HS256"}{}`)) + "." + parts[1] + "." + parts[2],
		"alg twice":             enc([]byte(`{"alg":"HS256","alg":"none"}`)) + "." + parts[1] + "." + parts[2],
		"another member twice":  enc([]byte(`{"alg":"HS256","x":1,"x":2}`)) + "." + parts[1] + "." + parts[2],
		"no alg":                enc([]byte(`{"typ":"JWT"}`)) + "." + parts[1] + "." + parts[2],
		"alg in capitals":       enc([]byte(`{"ALG":"HS256"}`)) + "." + parts[1] + "." + parts[2],
		"alg is a number":       enc([]byte(`{"alg":256}`)) + "." + parts[1] + "." + parts[2],
		"crit":                  enc([]byte(`{"alg":"HS256","crit":["exp"]}`)) + "." + parts[1] + "." + parts[2],
		"empty crit":            enc([]byte(`{"alg":"HS256","crit":[]}`)) + "." + parts[1] + "." + parts[2],
		"null crit":             enc([]byte(`{"alg":"HS256","crit":null}`)) + "." + parts[1] + "." + parts[2],
		"unencoded":             enc([]byte(`{"alg":"HS256","b64":false,"crit":["b64"]}`)) + "." + parts[1] + "." + parts[2],
		"b64 without crit":      enc([]byte(`{"alg":"HS256","b64":false}`)) + "." + parts[1] + "." + parts[2],
		"head that is no UTF-8": enc([]byte("{\"alg\":\"HS256\",\"kid\":\"\xff\"}")) + "." + parts[1] + "." + parts[2],
	} {
		if token, err := Parse(raw); err == nil {
			t.Errorf("%s: read as %+v", name, token)
		}
	}
	// The last character of a base64 text may have bits that mean nothing: another spelling of the same signature.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[len(good)-1])
	token, err := Parse(good[:len(good)-1] + string(alphabet[last^1]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Verify(key(t, pair("HS256"))); err == nil {
		t.Error("a second spelling of the signature is accepted")
	}
}

func TestNoneIsNoAlgorithm(t *testing.T) {
	enc := base64.RawURLEncoding.EncodeToString
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "HS1", "RS1", "", "EdDSA "} {
		head, _ := json.Marshal(map[string]string{"alg": alg})
		for _, signature := range []string{"", enc([]byte("x"))} {
			token, err := Parse(enc(head) + "." + enc([]byte(`{}`)) + "." + signature)
			if err != nil {
				continue
			}
			for _, a := range Algorithms() {
				if _, err := token.Verify(key(t, pair(a))); err == nil {
					t.Errorf("algorithm %q with signature %q is accepted by a key for %s", alg, signature, a)
				}
			}
		}
	}
}

func TestKeysAreReadOrRefusedWithTheReason(t *testing.T) {
	der := func(typ string, k any) string {
		var b []byte
		var err error
		if typ == "PRIVATE KEY" {
			b, err = x509.MarshalPKCS8PrivateKey(k)
		} else {
			b, err = x509.MarshalPKIXPublicKey(k)
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b}))
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := der("PUBLIC KEY", public(pair("ES384")))
	for name, c := range map[string]struct{ text, want string }{
		"good":        {good, ""},
		"two":         {good + good, "more behind"},
		"none":        {"ssh-ed25519 AAAA", "no PEM block"},
		"private":     {der("PRIVATE KEY", pair("ES256")), "private key"},
		"P-224":       {der("PUBLIC KEY", public(p224)), "not supported"},
		"broken":      {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"},
		"other block": {"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n", "is no key"},
	} {
		if _, err := PEM(c.text); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for length, algs := range map[int]string{32: "[HS256]", 48: "[HS256 HS384]", 64: "[HS256 HS384 HS512]"} {
		k, err := Secret(make([]byte, length))
		if err != nil || fmt.Sprint(k.Algorithms()) != algs {
			t.Errorf("a secret of %d bytes: %v, %v", length, k, err)
		}
	}
	if _, err := Secret(make([]byte, 31)); err == nil {
		t.Error("a secret of 31 bytes is accepted")
	}
}

func TestOneBadKeyOfASetDoesNotSpoilTheOthers(t *testing.T) {
	jwk := func(k josev4.JSONWebKey) string {
		b, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	weak := `{"kty":"RSA","n":"` + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 128)) + `","e":"AQAB"}`
	set := `{"keys":[` + strings.Join([]string{
		jwk(josev4.JSONWebKey{Key: public(pair("RS256")), KeyID: "a", Algorithm: "PS384"}),
		jwk(josev4.JSONWebKey{Key: public(pair("EdDSA")), KeyID: "b"}),
		jwk(josev4.JSONWebKey{Key: public(pair("ES256")), KeyID: "enc", Use: "enc"}),
		jwk(josev4.JSONWebKey{Key: public(pair("ES256")), KeyID: "alg", Algorithm: "ES384"}),
		jwk(josev4.JSONWebKey{Key: pair("ES256"), KeyID: "private"}),
		jwk(josev4.JSONWebKey{Key: pair("HS256"), KeyID: "secret"}),
		`{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}`,
		`{"kty":"new"}`, `{"kty":"RSA","kty":"EC"}`, `[]`, weak,
		`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","key_ops":["sign"]}`,
	}, ",") + `]}`
	keys, skipped, err := Set([]byte(set))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range keys {
		got = append(got, k.ID+fmt.Sprint(k.Algorithms()))
	}
	if want := "a[PS384] b[EdDSA]"; strings.Join(got, " ") != want || len(skipped) != 10 {
		t.Errorf("got %v and skipped %d:\n%v", got, len(skipped), errors.Join(skipped...))
	}
	for _, bad := range []string{"", "[]", "{}", `{"keys":{}}`, `{"keys":[],"keys":[]}`, `{"keys":[` + strings.Repeat("1,", maxKeys) + `1]}`} {
		if _, _, err := Set([]byte(bad)); err == nil {
			t.Errorf("%.30s is read as a key set", bad)
		}
	}
}

func TestClaimsAreFoundByPath(t *testing.T) {
	c, err := ParseClaims([]byte(`{"sub":"ann","realm":{"roles":["a"],"x.y":1},"a.b":{"c":true},"https://e.com/r":"z","n":null,
		"exp":1700000000.5,"iat":"x","nbf":1e300,"aud":["a","b"],"bad":["a",1]}`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"sub": "ann", "realm.roles": "[a]", "realm.x.y": "1", "a.b.c": "true", "https://e.com/r": "z",
		"n": "<nil>", "sub.x": "<nil>", "realm.": "<nil>", ".": "<nil>", "": "<nil>", "a": "<nil>",
	} {
		if got := fmt.Sprint(c.Claim(path)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if exp, ok, err := c.Time("exp"); !ok || err != nil || exp != time.Unix(1700000000, 5e8) {
		t.Error(exp, ok, err)
	}
	if _, _, err := c.Time("iat"); err == nil {
		t.Error("a date in text is accepted")
	}
	if nbf, _, err := c.Time("nbf"); err != nil || nbf.Before(time.Unix(1<<39, 0)) {
		t.Error("a date far away is not far away", nbf, err)
	}
	if aud, err := c.Strings("aud"); err != nil || len(aud) != 2 {
		t.Error(aud, err)
	}
	if _, err := c.Strings("bad"); err == nil {
		t.Error("a list with a number is a list of texts")
	}
	if n := testing.AllocsPerRun(100, func() { c.Claim("realm.roles") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for _, bad := range []string{
		"", "null", "[]", `"x"`, `{"a":1,"a":2}`, `{"a":{"b":1,"b":2}}`, `{"a":[{"b":1,"b":2}]}`, "{} {}", "{\"a\":\"\xff\"}",
	} {
		if c, err := ParseClaims([]byte(bad)); err == nil {
			t.Errorf("%s is read as %v", bad, c)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("eyJhbGciOiJIUzI1NiJ9.e30.AAAA")
	f.Fuzz(func(t *testing.T, raw string) {
		token, err := Parse(raw)
		if err != nil {
			return
		}
		if _, err := token.Verify(key(t, pair("HS256"))); err == nil {
			t.Fatal("a forged token was accepted")
		}
		// What is accepted here must mean the same to another implementation, or nothing.
		jws, err := josev4.ParseSignedCompact(raw, []josev4.SignatureAlgorithm{josev4.SignatureAlgorithm(token.Algorithm)})
		if err == nil && (jws.Signatures[0].Header.Algorithm != token.Algorithm || jws.Signatures[0].Header.KeyID != token.KeyID) {
			t.Fatalf("read as %+v, elsewhere as %+v", token, jws.Signatures[0].Header)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA", "HS256"} {
		b.Run(alg, func(b *testing.B) {
			raw, k := sign(b, alg, pair(alg), `{"sub":"ann","exp":1700000000}`, nil), key(b, pair(alg))
			b.ReportAllocs()
			for b.Loop() {
				token, _ := Parse(raw)
				if _, err := token.Verify(k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
