package decode

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

const (
	// maxProblems stops a document in which everything is wrong from filling memory and the reader's patience.
	maxProblems = 1000
	// maxDepth stops documents nested so deeply (or aliases that contain themselves) that following them exhausts the stack.
	maxDepth = 100
	// maxAliased stops alias bombs: it is how many values may stand in a document by alias instead of being written.
	maxAliased = 500_000
)

// Value decodes node strictly into what into points to and returns everything wrong with it, at its line, column and
// path below node. A nil node stands for an empty mapping: the defaults hold, and required keys are missing.
//
// Types: string (the text as written: no, 0123 and 1.10 stay what they are), bool, integers, floats, time.Duration,
// size.Bytes, secret.String, whatever has UnmarshalText, pointers, slices, maps with string keys, structs (embedded ones
// are part of the outer), any, and yaml.Node or *yaml.Node, which keep the YAML for later.
//
// Tags: yaml (the name), required, min and max (of numbers, durations and sizes; the length of strings, lists and maps),
// oneof and pattern (of scalars and of each element of a list), and literal (of secrets, and of each in a list or map): the
// prefixes with which a secret may stand there as text, or never; with any other it must come from a reference.
//
// A struct whose pointer has SetDefaults() is given its defaults before it is decoded, unless whoever holds it has
// already filled it. A struct whose pointer has FromScalar(string) error may be written as a scalar.
//
// A key written with an explicit null counts as not written. Aliases and merge keys (<<) are followed. ${env:NAME} and
// ${file:PATH} in scalars are replaced; see Document.
func Value(node *yaml.Node, into any) Problems {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return Problems{{Code: "unsupported_type", Message: fmt.Sprintf("cannot decode into %T; hand in a pointer", into)}}
	}
	d := newDecoder(newReferences(""))
	d.defaults(target.Elem())
	if node == nil {
		node = &yaml.Node{Kind: yaml.MappingNode}
	}
	d.value(node, target.Elem(), "")
	return d.problems.Sort()
}

// decoder carries one decoding: the problems so far, where it stands, and what it has learned about types.
type decoder struct {
	problems Problems
	file     string
	path     []string
	structs  map[reflect.Type]*structInfo
	patterns map[string]*regexp.Regexp
	refs     *references
	depth    int
	aliases  int // how many aliases it is inside of
	aliased  int // values reached through an alias, see maxAliased
}

func newDecoder(refs *references) *decoder {
	return &decoder{structs: map[reflect.Type]*structInfo{}, refs: refs}
}

// problem notes something wrong at a node; node may be nil.
func (d *decoder) problem(n *yaml.Node, code, format string, args ...any) {
	if len(d.problems) > maxProblems {
		return
	}
	if len(d.problems) == maxProblems {
		code, format, args = "too_many_problems", "more than %d problems; the rest is not listed", []any{maxProblems}
	}
	p := Problem{File: d.file, Path: FormatPath(d.path), Code: code, Message: fmt.Sprintf(format, args...)}
	if n != nil {
		p.Line, p.Col = n.Line, n.Column
	}
	d.problems = append(d.problems, p)
}

// problemAt is problem for a key below where the decoder stands.
func (d *decoder) problemAt(n *yaml.Node, key, code, format string, args ...any) {
	d.push(key)
	d.problem(n, code, format, args...)
	d.pop()
}

func (d *decoder) push(key string) { d.path = append(d.path, key) }
func (d *decoder) pop()            { d.path = d.path[:len(d.path)-1] }

// enter follows n, which may be an alias or a whole document, to what it stands for. It returns nil, with a problem
// noted, where nothing more can be followed; leave must be called with the same node otherwise.
func (d *decoder) enter(n *yaml.Node) *yaml.Node {
	start := n
	for range maxDepth {
		switch {
		case n.Kind == yaml.AliasNode && n.Alias != nil:
			n = n.Alias
			continue
		case n.Kind == yaml.DocumentNode && len(n.Content) == 1:
			n = n.Content[0]
			continue
		}
		break
	}
	if d.depth++; d.depth > maxDepth {
		d.problem(start, "too_deep", "nested more than %d levels deep", maxDepth)
		d.depth--
		return nil
	}
	if start.Kind == yaml.AliasNode {
		d.aliases++
	}
	if d.aliases > 0 && !d.afford(start) {
		d.leave(start)
		return nil
	}
	return n
}

// afford counts a value that stands there by alias, and reports whether there may be more of them.
func (d *decoder) afford(n *yaml.Node) bool {
	if d.aliased++; d.aliased == maxAliased+1 {
		d.problem(n, "too_many_aliases", "aliases stand for more than %d values; write fewer, or split the document", maxAliased)
	}
	return d.aliased <= maxAliased
}

func (d *decoder) leave(start *yaml.Node) {
	d.depth--
	if start.Kind == yaml.AliasNode {
		d.aliases--
	}
}

