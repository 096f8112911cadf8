package decode

import "go.yaml.in/yaml/v4"

// entry is one key of a mapping and its value.
type entry struct{ key, value *yaml.Node }

// entries returns the entries of a mapping in the order they are written, those merged in by << after them. Something
// written as nothing has none.
func (d *decoder) entries(n *yaml.Node) ([]entry, bool) {
	if isEmpty(n) {
		return nil, true
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, "wrong_type", "expected a mapping, found %s", d.describe(n))
		return nil, false
	}
	good := true
	list := make([]entry, 0, len(n.Content)/2)
	seen := newKeySet(len(n.Content) / 2)
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if key.Kind == yaml.AliasNode && key.Alias != nil {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			d.problem(key, "wrong_type", "a key must be text, found %s", d.describe(key))
			good = false
			continue
		}
		if first := seen.add(key); first != nil {
			d.problemAt(key, key.Value, "duplicate_key", "%q is already written at line %d", key.Value, first.Line)
			good = false
			continue
		}
		list = append(list, entry{key, value})
	}
	for _, m := range merges {
		more, ok := d.merged(m, seen)
		list, good = append(list, more...), good && ok
	}
	return list, good
}

// merged returns what a merge key brings: the entries of a mapping, or of a list of mappings, whose keys are not there yet.
func (d *decoder) merged(start *yaml.Node, seen *keySet) (list []entry, good bool) {
	n := d.enter(start)
	if n == nil {
		return nil, false
	}
	defer d.leave(start)
	if n.Kind == yaml.SequenceNode {
		good = true
		for _, item := range n.Content {
			more, ok := d.merged(item, seen)
			list, good = append(list, more...), good && ok
		}
		return list, good
	}
	if n.Kind != yaml.MappingNode {
		d.problem(start, "wrong_type", "<< merges a mapping or a list of mappings, found %s", d.describe(n))
		return nil, false
	}
	entries, good := d.entries(n)
	for _, e := range entries {
		if !d.afford(start) {
			return list, false
		}
		if seen.add(e.key) == nil {
			list = append(list, e)
		}
	}
	return list, good
}

// keySet remembers the keys of one mapping; small ones without a map.
type keySet struct {
	few  []*yaml.Node
	many map[string]*yaml.Node
}

// fewKeys is how many keys are compared one by one; beyond it a map keeps hostile mappings from costing the square.
const fewKeys = 12

func newKeySet(n int) *keySet {
	if n <= fewKeys {
		return &keySet{few: make([]*yaml.Node, 0, n)}
	}
	return &keySet{many: make(map[string]*yaml.Node, n)}
}

// add returns the earlier node of the same key, or nil and remembers it.
func (s *keySet) add(key *yaml.Node) *yaml.Node {
	if s.many == nil {
		for _, k := range s.few {
			if k.Value == key.Value {
				return k
			}
		}
		if s.few = append(s.few, key); len(s.few) > fewKeys {
			s.many = make(map[string]*yaml.Node, 2*len(s.few))
			for _, k := range s.few {
				s.many[k.Value] = k
			}
		}
		return nil
	}
	if first := s.many[key.Value]; first != nil {
		return first
	}
	s.many[key.Value] = key
	return nil
}
