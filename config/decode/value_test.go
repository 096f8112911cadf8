package decode

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"headgate/config/model"
	"headgate/internal/secret"
	"headgate/internal/size"
)

type inner struct {
	Level string `yaml:"level" oneof:"low high"`
	Depth int    `yaml:"depth" min:"1" max:"9"`
}

func (i *inner) SetDefaults() { i.Level, i.Depth = "low", 3 }

type embedded struct {
	Shared string `yaml:"shared"`
}

type pair struct {
	Host string `yaml:"host" required:"true" doc:"Where."`
	Port int    `yaml:"port" min:"1" max:"65535"`
}

func (p *pair) FromScalar(s string) error {
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return errors.New(`"` + s + `" is not host:port`)
	}
	p.Host, p.Port = host, len(port)
	return nil
}

type everything struct {
	embedded
	Embedded2 embedded       `yaml:",inline"`
	Text      string         `yaml:"text"`
	Flag      bool           `yaml:"flag"`
	Count     int            `yaml:"count" min:"1" max:"10"`
	Small     int8           `yaml:"small"`
	Unsigned  uint16         `yaml:"unsigned"`
	Ratio     float64        `yaml:"ratio" min:"0" max:"1"`
	Wait      time.Duration  `yaml:"wait" min:"1s" max:"1m"`
	Size      size.Bytes     `yaml:"size" min:"1KiB"`
	Secret    secret.String  `yaml:"secret"`
	Pointer   *inner         `yaml:"pointer"`
	Nested    inner          `yaml:"nested"`
	List      []inner        `yaml:"list" max:"2"`
	Words     []string       `yaml:"words" oneof:"red green"`
	Map       map[string]int `yaml:"map"`
	Path      string         `yaml:"path" pattern:"^/"`
	Pair      pair           `yaml:"pair"`
	Any       any            `yaml:"any"`
	Raw       *yaml.Node     `yaml:"raw"`
	Number    *int           `yaml:"number" min:"5"`
	Status    int            `yaml:"status" oneof:"301 302"`
	Ignored   string         `yaml:"-"`
}

func parse(t testing.TB, text string) *yaml.Node {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	return &n
}

