package decode

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"

	"headgate/config/model"
	"headgate/internal/text"
)

var policyType = reflect.TypeFor[model.Policy]()

func asPolicy(v reflect.Value) (*model.Policy, bool) {
	if v.Type() != policyType || !v.CanAddr() {
		return nil, false
	}
	return v.Addr().Interface().(*model.Policy), true
}

// policy decodes one entry of a list of policies: a kind alone, or a kind with options beside the envelope.
func (d *decoder) policy(n *yaml.Node, p *model.Policy) bool {
	if n.Kind == yaml.ScalarNode && !isEmpty(n) {
		t, ok := d.text(n)
		if ok && model.GroupKind(t.value) {
			d.problem(n, "wrong_type", "%s is a group of policies; write %s: [api-key, jwt]", t.value, t.value)
			return false
		}
		p.Kind = t.value
		return ok
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, "wrong_type", "expected a policy, such as api-key or rate-limit: {limit: 100}, found %s", d.describe(n))
		return false
	}
	entries, good := d.entries(n)
	var kinds []entry
	envelope := d.info(reflect.TypeFor[model.Envelope]())
	target := reflect.ValueOf(&p.Envelope).Elem()
	for _, e := range entries {
		f := envelope.find(e.key.Value)
		if f == nil {
			kinds = append(kinds, e)
			continue
		}
		if !isNull(e.value) {
			d.push(f.name)
			good = d.value(e.value, target.FieldByIndex(f.index), f.tag) && good
			d.pop()
		}
	}
	kind, ok := d.oneKind(n, kinds, names(envelope.fields))
	if !ok {
		return false
	}
	p.Kind = kind.key.Value
	if model.GroupKind(p.Kind) {
		return d.group(kind, p) && good
	}
	if !isNull(kind.value) && !isEmpty(kind.value) {
		p.Options = kind.value
	}
	return good
}

// oneKind picks the kind among the keys that are not of the envelope, and explains whatever else stands there.
func (d *decoder) oneKind(n *yaml.Node, keys []entry, envelope []string) (entry, bool) {
	if len(keys) == 1 {
		return keys[0], true
	}
	if len(keys) == 0 {
		d.problem(n, "missing_key", "the entry names no policy; write its kind as a key, such as api-key: {}")
		return entry{}, false
	}
	first := 0
	for first < len(keys)-1 {
		if _, slip := text.Nearest(keys[first].key.Value, envelope); !slip {
			break
		}
		first++
	}
	kind := keys[first]
	for i, e := range keys {
		if i == first {
			continue
		}
		key := e.key.Value
		switch hint := text.DidYouMean(key, envelope); {
		case hint != "":
			d.problemAt(e.key, key, "unknown_key", "unknown key %s beside %s%s", quote(key), kind.key.Value, hint)
		case isEmpty(kind.value):
			d.problemAt(e.key, key, "unknown_key", "%s stands beside %s; indent it further to make it one of its options",
				quote(key), kind.key.Value)
		default:
			d.problemAt(e.key, key, "unknown_key", "%s and %s stand in one entry; "+
				"begin each policy with its own \"- \" (beside a policy only %s are allowed)",
				kind.key.Value, quote(key), strings.Join(envelope, ", "))
		}
	}
	return entry{}, false
}

func (d *decoder) group(kind entry, p *model.Policy) bool {
	d.push(p.Kind)
	defer d.pop()
	if !d.value(kind.value, reflect.ValueOf(&p.Group).Elem(), "") {
		return false
	}
	if len(p.Group) == 0 {
		d.problem(kind.value, "missing_key", "%s needs at least one policy; write %s: [api-key, jwt]", p.Kind, p.Kind)
		return false
	}
	return true
}