// value decodes n into v and reports whether it is good enough to be checked further.
func (d *decoder) value(start *yaml.Node, v reflect.Value, tag reflect.StructTag) bool {
	if keepRaw(start, v) {
		return true
	}
	n := d.enter(start)
	if n == nil {
		return false
	}
	defer d.leave(start)
	if n.Kind != yaml.ScalarNode && n.Tag != "" && n.Tag != "!!map" && n.Tag != "!!seq" {
		d.problem(n, "unknown_tag", "the tag %s has no meaning here; remove it", n.Tag)
		return false
	}
	if v.Kind() == reflect.Pointer {
		return d.pointer(n, v, tag)
	}
	if p, ok := asPolicy(v); ok {
		return d.policy(n, p)
	}
	if isText(v) {
		return d.scalar(n, v, tag) && d.constrain(n, v, tag)
	}
	switch v.Kind() {
	case reflect.Struct:
		return d.structure(n, v)
	case reflect.Slice:
		return d.slice(n, v, tag)
	case reflect.Map:
		return d.mapping(n, v, tag)
	case reflect.Interface:
		return d.free(n, v)
	default:
		return d.scalar(n, v, tag) && d.constrain(n, v, tag)
	}
}

// keepRaw stores the node itself where the target asks for it.
func keepRaw(n *yaml.Node, v reflect.Value) bool {
	switch v.Type() {
	case reflect.TypeFor[*yaml.Node]():
		v.Set(reflect.ValueOf(n))
	case reflect.TypeFor[yaml.Node]():
		v.Set(reflect.ValueOf(*n))
	default:
		return false
	}
	return true
}

func (d *decoder) pointer(n *yaml.Node, v reflect.Value, tag reflect.StructTag) bool {
	if isNull(n) {
		return true
	}
	fresh := reflect.New(v.Type().Elem())
	if fresh.Elem().Kind() == reflect.Struct && isEmpty(n) && !isText(fresh.Elem()) {
		d.problem(n, "empty_value", "nothing is written here; write {} for the defaults, or remove the key")
		return false
	}
	d.defaults(fresh.Elem())
	ok := d.value(n, fresh.Elem(), tag)
	v.Set(fresh)
	return ok
}

func (d *decoder) slice(n *yaml.Node, v reflect.Value, tag reflect.StructTag) bool {
	if isNull(n) {
		return true
	}
	if n.Kind != yaml.SequenceNode && !isEmpty(n) {
		d.problem(n, "wrong_type", "expected a list, found %s; write %s", d.describeFor(n, v.Type()), d.listForm(n, v.Type()))
		return false
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	good := true
	for i, item := range n.Content {
		d.push(strconv.Itoa(i))
		good = d.element(item, list.Index(i), elementTag(tag, "oneof", "pattern", "literal")) && good
		d.pop()
	}
	v.Set(list)
	return d.constrain(n, v, tag) && good
}

// listForm shows how a value that stands where a list should stand is written.
func (d *decoder) listForm(n *yaml.Node, list reflect.Type) string {
	item := "..."
	if n.Kind == yaml.ScalarNode && !d.holdsSecret(list) {
		if t, ok := d.text(n); ok && !t.secret {
			item = t.show()
		}
	}
	if len(d.path) == 0 {
		return "[" + item + "]"
	}
	return d.path[len(d.path)-1] + ": [" + item + "]"
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, tag reflect.StructTag) bool {
	if isNull(n) {
		return true
	}
	if v.Type().Key().Kind() != reflect.String {
		d.problem(n, "unsupported_type", "cannot decode into a map with keys of type %s", v.Type().Key())
		return false
	}
	if n.Kind == yaml.ScalarNode && !isEmpty(n) {
		d.problem(n, "wrong_type", "expected a mapping, found %s", d.describeFor(n, v.Type()))
		return false
	}
	entries, good := d.entries(n)
	if !good && len(entries) == 0 {
		return false
	}
	m := reflect.MakeMapWithSize(v.Type(), len(entries))
	for _, e := range entries {
		d.push(e.key.Value)
		item := reflect.New(v.Type().Elem()).Elem()
		good = d.element(e.value, item, elementTag(tag, "literal")) && good
		m.SetMapIndex(reflect.ValueOf(e.key.Value).Convert(v.Type().Key()), item)
		d.pop()
	}
	v.Set(m)
	return d.constrain(n, v, tag) && good
}

// element decodes an element of a list or a map into a fresh value. A null is an element that was forgotten, except
// that a struct may be written as nothing where its defaults suffice.
func (d *decoder) element(n *yaml.Node, v reflect.Value, tag reflect.StructTag) bool {
	d.defaults(v)
	if !isNull(n) {
		return d.value(n, v, tag)
	}
	if _, policy := asPolicy(v); v.Kind() == reflect.Struct && !isText(v) && !policy {
		return d.value(&yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column}, v, tag)
	}
	if v.Kind() == reflect.Interface {
		return true
	}
	d.problem(n, "empty_value", "nothing is written here; give a value or remove the entry")
	return false
}

// isNull reports whether n is an explicit null, which counts as not written.
func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value != ""
}

// isEmpty reports whether nothing is written, as after "key:".
func isEmpty(n *yaml.Node) bool {
	return n.Kind == 0 || n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == "" || n.Kind == yaml.DocumentNode && len(n.Content) == 0
}

func names(fields []field) []string {
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = f.name
	}
	return slices.Clip(list)
}
