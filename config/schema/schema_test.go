package schema

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/internal/secret"
	"headgate/internal/size"
)

type limitOptions struct {
	Limit int           `yaml:"limit" required:"true" min:"1" doc:"Requests."`
	Per   time.Duration `yaml:"per" min:"1s" max:"24h" doc:"In this time."`
	Key   string        `yaml:"key" doc:"Counted by."`
	Share string        `yaml:"share" oneof:"node cluster"`
}

type keyOptions struct {
	From    []place           `yaml:"from" doc:"Where." max:"2"`
	Hide    bool              `yaml:"hide"`
	Methods []string          `yaml:"methods" oneof:"GET POST"`
	Secrets map[string]hidden `yaml:"secrets"`
	Max     size.Bytes        `yaml:"max" min:"1KiB"`
}

type hidden = secret.String

type place struct {
	Header string  `yaml:"header" required:"true" pattern:"^[a-z-]+$"`
	Inside []place `yaml:"inside"`
}

func policies() []Policy {
	return []Policy{
		{"rate-limit", "So many in a time.", reflect.TypeFor[limitOptions](), limitOptions{Per: time.Minute, Share: "node"}},
		{"api-key", "A key.", reflect.TypeFor[keyOptions](), keyOptions{From: []place{{Header: "x-api-key"}}, Hide: true}},
	}
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := JSONSchema(reflect.TypeFor[model.Document](), policies())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("headgate.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("headgate.json") // checks it against the metaschema too
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// decoded returns what the decoder says of a document with its policies' options.
func decoded(text string) decode.Problems {
	l, ps := decode.Document([]decode.File{{Name: "a.yaml", Data: []byte(text)}})
	for _, p := range l.Document.Policies {
		for _, kind := range policies() {
			if kind.Name == p.Kind {
				target := reflect.New(kind.Config)
				target.Elem().Set(reflect.ValueOf(kind.Default))
				ps = append(ps, decode.Value(p.Options, target.Interface())...)
			}
		}
	}
	return ps
}

func instance(t *testing.T, text string) any {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	var v any
	if ps := decode.Value(&root, &v); len(ps) > 0 && ps[0].Code != "missing_reference" {
		t.Fatal(ps)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	v, err = jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const smallest = "upstreams: {orders: http://127.0.0.1:9000}\napis: {shop: {upstream: orders}}\n"

// TestSchemaAndDecoderAgree: an editor with the schema says what headgate check says.
func TestSchemaAndDecoderAgree(t *testing.T) {
	s := compiled(t)
	for _, c := range []struct {
		text string
		good bool
	}{
		{smallest, true},
		{"{}", true},
		{"x-anchors: [1, 2]\n" + smallest, true},
		{"listeners: {public: {address: ':80', limits: {head: 16KiB, body: 0, header_timeout: 5s}}}", true},
		{"listeners: {public: {address: ':80', allow_in_path: [encoded-slash]}}", true},
		{"listeners: {public: {address: ':80', allow_in_path: [dots]}}", false},
		{"listeners: {public: {address: ':80', allow_in_path: encoded-slash}}", false},
		{"listeners: {public: {}}", false},
		{"listeners: {public: {address: ''}}", false},
		{"listeners: {public: {address: ':80', forwarded: some}}", false},
		{"listeners: {public: {address: ':80', limits: {header_fields: 0}}}", false},
		{"listeners: {public: {address: ':80', limits: {head: 1}}}", false},
		{"listeners: {public: {address: ':80', limits: {head: 1 cow}}}", false},
		{"listeners: {public: {address: ':80', limits: {idle_timeout: 30}}}", false},
		{"listeners: {public: {address: ':80', limits: }}", true},
		{"drain: {delay: 0}", true},
		{"drain: {delay: -1s}", false},
		{"drain: {drain_timeout: 30m0.5s}", true},
		{"upstreams: {a: {targets: [http://a, {url: http://b, weight: 2}], host: target}}", true},
		{"upstreams: {a: {targets: []}}", false},
		{"upstreams: {a: {targets: http://a}}", false},
		{"upstreams: {a: {target: [http://a]}}", false},
		{"upstreams: {a: {targets: [{weight: 2}]}}", false},
		{"upstreams: {a: {targets: [{url: http://a, weight: heavy}]}}", false},
		{"upstreams: {a: {targets: [http://a], health: {path: /h, interval: 5s}}}", true},
		{"upstreams: {a: {targets: [http://a], tls: {certificate: {cert: a}}}}", false},
		{"upstreams: {a: [http://a]}", false},
		{"apis: {shop: }", true},
		{"apis: {shop: {version: 1.10, base_path: /x, hosts: [a.example]}}", true},
		{"apis: {shop: {base_path: x}}", false},
		{"apis: {shop: {strip_base_path: yes}}", false},
		{"apis: {shop: {strip_base_path: 'true'}}", false},
		{"apis: {shop: {routes: {a: {match: GET /}}}}", true},
		{"apis: {shop: {routes: {a: {match: {methods: [GET], path: /, query: {page: 1}}}}}}", true},
		{"apis: {shop: {routes: {a: {}}}}", false},
		{"apis: {shop: {routes: {a: {match: /, redirect: {to: /x, status: 303}}}}}", true},
		{"apis: {shop: {routes: {a: {match: /, redirect: {to: /x, status: 300}}}}}", false},
		{"apis: {shop: {routes: {a: {match: /, respond: {status: 1000}}}}}", false},
		{"apis: [shop]", false},
		{"polices: []", false},
		{"policies: []", true},
		{"policies: ", true},
		{"policies: [api-key, rate-limit: {limit: 1}]", true},
		{"policies: [rate-limit]", false}, // limit is required
		{"policies: [rate-limit: ]", false},
		{"policies: [rate-limit: {limit: 1, per: 1s, share: node}]", true},
		{"policies: [rate-limit: {limit: 0}]", false},
		{"policies: [rate-limit: {limit: 1, share: both}]", false},
		{"policies: [rate-limit: {limit: 1, limits: 2}]", false},
		{"policies: [{api-key: {}, when: 'true', mode: shadow, name: x, on_error: allow, stage: limit}]", true},
		{"policies: [{api-key: , mode: shadow}]", true},
		{"policies: [{api-key: {}, mode: dark}]", false},
		{"policies: [{api-key: {}, rate-limit: {limit: 1}}]", false},
		{"policies: [{name: x}]", false},
		{"policies: [{any: [api-key, all: [api-key]]}]", true},
		{"policies: [{any: []}]", false},
		{"policies: [{any: api-key}]", false},
		{"policies: [[api-key]]", false},
		{"policies: [api-key: {from: [{header: x}], methods: [GET], secrets: {a: b}, max: 2MiB, hide: false}]", true},
		{"policies: [api-key: {from: [{header: x, inside: [{header: y}]}]}]", true},
		{"policies: [api-key: {from: [{header: x, inside: [{}]}]}]", false},
		{"policies: [api-key: {from: [{header: X}]}]", false},
		{"policies: [api-key: {from: [{header: a}, {header: b}, {header: c}]}]", false},
		{"policies: [api-key: {methods: [PUT]}]", false},
		{"policies: [api-key: {secrets: {a: ''}}]", false},
		{"policies: [api-key: {hide: 1}]", false},
		{"consumers: {a: {keys: ['sha256:abc'], basic: [{username: u, password: 'bcrypt:x'}]}}", true},
		{"consumers: {a: {keys: [abc]}}", false},
		{"consumers: {a: {keys: [123]}}", false},
		{"consumers: {a: {keys: ['bcrypt:abc']}}", false},
		{"consumers: {a: {basic: [{username: u, password: p}]}}", false},
		{"tracing: {headers: {Authorization: 'sha256:x'}}", false},
		{"consumers: {a: {keys: ['']}}", false},
		{"consumers: {a: {basic: [{username: u}]}}", false},
		{"tracing: {ratio: 0.5}", true},
		{"tracing: {ratio: 2}", false},
		{"tracing: {ratio: half}", false},
		{"log: {level: loud}", false},
		{"log: {access: {fields: [a, b]}}", true},
		{"log: text", false},
	} {
		ps, err := decoded(c.text), s.Validate(instance(t, c.text))
		if (len(ps) == 0) != c.good {
			t.Errorf("%s\ndecoder: %v", c.text, ps.Error())
		}
		if (err == nil) != c.good {
			t.Errorf("%s\nschema: %v", c.text, err)
		}
	}
}

func TestReferencesFitWhereverAValueDoes(t *testing.T) {
	var v any
	text := `{"drain": {"drain_timeout": "${env:X}"}, "tracing": {"ratio": "${env:X}", "headers": {"Authorization": "Bearer ${env:X}"}}, "admin": {"pprof": "${file:/x}", "address": "${env:X}"},
		"log": {"level": "${env:X}", "access": {"buffer": "${env:X}"}}, "apis": {"a": {"base_path": "${env:X}"}},
		"consumers": {"a": {"keys": ["${file:x}"], "basic": [{"username": "u", "password": "${env:X}"}]}}}`
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	if err := compiled(t).Validate(v); err != nil {
		t.Error(err)
	}
}

func TestSchemaTellsDocumentationAndDefaults(t *testing.T) {
	text, err := JSONSchema(reflect.TypeFor[model.Document](), policies())
	if err != nil {
		t.Fatal(err)
	}
	again, _ := JSONSchema(reflect.TypeFor[model.Document](), policies())
	if !bytes.Equal(text, again) {
		t.Error("the schema must be the same each time")
	}
	var s struct {
		Properties map[string]struct{ Properties map[string]any }
		Defs       map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want any }{
		{s.Properties["drain"].Properties["drain_timeout"], map[string]any{"$ref": "#/$defs/duration", "default": "30s",
			"description": "How long what runs may finish. 0s to 1h."}},
		{s.Properties["admin"].Properties["address"], map[string]any{"type": []any{"string", "number", "boolean"},
			"default": "127.0.0.1:9080", "description": "host:port, or off."}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Error(diff)
		}
	}
	per := s.Defs["policy.rate-limit"].(map[string]any)["properties"].(map[string]any)["per"].(map[string]any)
	if per["default"] != "1m" || !strings.Contains(per["description"].(string), "1s to 24h") {
		t.Errorf("per: %v", per)
	}
}

func TestTableListsEveryOption(t *testing.T) {
	want := []Row{
		{Name: "limit", Type: "whole number", Required: true, Allowed: "1 or more", Doc: "Requests."},
		{Name: "per", Type: "duration", Default: "1m", Allowed: "1s to 24h", Doc: "In this time."},
		{Name: "key", Type: "text", Doc: "Counted by."},
		{Name: "share", Type: "text", Default: "node", Allowed: "node or cluster"},
	}
	limit := policies()[0]
	if diff := cmp.Diff(want, Table(limit.Config, limit.Default)); diff != "" {
		t.Error(diff)
	}
	byName := map[string]Row{}
	for _, r := range Table(reflect.TypeFor[model.Document](), nil) {
		byName[r.Name] = r
	}
	for name, want := range map[string]Row{
		"upstreams":                      {Type: "map of text or mapping", Doc: "Services that APIs stand in front of."},
		"upstreams.NAME.targets":         {Type: "list of text or mapping", Allowed: "1 or more"},
		"upstreams.NAME.targets[].url":   {Type: "text", Required: true},
		"upstreams.NAME.health.interval": {Type: "duration", Default: "5s", Allowed: "100ms to 1h"},
		"listeners.NAME.limits.head":     {Type: "size", Default: "32KiB", Allowed: "1KiB to 1MiB"},
		"policies":                       {Type: "list of policies"},
		"consumers.NAME.keys":            {Type: "list of secrets", Allowed: "sha256:..., or a reference"},
		"drain.drain_timeout":            {Type: "duration", Default: "30s", Allowed: "0s to 1h"},
	} {
		got := byName[name]
		if want.Doc == "" {
			got.Doc = ""
		}
		want.Name = name
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// TestTagsOfTheDocumentAreSound finds tags that cannot mean anything, and keys without documentation.
func TestTagsOfTheDocumentAreSound(t *testing.T) {
	for _, r := range Table(reflect.TypeFor[model.Document](), nil) {
		if r.Doc == "" || !strings.HasSuffix(r.Doc, ".") {
			t.Errorf("%s: its doc tag is not a sentence: %q", r.Name, r.Doc)
		}
	}
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(typ.Elem())
			return
		}
		if typ.Kind() != reflect.Struct || seen[typ] || typ == reflect.TypeFor[yaml.Node]() {
			return
		}
		seen[typ] = true
		for _, f := range decode.Fields(typ) {
			for _, bound := range []string{f.Tag.Get("min"), f.Tag.Get("max")} {
				if bound != "" && !readable(f.Type, bound) {
					t.Errorf("%s.%s: the bound %q does not fit %s", typ, f.Name, bound, f.Type)
				}
			}
			if _, err := regexp.Compile(f.Tag.Get("pattern")); err != nil {
				t.Errorf("%s.%s: %v", typ, f.Name, err)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[model.Document]())
	walk(reflect.TypeFor[model.Envelope]())
}

func readable(t reflect.Type, bound string) bool {
	v := reflect.New(t)
	if k := t.Kind(); k == reflect.String || k == reflect.Slice || k == reflect.Map {
		v = reflect.ValueOf(new(int))
	}
	return len(decode.Value(&yaml.Node{Kind: yaml.ScalarNode, Value: bound}, v.Interface())) == 0
}

func TestDurationsAreShownShort(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"1m": time.Minute, "1h": time.Hour, "30s": 30 * time.Second, "1h30m": 90 * time.Minute, "1h0m5s": time.Hour + 5*time.Second,
		"0s": 0, "10m": 10 * time.Minute, "500ms": 500 * time.Millisecond,
	} {
		if got := duration(d); got != want {
			t.Errorf("%v is shown as %s, want %s", d, got, want)
		}
	}
}