func TestEveryTypeIsDecoded(t *testing.T) {
	t.Setenv("DECODE_TEST_TOKEN", "s3cret")
	five := 5
	file := filepath.Join(t.TempDir(), "count")
	if err := os.WriteFile(file, []byte("7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got everything
	ps := Value(parse(t, `
shared: s
text: no
flag: true
count: ${file:`+file+`}
small: -0x10
unsigned: 65535
ratio: 0.25
wait: 1m
size: 64KiB
secret: Bearer ${env:DECODE_TEST_TOKEN}
pointer: {depth: 9}
nested: {level: high}
list: [{}, {level: high, depth: 1}]
words: [red, green]
map: {a: 1, 200: 2}
path: /x$${y}
pair: "example.com:80"
any: {a: [1, 0123, no, "1", 1.5, ~, true]}
raw: {kept: [as, it, is]}
number: 5
status: 302
`), &got)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	if got.Secret.Reveal() != "Bearer s3cret" {
		t.Errorf("secret = %q", got.Secret.Reveal())
	}
	if got.Raw == nil || got.Raw.Kind != yaml.MappingNode {
		t.Errorf("raw = %v", got.Raw)
	}
	got.Secret, got.Raw = secret.String{}, nil
	want := everything{
		Text: "no", Flag: true, Count: 7, Small: -16, Unsigned: 65535, Ratio: 0.25, Wait: time.Minute, Size: 64 * size.KiB,
		Pointer: &inner{"low", 9}, Nested: inner{"high", 3}, List: []inner{{"low", 3}, {"high", 1}}, Words: []string{"red", "green"},
		Map: map[string]int{"a": 1, "200": 2}, Path: "/x${y}", Pair: pair{"example.com", 2},
		Any:    map[string]any{"a": []any{int64(1), "0123", "no", "1", 1.5, nil, true}},
		Number: &five, Status: 302,
	}
	want.Embedded2.Shared = "s"
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(everything{}, secret.String{})); diff != "" {
		t.Error(diff)
	}
}

func TestTextIsKeptAsWritten(t *testing.T) {
	for _, text := range []string{"no", "0123", "1.10", "0x1F", "1e3", "true", "2001-01-01", "12:30:45", "1_000", "=", "<<x", "nUlL"} {
		var got struct {
			Text string `yaml:"text"`
		}
		if ps := Value(parse(t, "text: "+text), &got); len(ps) > 0 || got.Text != text {
			t.Errorf("%s became %q, %v", text, got.Text, ps)
		}
	}
}

// TestEveryMistakeIsExplained is the list of what the decoder says; it is meant to be read.
func TestEveryMistakeIsExplained(t *testing.T) {
	t.Setenv("DECODE_TEST_TOKEN", "s3cret")
	for _, c := range []struct{ yaml, want string }{
		{"txet: x", `1:1: txet: unknown key "txet"; did you mean "text"? [unknown_key]`},
		{"nested: {quite: 1}", `1:10: nested.quite: unknown key "quite"; allowed: level, depth [unknown_key]`},
		{"text: a\ntext: b", `2:1: text: "text" is already written at line 1 [duplicate_key]`},
		{"text: [a]", `1:7: text: expected text, found a list [wrong_type]`},
		{"text:", `1:6: text: nothing is written here; give a value or remove the key [empty_value]`},
		{"text: !!binary aGk=", `1:7: text: the tag !!binary has no meaning here; remove it [unknown_tag]`},
		{"text: !cat x", `1:7: text: the tag !cat has no meaning here; remove it [unknown_tag]`},
		{"flag: yes", `1:7: flag: expected true or false, found "yes"; write true [wrong_type]`},
		{"flag: off", `1:7: flag: expected true or false, found "off"; write false [wrong_type]`},
		{`flag: "true"`, `1:7: flag: expected true or false, found "true"; write it without quotes [wrong_type]`},
		{"count: 11", `1:8: count: "11" is out of range; allowed 1 to 10 [out_of_range]`},
		{"count: 0123", `1:8: count: expected a whole number, found "0123"; write 123, or 0o123 for octal [wrong_type]`},
		{"count: 1_0", `1:8: count: expected a whole number, found "1_0" [wrong_type]`},
		{"count: 1.5", `1:8: count: expected a whole number, found "1.5" [wrong_type]`},
		{`count: "5"`, `1:8: count: expected a whole number, found "5"; write it without quotes [wrong_type]`},
		{"small: 128", `1:8: small: "128" does not fit; a whole number [out_of_range]`},
		{"unsigned: -1", `1:11: unsigned: "-1" does not fit; a whole number of 0 or more [out_of_range]`},
		{"ratio: .nan", `1:8: ratio: expected a number, found ".nan" [wrong_type]`},
		{"ratio: 1.5", `1:8: ratio: "1.5" is out of range; allowed 0 to 1 [out_of_range]`},
		{"wait: 30", `1:7: wait: expected a duration such as 500ms, 30s, 5m or 1h, found "30"; a unit is missing: write 30s for seconds [wrong_type]`},
		{"wait: -1s", `1:7: wait: "-1s" is negative; a duration is 0s or more [out_of_range]`},
		{"wait: 5m", `1:7: wait: "5m" is out of range; allowed 1s to 1m [out_of_range]`},
		{"size: 1", `1:7: size: "1" is out of range; allowed 1KiB or more [out_of_range]`},
		{"size: 1 cow", `1:7: size: "1 cow" is not an amount of bytes; write a whole number with an optional unit, such as 512, 64KiB or 10MB [wrong_type]`},
		{`secret: ""`, `1:9: secret: the secret is empty [empty_value]`},
		{"pointer:", `1:9: pointer: nothing is written here; write {} for the defaults, or remove the key [empty_value]`},
		{"nested: {level: hihg}", `1:17: nested.level: "hihg" is not allowed; write low or high; did you mean "high"? [not_one_of]`},
		{"status: 303", `1:9: status: "303" is not allowed; write 301 or 302; did you mean "301"? [not_one_of]`},
		{"words: [red, blue]", `1:14: words[1]: "blue" is not allowed; write red or green [not_one_of]`},
		{"words: red", `1:8: words: expected a list, found "red"; write words: ["red"] [wrong_type]`},
		{"words: {red: 1}", `1:8: words: expected a list, found a mapping; write words: [...] [wrong_type]`},
		{"words: [red, ]\nlist: [{}, {}, {}]", `2:7: list: 3 entries; allowed up to 2 [out_of_range]`},
		{"words: [~]", `1:9: words[0]: nothing is written here; give a value or remove the entry [empty_value]`},
		{"map: {a b: x}", `1:12: map["a b"]: expected a whole number, found "x" [wrong_type]`},
		{"map: [1]", `1:6: map: expected a mapping, found a list [wrong_type]`},
		{"? [a]\n: b", `1:3: a key must be text, found a list [wrong_type]`},
		{"path: x", `1:7: path: "x" must begin with / [bad_pattern]`},
		{"pair: {port: 0}", "1:7: pair.host: host is missing: Where [missing_key]\n" +
			`1:14: pair.port: "0" is out of range; allowed 1 to 65535 [out_of_range]`},
		{`pair: {host: ""}`, `1:14: pair.host: host must not be empty [missing_key]`},
		{"pair: {host: ~}", `1:7: pair.host: host is missing: Where [missing_key]`},
		{"pair: example.com", `1:7: pair: "example.com" is not host:port [invalid_value]`},
		{"pair: [a]", `1:7: pair: expected a mapping with the keys host, port or its short form, found a list [wrong_type]`},
		{"nested: high", `1:9: nested: expected a mapping with the keys level, depth, found "high" [wrong_type]`},
		{"number: 4", `1:9: number: "4" is out of range; allowed 5 or more [out_of_range]`},
		{"text: ${env:DECODE_TEST_UNSET}", `1:7: text: the environment variable DECODE_TEST_UNSET is not set [missing_reference]`},
		{"text: ${file:/nowhere/at/all}", `1:7: text: the file /nowhere/at/all cannot be read: no such file or directory [missing_reference]`},
		{"text: ${file:/dev/null}", `1:7: text: the file /dev/null cannot be read: it is not a regular file [missing_reference]`},
		{"text: ${env:A B}", `1:7: text: "A B" is not the name of an environment variable [bad_reference]`},
		{"text: ${env:A", `1:7: text: the reference "${env:A" has no closing } [bad_reference]`},
		{"text: ${enw:A}", `1:7: text: unknown kind of reference "enw"; did you mean "env"?; write ${env:NAME} or ${file:PATH}, or $${ for the text itself [bad_reference]`},
		{"text: ${TOKEN}", `1:7: text: ${TOKEN} is not a reference; write ${env:TOKEN}, or $${TOKEN} for the text itself [bad_reference]`},
		{"count: ${env:DECODE_TEST_TOKEN}", `1:8: count: expected a whole number, found <secret> [wrong_type]`},
		{"wait: ${env:DECODE_TEST_TOKEN}", `1:7: wait: expected a duration such as 500ms, 30s, 5m or 1h, found <secret> [wrong_type]`},
		{"size: ${env:DECODE_TEST_TOKEN}", `1:7: size: expected an amount of bytes such as 512, 64KiB or 10MB, found <secret> [wrong_type]`},
		{"path: ${env:DECODE_TEST_TOKEN}", `1:7: path: <secret> must begin with / [bad_pattern]`},
		{"words: ${env:DECODE_TEST_TOKEN}", `1:8: words: expected a list, found <secret>; write words: [...] [wrong_type]`},
		{"words: [\"${env:DECODE_TEST_TOKEN}\"]", `1:9: words[0]: <secret> is not allowed; write red or green [not_one_of]`},
		{"pair: ${env:DECODE_TEST_TOKEN}", `1:7: pair: <secret> is not what belongs here [invalid_value]`},
		{"[1]", `1:1: expected a mapping with the keys`},
		{"<<: 1", `1:5: << merges a mapping or a list of mappings, found "1" [wrong_type]`},
	} {
		var got everything
		ps := Value(parse(t, c.yaml), &got)
		if len(ps) == 0 || !strings.HasPrefix(ps.Error(), c.want) {
			t.Errorf("%s\n got: %s\nwant: %s", c.yaml, ps.Error(), c.want)
		}
		if strings.Contains(ps.Error(), "s3cret") {
			t.Errorf("%s prints the secret: %s", c.yaml, ps.Error())
		}
	}
}

func TestAllProblemsComeAtOnceInTheirOrder(t *testing.T) {
	var got everything
	ps := Value(parse(t, "wait: 1\nflag: yes\nnope: 1\ncount: 99\nlist: [{depth: 0}, {level: x}]"), &got)
	want := []string{"wrong_type", "wrong_type", "unknown_key", "out_of_range", "out_of_range", "not_one_of"}
	var codes []string
	for _, p := range ps {
		codes = append(codes, p.Code)
	}
	if diff := cmp.Diff(want, codes); diff != "" {
		t.Errorf("%s\n%s", diff, ps.Error())
	}
}

func TestNoNodeMeansDefaultsAndMissingKeys(t *testing.T) {
	var in inner
	if ps := Value(nil, &in); len(ps) > 0 || in != (inner{"low", 3}) {
		t.Errorf("got %v, %v", in, ps)
	}
	var p pair
	if ps := Value(nil, &p); len(ps) != 1 || ps[0].Code != "missing_key" {
		t.Errorf("got %v", ps)
	}
}

func TestWhatTheParentFilledIsKept(t *testing.T) {
	type outer struct {
		Nested inner `yaml:"nested"`
	}
	got := outer{Nested: inner{Level: "high"}} // depth 0 is the parent's choice
	if ps := Value(parse(t, "{}"), &got); len(ps) > 0 || got.Nested != (inner{Level: "high"}) {
		t.Errorf("got %v, %v", got, ps)
	}
}

func TestAliasesAndMergeKeysAreFollowed(t *testing.T) {
	var got struct {
		Base inner            `yaml:"base"`
		All  map[string]inner `yaml:"all"`
		Some []inner          `yaml:"some"`
	}
	ps := Value(parse(t, `
base: &base {level: high, depth: 7}
all:
  same: *base
  less: {<<: *base, depth: 1}
  both: {<<: [{depth: 2}, *base]}
some: [*base]
`), &got)
	want := map[string]inner{"same": {"high", 7}, "less": {"high", 1}, "both": {"high", 2}}
	if diff := cmp.Diff(want, got.All); diff != "" || len(ps) > 0 || got.Some[0] != (inner{"high", 7}) {
		t.Error(diff, ps)
	}
}

func TestAliasBombsAreRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		b.WriteString(strings.NewReplacer("N", string(rune('1'+i)), "M", string(rune('0'+i))).Replace(
			"aN: &aN [*aM, *aM, *aM, *aM, *aM, *aM, *aM, *aM, *aM, *aM]\n"))
	}
	start := time.Now()
	var got map[string]any
	ps := Value(parse(t, b.String()), &got)
	if len(ps) != 1 || ps[0].Code != "too_many_aliases" {
		t.Errorf("got %d problems: %.300s", len(ps), ps.Error())
	}
	var loop map[string]any
	ps = Value(parse(t, "a: &a [*a]"), &loop)
	if len(ps) != 1 || ps[0].Code != "too_deep" {
		t.Errorf("got %d problems: %.300s", len(ps), ps.Error())
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var got map[string]int
	ps := Value(parse(t, "{"+strings.Repeat("x: y, ", 5000)+"}"), &got)
	if len(ps) > maxProblems+1 || !strings.Contains(ps.Error(), "[too_many_problems]") {
		t.Errorf("%d problems", len(ps))
	}
}

