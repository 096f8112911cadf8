package decode

import (
	"encoding"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"headgate/internal/secret"
)

const (
	masked = "<secret>"
	// maxShown keeps a value that is a whole file from drowning the message about it.
	maxShown = 60
)

// scalarText is the text of a scalar after its references were replaced.
type scalarText struct {
	value  string
	secret bool // it came from a reference: never show it
	plain  bool // neither quoted nor by reference: 8080 is a number, "8080" is not
}

func (t scalarText) show() string {
	if t.secret {
		return masked
	}
	return quote(t.value)
}

// numeric reports whether the text may be read as a number or a truth value.
func (t scalarText) numeric() bool { return t.plain || t.secret }

func quote(s string) string {
	if len(s) > maxShown {
		cut := maxShown
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		return strconv.Quote(s[:cut]) + "..."
	}
	return strconv.Quote(s)
}

// isText reports whether the type is written as one scalar although it may be a struct inside.
func isText(v reflect.Value) bool {
	if v.Type() == reflect.TypeFor[secret.String]() {
		return true
	}
	if !v.CanAddr() {
		return false
	}
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

// scalar decodes a scalar into a scalar type. Of the tag it looks at literal; constrain looks at the rest.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, tag reflect.StructTag) bool {
	if isNull(n) {
		return true
	}
	if isEmpty(n) {
		d.problem(n, "empty_value", "nothing is written here; give a value or remove the key")
		return false
	}
	if n.Kind != yaml.ScalarNode {
		d.problem(n, "wrong_type", "expected %s, found %s", expected(v), d.describe(n))
		return false
	}
	t, ok := d.text(n)
	if !ok {
		return false
	}
	switch v.Type() {
	case reflect.TypeFor[secret.String]():
		return d.secret(n, v, t, tag)
	case reflect.TypeFor[time.Duration]():
		return d.duration(n, v, t)
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return d.unmarshalText(n, u, t, v)
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(t.value)
	case reflect.Bool:
		return d.boolean(n, v, t)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return d.integer(n, v, t)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return d.integer(n, v, t)
	case reflect.Float32, reflect.Float64:
		return d.float(n, v, t)
	default:
		d.problem(n, "unsupported_type", "cannot decode into %s", v.Type())
		return false
	}
	return true
}

func (d *decoder) secret(n *yaml.Node, v reflect.Value, t scalarText, tag reflect.StructTag) bool {
	if t.value == "" {
		d.problem(n, "empty_value", "the secret is empty")
		return false
	}
	if !t.secret && !literalAllowed(t.value, tag) {
		d.problem(n, "literal_secret", "this secret stands in the document as text, where others can read it; write %s", secretForms(tag))
		return false
	}
	v.Set(reflect.ValueOf(secret.New(t.value)))
	return true
}

func (d *decoder) unmarshalText(n *yaml.Node, u encoding.TextUnmarshaler, t scalarText, v reflect.Value) bool {
	err := u.UnmarshalText([]byte(t.value))
	switch {
	case err == nil:
		return true
	case t.secret:
		d.problem(n, "wrong_type", "expected %s, found %s", expected(v), masked)
	default:
		d.problem(n, "wrong_type", "%s", err)
	}
	return false
}

func (d *decoder) duration(n *yaml.Node, v reflect.Value, t scalarText) bool {
	value, err := time.ParseDuration(t.value)
	if err != nil {
		hint := ""
		if _, err := strconv.ParseUint(t.value, 10, 63); err == nil && !t.secret {
			hint = "; a unit is missing: write " + t.value + "s for seconds"
		}
		d.problem(n, "wrong_type", "expected %s, found %s%s", expected(v), t.show(), hint)
		return false
	}
	if value < 0 {
		d.problem(n, "out_of_range", "%s is negative; a duration is 0s or more", t.show())
		return false
	}
	v.SetInt(int64(value))
	return true
}

func (d *decoder) boolean(n *yaml.Node, v reflect.Value, t scalarText) bool {
	word := strings.ToLower(t.value)
	if t.numeric() && (word == "true" || word == "false") {
		v.SetBool(word == "true")
		return true
	}
	hint := ""
	switch {
	case t.secret:
	case word == "yes" || word == "on" || word == "y":
		hint = "; write true"
	case word == "no" || word == "off" || word == "n":
		hint = "; write false"
	case word == "true" || word == "false":
		hint = "; write it without quotes"
	}
	d.problem(n, "wrong_type", "expected %s, found %s%s", expected(v), t.show(), hint)
	return false
}

func (d *decoder) integer(n *yaml.Node, v reflect.Value, t scalarText) bool {
	digits := strings.TrimLeft(t.value, "+-")
	hint := ""
	switch {
	case !t.numeric():
		hint = quotedNumber(t)
	case len(digits) > 1 && digits[0] == '0' && strings.Trim(digits, "0123456789") == "":
		hint = leadingZero(t, digits)
	case !strings.Contains(digits, "_"):
		if v.CanUint() {
			u, err := strconv.ParseUint(strings.TrimPrefix(t.value, "+"), 0, 64)
			if err == nil && !v.OverflowUint(u) {
				v.SetUint(u)
				return true
			}
		} else if i, err := strconv.ParseInt(t.value, 0, 64); err == nil && !v.OverflowInt(i) {
			v.SetInt(i)
			return true
		}
		if strings.Trim(digits, "0123456789") == "" && digits != "" {
			d.problem(n, "out_of_range", "%s does not fit; %s", t.show(), expected(v))
			return false
		}
	}
	d.problem(n, "wrong_type", "expected %s, found %s%s", expected(v), t.show(), hint)
	return false
}

