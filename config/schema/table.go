package schema

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/config/model"
	"headgate/internal/secret"
	"headgate/internal/size"
	"headgate/internal/text"
)

// maxNesting ends the rows of a type that contains itself.
const maxNesting = 4

// Row is one option in a reference table, as text.
type Row struct {
	Name     string // below the table's type: limits.head, targets[].url, headers.NAME
	Type     string
	Required bool
	Default  string // as it would be written; empty where there is none
	Allowed  string // bounds, choices or pattern; empty for any
	Doc      string
}

// Table returns the options of a struct type, nested ones below the option that holds them. Def is their default, or nil
// for the type's own.
func Table(t reflect.Type, def any) []Row {
	return rows(defaultValue(Policy{Config: t, Default: def}), "", 0)
}

func rows(v reflect.Value, prefix string, depth int) (list []Row) {
	if v.Kind() != reflect.Struct || depth > maxNesting {
		return nil
	}
	for _, f := range decode.Fields(v.Type()) {
		value := v.FieldByIndex(f.Index)
		row := Row{
			Name: prefix + f.Name, Type: typeName(f.Type), Required: f.Tag.Get("required") == "true",
			Allowed: allowed(f.Tag), Doc: f.Tag.Get("doc"),
		}
		if d, ok := defaultOf(value); ok && !row.Required {
			row.Default = show(d)
		}
		list = append(list, row)
		if inner, suffix, ok := nested(value); ok {
			list = append(list, rows(inner, row.Name+suffix, depth+1)...)
		}
	}
	return list
}

// nested returns the struct inside a value, and how its keys are reached.
func nested(v reflect.Value) (inner reflect.Value, suffix string, ok bool) {
	t, suffix := v.Type(), "."
	switch t.Kind() {
	case reflect.Slice:
		t, suffix = t.Elem(), "[]."
	case reflect.Map:
		t, suffix = t.Elem(), ".NAME."
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || isText(t) || t == reflect.TypeFor[model.Policy]() || t == reflect.TypeFor[yaml.Node]() {
		return v, "", false
	}
	if v.Kind() == reflect.Struct {
		return v, suffix, true
	}
	return decode.Default(t), suffix, true
}

// typeName names a type as a user thinks of it.
func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[model.Policy]():
		return "policy"
	case t == reflect.TypeFor[secret.String]():
		return "secret"
	case isDuration(t):
		return "duration"
	case isSize(t):
		return "size"
	case isText(t):
		return "text"
	case t == reflect.TypeFor[yaml.Node](), t == reflect.TypeFor[*yaml.Node]():
		return "anything"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Slice:
		return "list of " + plural(typeName(t.Elem()))
	case reflect.Map:
		return "map of " + plural(typeName(t.Elem()))
	case reflect.Struct:
		if decode.HasShortForm(t) {
			return "text or mapping"
		}
		return "mapping"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Interface:
		return "anything"
	}
	return "whole number"
}

func plural(name string) string {
	switch {
	case name == "policy":
		return "policies"
	case name == "text", name == "anything", strings.HasPrefix(name, "list"),
		strings.HasPrefix(name, "map of"), strings.Contains(name, " or "):
		return name
	}
	return name + "s"
}

// allowed says what the tags allow.
func allowed(tag reflect.StructTag) string {
	var parts []string
	if set := tag.Get("oneof"); set != "" {
		parts = append(parts, text.List(strings.Fields(set)))
	}
	if b := bounds(tag); b != "" {
		parts = append(parts, b)
	}
	if p := tag.Get("pattern"); p != "" {
		parts = append(parts, "`"+p+"`")
	}
	if prefixes, anything := decode.Literals(tag); !anything {
		for i, prefix := range prefixes {
			prefixes[i] = prefix + "..."
		}
		parts = append(parts, strings.Join(append(prefixes, "a reference"), ", or "))
	}
	return strings.Join(parts, "; ")
}

func bounds(tag reflect.StructTag) string {
	low, high := tag.Get("min"), tag.Get("max")
	switch {
	case low != "" && high != "":
		return low + " to " + high
	case low != "":
		return low + " or more"
	case high != "":
		return "up to " + high
	}
	return ""
}

// defaultOf returns a default as it would be written in JSON; false where nothing is said by showing it.
func defaultOf(v reflect.Value) (any, bool) {
	switch value := v.Interface().(type) {
	case secret.String:
		return nil, false
	case time.Duration:
		return duration(value), true
	case size.Bytes:
		return value.String(), true
	case encoding.TextMarshaler:
		b, err := value.MarshalText()
		return string(b), err == nil && len(b) > 0
	}
	switch v.Kind() {
	case reflect.String:
		return v.String(), v.Len() > 0
	case reflect.Bool:
		return v.Bool(), true
	case reflect.Slice:
		return listDefault(v)
	case reflect.Struct, reflect.Map, reflect.Pointer, reflect.Interface:
		return nil, false
	}
	return v.Interface(), true
}

func listDefault(v reflect.Value) (any, bool) {
	list := make([]any, 0, v.Len())
	for i := range v.Len() {
		d, ok := defaultOf(v.Index(i))
		if !ok {
			return nil, false
		}
		list = append(list, d)
	}
	return list, len(list) > 0
}

func show(d any) string {
	list, ok := d.([]any)
	if !ok {
		return fmt.Sprint(d)
	}
	words := make([]string, len(list))
	for i, item := range list {
		words[i] = fmt.Sprint(item)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// duration writes 1m, not 1m0s.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