func TestPoliciesAreReadInEveryForm(t *testing.T) {
	var got struct {
		Policies []model.Policy `yaml:"policies"`
	}
	ps := Value(parse(t, `
policies:
  - api-key
  - rate-limit: {limit: 100}
    when: consumer != ""
    mode: shadow
  - cors:
    name: open
  - any: [api-key, jwt: {issuer: x}]
`), &got)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	p := got.Policies
	if p[0].Kind != "api-key" || p[0].Options != nil || p[1].Kind != "rate-limit" || p[1].Options == nil ||
		p[1].When != `consumer != ""` || p[1].Mode != "shadow" || p[2].Kind != "cors" || p[2].Options != nil || p[2].Name != "open" ||
		p[3].Kind != "any" || len(p[3].Group) != 2 || p[3].Group[1].Kind != "jwt" || p[3].Group[1].Options == nil {
		t.Errorf("got %+v", p)
	}
}

func TestMistakesInPoliciesAreExplained(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"- rate-limit: {}\n  wehn: x", `2:3: [0].wehn: unknown key "wehn" beside rate-limit; did you mean "when"? [unknown_key]`},
		{"- wehn: x\n  rate-limit: {}", `1:3: [0].wehn: unknown key "wehn" beside rate-limit; did you mean "when"? [unknown_key]`},
		{"- rate-limit:\n  limit: 100", `2:3: [0].limit: "limit" stands beside rate-limit; indent it further to make it one of its options [unknown_key]`},
		{"- cors: {}\n  jwt: {}", `2:3: [0].jwt: cors and "jwt" stand in one entry; begin each policy with its own "- "`},
		{"- name: x", `1:3: [0]: the entry names no policy; write its kind as a key, such as api-key: {} [missing_key]`},
		{"- cors: {}\n  mode: shadwo", `2:9: [0].mode: "shadwo" is not allowed; write enforce or shadow; did you mean "shadow"? [not_one_of]`},
		{"- any: api-key", `1:8: [0].any: expected a list, found "api-key"; write any: ["api-key"] [wrong_type]`},
		{"- all: []", `1:8: [0].all: all needs at least one policy; write all: [api-key, jwt] [missing_key]`},
		{"- any", `1:3: [0]: any is a group of policies; write any: [api-key, jwt] [wrong_type]`},
		{"- [cors]", `1:3: [0]: expected a policy, such as api-key or rate-limit: {limit: 100}, found a list [wrong_type]`},
		{"-", `1:2: [0]: expected a policy, such as api-key or rate-limit: {limit: 100}, found nothing [wrong_type]`},
	} {
		var got []model.Policy
		if ps := Value(parse(t, c.yaml), &got); len(ps) != 1 || !strings.HasPrefix(ps.Error(), c.want) {
			t.Errorf("%s\n got: %s\nwant: %s", c.yaml, ps.Error(), c.want)
		}
	}
}