func quotedNumber(t scalarText) string {
	if _, err := strconv.ParseFloat(t.value, 64); err == nil {
		return "; write it without quotes"
	}
	return ""
}

// leadingZero explains the number that YAML 1.1 read as octal and YAML 1.2 does not.
func leadingZero(t scalarText, digits string) string {
	if t.secret {
		return "; a number must not begin with 0"
	}
	if rest := strings.TrimLeft(digits, "0"); rest != "" {
		if strings.ContainsAny(rest, "89") {
			return "; write " + rest
		}
		return "; write " + rest + ", or 0o" + rest + " for octal"
	}
	return "; write 0"
}

func (d *decoder) float(n *yaml.Node, v reflect.Value, t scalarText) bool {
	f, err := strconv.ParseFloat(t.value, 64)
	decimal := strings.Trim(t.value, "0123456789.eE+-") == ""
	switch {
	case err == nil && decimal && t.numeric() && !v.OverflowFloat(f) && !math.IsInf(f, 0):
		v.SetFloat(f)
		return true
	case !t.numeric():
		d.problem(n, "wrong_type", "expected %s, found %s%s", expected(v), t.show(), quotedNumber(t))
	default:
		d.problem(n, "wrong_type", "expected %s, found %s", expected(v), t.show())
	}
	return false
}

// expected says what is written for a type.
func expected(v reflect.Value) string {
	switch v.Type() {
	case reflect.TypeFor[time.Duration]():
		return "a duration such as 500ms, 30s, 5m or 1h"
	case reflect.TypeFor[secret.String]():
		return "a secret"
	}
	switch {
	case v.CanUint():
		return "a whole number of 0 or more"
	case v.Kind() == reflect.Bool:
		return "true or false"
	case v.Type().Name() == "Bytes":
		return "an amount of bytes such as 512, 64KiB or 10MB"
	case isText(v):
		return "text"
	case v.CanInt():
		return "a whole number"
	case v.CanFloat():
		return "a number"
	}
	return "text"
}

// describe says what a node is, for messages.
func (d *decoder) describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	case yaml.AliasNode:
		return "an alias"
	}
	if isNull(n) || isEmpty(n) {
		return "nothing"
	}
	if n.Tag == referenceTag || n.Tag == brokenTag || n.Tag != literalTag && strings.Contains(n.Value, "${") {
		return masked
	}
	return quote(n.Value)
}

// describeFor is describe where a value of a type should stand: a type that holds secrets may have been given one.
func (d *decoder) describeFor(n *yaml.Node, t reflect.Type) string {
	if s := d.describe(n); n.Kind != yaml.ScalarNode || !d.holdsSecret(t) {
		return s
	}
	return masked
}

// holdsSecret reports whether a secret may stand in a value of the type.
func (d *decoder) holdsSecret(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return d.holdsSecret(t.Elem())
	case reflect.Struct:
		return t == reflect.TypeFor[secret.String]() || !opaque(t) && d.info(t).secret
	}
	return false
}

// free decodes into any: map[string]any, []any, string, int64, float64, bool or nil, by YAML 1.2's core schema.
func (d *decoder) free(n *yaml.Node, v reflect.Value) bool {
	if v.NumMethod() > 0 {
		d.problem(n, "unsupported_type", "cannot decode into %s", v.Type())
		return false
	}
	switch {
	case isNull(n) || isEmpty(n):
		return true
	case n.Kind == yaml.SequenceNode:
		var list []any
		good := d.slice(n, reflect.ValueOf(&list).Elem(), "")
		v.Set(reflect.ValueOf(list))
		return good
	case n.Kind == yaml.MappingNode:
		var m map[string]any
		good := d.mapping(n, reflect.ValueOf(&m).Elem(), "")
		v.Set(reflect.ValueOf(m))
		return good
	}
	t, ok := d.text(n)
	if ok {
		v.Set(reflect.ValueOf(plainValue(t)))
	}
	return ok
}

// plainValue reads an unquoted scalar as YAML 1.2's core schema does; 0123, no and 2001-01-01 are text.
func plainValue(t scalarText) any {
	if !t.plain {
		return t.value
	}
	switch t.value {
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	digits := strings.TrimLeft(t.value, "+-")
	if len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' || strings.Trim(digits, "0123456789.eE+-") != "" {
		return t.value
	}
	if i, err := strconv.ParseInt(t.value, 10, 64); err == nil {
		return i
	}
	if f, err := strconv.ParseFloat(t.value, 64); err == nil {
		return f
	}
	return t.value
}
