// Package schema tells what a document may be, from the tags that the decoder checks: as JSON Schema for editors and as
// tables for the reference.
package schema

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/internal/secret"
	"headgate/internal/size"
)

// Policy is what a schema says of one kind of policy.
type Policy struct {
	Name, Summary string
	Config        reflect.Type // of its options
	Default       any          // their default
}

// node is one schema.
type node = map[string]any

// JSONSchema returns the JSON Schema (2020-12) of a document whose root is the struct type root, with the policies as
// what a list of policies may hold, indented and ending in a newline. What decode.Value refuses by its tags the schema
// refuses too, except bounds of durations and of sizes written with a unit, which JSON Schema cannot compare: those are
// told in the description.
func JSONSchema(root reflect.Type, policies []Policy) ([]byte, error) {
	b := builder{defs: node{}, policies: policies}
	b.sharedDefs()
	top := b.object(decode.Default(root))
	top["patternProperties"] = node{"^x-": node{"description": "Left alone: a place for anchors."}}
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["title"] = "Headgate document"
	b.policyDef()
	top["$defs"] = b.defs
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(top); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

type builder struct {
	defs     node
	policies []Policy
}

func ref(name string) node { return node{"$ref": "#/$defs/" + name} }

func (b *builder) sharedDefs() {
	b.defs["reference"] = node{
		"type": "string", "pattern": `\$\{(env|file):[^}]+\}`,
		"description": "${env:NAME} or ${file:PATH}: the value stands in an environment variable or a file.",
	}
	b.defs["duration"] = node{
		"anyOf": []any{
			node{"type": "string", "pattern": `^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`}, node{"const": 0}, ref("reference"),
		},
		"description": "A duration: numbers with the units ms, s, m or h, such as 500ms, 30s or 1h30m.",
	}
}

// field describes the value of one key, given its default.
func (b *builder) field(f decode.Field, value reflect.Value) node {
	n := b.value(value, f.Tag)
	doc := f.Tag.Get("doc")
	if r := bounds(f.Tag); r != "" && (isDuration(f.Type) || isSize(f.Type)) {
		doc = strings.TrimSpace(doc + " " + r + ".")
	}
	if doc != "" {
		n["description"] = doc
	}
	if d, ok := defaultOf(value); ok && f.Tag.Get("required") != "true" {
		n["default"] = d
	}
	return n
}

// value describes what may stand for a value of a type; v holds the default.
func (b *builder) value(v reflect.Value, tag reflect.StructTag) node {
	t := v.Type()
	required := tag.Get("required") == "true"
	switch {
	case t == reflect.TypeFor[model.Policy]():
		return ref("policy")
	case t == reflect.TypeFor[yaml.Node](), t == reflect.TypeFor[*yaml.Node](), t.Kind() == reflect.Interface:
		return node{}
	case t.Kind() == reflect.Pointer:
		return b.value(decode.Default(t.Elem()), tag)
	case t == reflect.TypeFor[secret.String]():
		return b.secret(tag)
	case isDuration(t):
		return ref("duration")
	case isSize(t):
		return b.size(tag)
	case isText(t):
		return node{"type": []string{"string", "number", "boolean"}}
	case t.Kind() == reflect.Struct:
		return b.structure(v, required)
	case t.Kind() == reflect.Slice:
		return b.list(t, tag, required)
	case t.Kind() == reflect.Map:
		n := node{"type": orNull("object", required), "additionalProperties": b.element(t.Elem(), kept(tag, "literal"))}
		return limits(n, tag, "minProperties", "maxProperties", required)
	}
	return b.scalar(t, tag, required)
}

// structure describes a struct in place, because its defaults may be its parent's.
func (b *builder) structure(v reflect.Value, required bool) node {
	n := b.object(v)
	if _, must := n["required"]; !must && !required {
		n["type"] = orNull("object", false)
	}
	if decode.HasShortForm(v.Type()) {
		return node{"anyOf": []any{node{"type": "string", "minLength": 1}, n}}
	}
	return n
}

func (b *builder) object(v reflect.Value) node {
	properties, required := node{}, []string{}
	for _, f := range decode.Fields(v.Type()) {
		properties[f.Name] = b.field(f, v.FieldByIndex(f.Index))
		if f.Tag.Get("required") == "true" {
			required = append(required, f.Name)
		}
	}
	n := node{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		n["required"] = required
	}
	return n
}

// element describes an element of a list or a map. Structs are described once, by name: their defaults are their own,
// and they may contain themselves.
func (b *builder) element(t reflect.Type, tag reflect.StructTag) node {
	plain := t
	if plain.Kind() == reflect.Pointer {
		plain = plain.Elem()
	}
	if plain.Kind() != reflect.Struct || isText(plain) || plain == reflect.TypeFor[model.Policy]() ||
		plain == reflect.TypeFor[yaml.Node]() || plain.Name() == "" {
		return b.value(decode.Default(t), tag)
	}
	name := strings.ReplaceAll(plain.String(), "model.", "")
	if _, known := b.defs[name]; !known {
		b.defs[name] = node{}
		b.defs[name] = b.structure(decode.Default(plain), false)
	}
	return ref(name)
}

func (b *builder) list(t reflect.Type, tag reflect.StructTag, required bool) node {
	n := node{"type": orNull("array", required), "items": b.element(t.Elem(), kept(tag, "oneof", "pattern", "literal"))}
	return limits(n, tag, "minItems", "maxItems", required)
}

// kept is what of the tag of a list or map holds for each element.
func kept(tag reflect.StructTag, keys ...string) reflect.StructTag {
	var parts []string
	for _, key := range keys {
		if value := tag.Get(key); value != "" {
			parts = append(parts, key+":"+strconv.Quote(value))
		}
	}
	return reflect.StructTag(strings.Join(parts, " "))
}

// secret describes a secret: a reference, or text where its tag allows it.
func (b *builder) secret(tag reflect.StructTag) node {
	prefixes, anything := decode.Literals(tag)
	if anything {
		return node{"type": []string{"string", "number"}, "minLength": 1}
	}
	if len(prefixes) == 0 {
		return ref("reference")
	}
	words := make([]string, len(prefixes))
	for i, p := range prefixes {
		words[i] = regexp.QuoteMeta(p)
	}
	return orReference(node{"type": "string", "pattern": "^(" + strings.Join(words, "|") + ")"})
}

// limits adds min and max of a length. What is required must not be empty.
func limits(n node, tag reflect.StructTag, low, high string, required bool) node {
	least, _ := strconv.Atoi(tag.Get("min"))
	if required {
		least = max(least, 1)
	}
	if least > 0 {
		n[low] = least
	}
	if most, err := strconv.Atoi(tag.Get("max")); err == nil {
		n[high] = most
	}
	return n
}

func (b *builder) scalar(t reflect.Type, tag reflect.StructTag, required bool) node {
	if set := tag.Get("oneof"); set != "" {
		return orReference(node{"enum": enum(t, strings.Fields(set))})
	}
	switch t.Kind() {
	case reflect.String:
		n := limits(node{"type": []string{"string", "number", "boolean"}}, tag, "minLength", "maxLength", required)
		if pattern := tag.Get("pattern"); pattern != "" {
			n["type"], n["pattern"] = "string", pattern
			return orReference(n)
		}
		return n
	case reflect.Bool:
		return orReference(node{"type": "boolean"})
	case reflect.Float32, reflect.Float64:
		return orReference(numeric(node{"type": "number"}, tag))
	}
	n := numeric(node{"type": "integer"}, tag)
	if _, bounded := n["minimum"]; !bounded && t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uintptr {
		n["minimum"] = 0
	}
	return orReference(n)
}

func numeric(n node, tag reflect.StructTag) node {
	for key, name := range map[string]string{"min": "minimum", "max": "maximum"} {
		if f, err := strconv.ParseFloat(tag.Get(key), 64); err == nil {
			n[name] = f
		}
	}
	return n
}

func (b *builder) size(tag reflect.StructTag) node {
	n := node{"type": "integer", "minimum": 0}
	for key, name := range map[string]string{"min": "minimum", "max": "maximum"} {
		if bytes, err := size.Parse(tag.Get(key)); err == nil && tag.Get(key) != "" {
			n[name] = int64(bytes)
		}
	}
	return node{"anyOf": []any{n, node{"type": "string", "pattern": `^\s*[0-9]+\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?\s*$`}, ref("reference")}}
}

// policyDef describes an entry of a list of policies: a name alone, or exactly one kind beside the envelope.
func (b *builder) policyDef() {
	entry := b.object(decode.Default(reflect.TypeFor[model.Envelope]()))
	properties := entry["properties"].(node)
	var bare []string
	var kinds []any
	for _, p := range b.policies {
		options := b.structure(defaultValue(p), false)
		if p.Config.Kind() != reflect.Struct {
			options = b.value(defaultValue(p), "")
		}
		if _, must := options["required"]; !must {
			bare = append(bare, p.Name)
		}
		b.defs["policy."+p.Name] = options
		option := ref("policy." + p.Name)
		option["description"] = p.Summary
		properties[p.Name] = option
		kinds = append(kinds, node{"required": []string{p.Name}})
	}
	for _, group := range []struct{ name, doc string }{
		{"any", "One of these is enough."}, {"all", "All of these are needed."},
	} {
		properties[group.name] = node{"type": "array", "minItems": 1, "items": ref("policy"), "description": group.doc}
		kinds = append(kinds, node{"required": []string{group.name}})
	}
	entry["oneOf"] = kinds
	forms := []any{entry}
	if len(bare) > 0 {
		forms = slices.Insert(forms, 0, any(node{"enum": bare, "description": "A policy with its defaults."}))
	}
	b.defs["policy"] = node{"anyOf": forms}
}

func defaultValue(p Policy) reflect.Value {
	if p.Default == nil {
		return decode.Default(p.Config)
	}
	v := reflect.New(p.Config).Elem()
	v.Set(reflect.ValueOf(p.Default))
	if v.IsZero() {
		return decode.Default(p.Config)
	}
	return v
}

func orReference(n node) node { return node{"anyOf": []any{n, ref("reference")}} }

func orNull(kind string, required bool) any {
	if required {
		return kind
	}
	return []string{kind, "null"}
}

func enum(t reflect.Type, words []string) []any {
	values := make([]any, len(words))
	for i, w := range words {
		values[i] = w
		if f, err := strconv.ParseFloat(w, 64); err == nil && t.Kind() != reflect.String {
			values[i] = f
		}
	}
	return values
}

func isDuration(t reflect.Type) bool { return t == reflect.TypeFor[time.Duration]() }
func isSize(t reflect.Type) bool     { return t == reflect.TypeFor[size.Bytes]() }

func isText(t reflect.Type) bool {
	return t == reflect.TypeFor[secret.String]() || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}
