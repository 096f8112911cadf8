package decode

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"

	"headgate/internal/text"
)

// defaulter is a struct that knows its defaults; scalarer one that may be written as a scalar.
type (
	defaulter interface{ SetDefaults() }
	scalarer  interface{ FromScalar(string) error }
)

// field is one key of a struct.
type field struct {
	name  string
	index []int // through embedded structs
	tag   reflect.StructTag
}

// structInfo is what the decoder has learned about a struct type.
type structInfo struct {
	fields   []field
	nested   []int // fields that are structs, which may have defaults
	defaults bool  // it, or something in it, has SetDefaults
	scalar   bool  // it has FromScalar
	secret   bool  // a secret may stand in it
}

func (s *structInfo) find(name string) *field {
	for i := range s.fields {
		if s.fields[i].name == name {
			return &s.fields[i]
		}
	}
	return nil
}

// info returns what is known of a struct type. The knowledge lives as long as one decoding.
func (d *decoder) info(t reflect.Type) *structInfo {
	if s := d.structs[t]; s != nil {
		return s
	}
	s := &structInfo{
		defaults: reflect.PointerTo(t).Implements(reflect.TypeFor[defaulter]()),
		scalar:   reflect.PointerTo(t).Implements(reflect.TypeFor[scalarer]()),
	}
	d.structs[t] = s
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Type.Kind() == reflect.Struct && f.IsExported() && !opaque(f.Type) && d.info(f.Type).defaults {
			s.nested, s.defaults = append(s.nested, i), true
		}
		s.secret = s.secret || f.IsExported() && d.holdsSecret(f.Type)
		name, inline, skip := fieldName(f)
		switch {
		case skip:
		case inline:
			for _, inner := range d.info(f.Type).fields {
				inner.index = append([]int{i}, inner.index...)
				s.fields = append(s.fields, inner)
			}
		default:
			s.fields = append(s.fields, field{name, []int{i}, f.Tag})
		}
	}
	return s
}

// fieldName reads the yaml tag; a field without one is called by its name in lower case, an embedded struct without one
// is part of the outer.
func fieldName(f reflect.StructField) (name string, inline, skip bool) {
	name, flags, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if name == "-" || !f.IsExported() {
		return "", false, true
	}
	if f.Type.Kind() == reflect.Struct && (f.Anonymous && name == "" || flags == "inline") {
		return "", true, false
	}
	if name == "" {
		name = strings.ToLower(f.Name)
	}
	return name, false, false
}

// opaque types are structs that are not decoded field by field.
func opaque(t reflect.Type) bool { return t == reflect.TypeFor[yaml.Node]() || t == policyType }

// defaults fills a struct that nobody has filled yet, and the empty structs in it.
func (d *decoder) defaults(v reflect.Value) {
	if v.Kind() != reflect.Struct || opaque(v.Type()) {
		return
	}
	info := d.info(v.Type())
	if !info.defaults {
		return
	}
	if v.IsZero() {
		if s, ok := v.Addr().Interface().(defaulter); ok {
			s.SetDefaults()
		}
	}
	for _, i := range info.nested {
		d.defaults(v.Field(i))
	}
}

// structure decodes a mapping, or the short form, into a struct.
func (d *decoder) structure(n *yaml.Node, v reflect.Value) bool {
	info := d.info(v.Type())
	if n.Kind == yaml.ScalarNode && info.scalar && !isEmpty(n) {
		return d.fromScalar(n, v, info)
	}
	if n.Kind != yaml.MappingNode && !isEmpty(n) {
		short := ""
		if info.scalar {
			short = " or its short form"
		}
		d.problem(n, "wrong_type", "expected a mapping with the keys %s%s, found %s", allowed(info), short, d.describeFor(n, v.Type()))
		return false
	}
	entries, good := d.entries(n)
	given := make(map[string]bool, len(entries))
	for _, e := range entries {
		f := info.find(e.key.Value)
		if f == nil {
			d.unknownKey(e.key, info)
			good = false
			continue
		}
		if isNull(e.value) {
			continue
		}
		given[f.name] = true
		d.push(f.name)
		ok := d.value(e.value, v.FieldByIndex(f.index), f.tag)
		if ok && f.tag.Get("required") == "true" && hollow(v.FieldByIndex(f.index)) {
			d.problem(e.value, "missing_key", "%s must not be empty", f.name)
			ok = false
		}
		d.pop()
		good = good && ok
	}
	for _, f := range info.fields {
		if f.tag.Get("required") == "true" && !given[f.name] {
			d.problemAt(n, f.name, "missing_key", "%s is missing%s", f.name, purpose(f.tag))
			good = false
		}
	}
	return good
}

// fromScalar decodes the short form and checks what came of it as if it had been written in full.
func (d *decoder) fromScalar(n *yaml.Node, v reflect.Value, info *structInfo) bool {
	t, ok := d.text(n)
	if !ok {
		return false
	}
	if err := v.Addr().Interface().(scalarer).FromScalar(t.value); err != nil {
		if t.secret || info.secret {
			d.problem(n, "invalid_value", "%s is not what belongs here", masked)
			return false
		}
		d.problem(n, "invalid_value", "%s", err)
		return false
	}
	good := true
	for _, f := range info.fields {
		fv := v.FieldByIndex(f.index)
		switch {
		case f.tag.Get("required") == "true" && hollow(fv):
			d.problemAt(n, f.name, "missing_key", "%s is missing%s", f.name, purpose(f.tag))
			good = false
		case !fv.IsZero():
			good = d.constrain(n, fv, f.tag) && good
		}
	}
	return good
}

func (d *decoder) unknownKey(key *yaml.Node, info *structInfo) {
	if len(d.problems) > maxProblems {
		return // looking for what was meant is the expensive part
	}
	hint := text.DidYouMean(key.Value, names(info.fields))
	if hint == "" {
		hint = "; allowed: " + allowed(info)
	}
	d.problemAt(key, key.Value, "unknown_key", "unknown key %s%s", quote(key.Value), hint)
}

func allowed(info *structInfo) string {
	if len(info.fields) == 0 {
		return "none"
	}
	return strings.Join(names(info.fields), ", ")
}

// hollow reports whether a required value was written but holds nothing.
func hollow(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String, reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Pointer, reflect.Interface:
		return v.IsNil()
	}
	return false
}

// purpose returns the field's documentation as an explanation of what is missing.
func purpose(tag reflect.StructTag) string {
	doc := strings.TrimSuffix(tag.Get("doc"), ".")
	if doc == "" {
		return ""
	}
	return ": " + doc
}