func TestLocatePointsIntoTheYAML(t *testing.T) {
	t.Setenv("DECODE_TEST_TOKEN", "s3cret")
	n := parse(t, "window: 1m\nlist:\n  - a: 1\n    b: 2\nflow: {x: [1, 2]}\ntoken: Bearer ${env:DECODE_TEST_TOKEN}\n")
	for _, c := range []struct{ path, want string }{
		{"window", "1:9: window: bad [invalid_value]"},
		{"list", "2:1: list: bad [invalid_value]"},
		{"list.0.b", "4:8: list[0].b: bad [invalid_value]"},
		{"flow.x.1", "5:15: flow.x[1]: bad [invalid_value]"},
		{"flow.y", "5:7: flow.y: bad [invalid_value]"},
		{"nowhere.at.all", "1:1: nowhere.at.all: bad [invalid_value]"},
		{"", "1:1: bad [invalid_value]"},
	} {
		if got := Locate(n, At(c.path, "bad")).Error(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.path, got, c.want)
		}
	}
	both := errors.Join(At("flow.x", "second"), At("window", "first"), errors.New(`"Bearer s3cret", s3cret`))
	if got := Locate(n, both).In("a.yaml", "apis", "list orders").Error(); got != `a.yaml:1:1: apis["list orders"]: <secret>, <secret> [invalid_value]
a.yaml:1:9: apis["list orders"].window: first [invalid_value]
a.yaml:5:11: apis["list orders"].flow.x: second [invalid_value]` {
		t.Error(got)
	}
	if ps := Locate(nil, At("window", "bad")); len(ps) != 1 || ps[0].Path != "window" || ps[0].Line != 0 {
		t.Error(ps)
	}
	if ps := Locate(n, nil); len(ps) != 0 {
		t.Error(ps)
	}
}
