package decode

import (
	"errors"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// FormatPath writes keys and indexes as one path: apis.shop.routes["list orders"].policies[0].
func FormatPath(path []string) string {
	var b strings.Builder
	for _, key := range path {
		switch {
		case isIndex(key):
			b.WriteString("[" + key + "]")
		case !plainKey(key):
			b.WriteString("[" + quote(key) + "]")
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(key)
		}
	}
	return b.String()
}

func isIndex(key string) bool {
	for i := range len(key) {
		if key[i] < '0' || key[i] > '9' {
			return false
		}
	}
	return len(key) > 0 && len(key) < 10
}

func plainKey(key string) bool {
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return key != ""
}

// In returns the problems as they stand in a file, below a path: what Value and Locate found in a part of a document.
func (ps Problems) In(file string, path ...string) Problems {
	prefix := FormatPath(path)
	list := make(Problems, len(ps))
	for i, p := range ps {
		p.File = file
		switch {
		case p.Path == "":
			p.Path = prefix
		case prefix != "" && p.Path[0] != '[':
			p.Path = prefix + "." + p.Path
		default:
			p.Path = prefix + p.Path
		}
		list[i] = p
	}
	return list
}

// Locate turns an error about the value that node holds into problems at their places. The error may be several joined
// ones, and each may point below node (see At). What is not written in the YAML is reported at the nearest thing that
// is. A value is reported where it stands; a block of several lines at its key. Values that came from references are
// masked in the messages.
func Locate(node *yaml.Node, err error) Problems {
	var ps Problems
	secrets := collectSecrets{refs: newReferences("")}
	if node != nil && err != nil {
		secrets.walk(node, 0)
	}
	for _, e := range Flatten(err) {
		p := Problem{Code: "invalid_value", Message: mask(e.Error(), secrets.found)}
		var at *PathError
		if errors.As(e, &at) {
			p.Path = FormatPath(at.Path)
		}
		if node != nil {
			place := node
			if at != nil {
				place, _ = find(node, at.Path)
			}
			p.Line, p.Col = place.Line, place.Column
		}
		ps = append(ps, p)
	}
	return ps.Sort()
}

// find follows path below n as far as it goes. It returns the node to point at, and how many steps were found.
func find(n *yaml.Node, path []string) (place *yaml.Node, steps int) {
	n = behind(n)
	place = n
	for _, key := range path {
		here, next := child(n, key)
		if next == nil {
			break
		}
		n = behind(next)
		place = here
		steps++
	}
	return place, steps
}

// behind follows aliases and documents to what they stand for.
func behind(n *yaml.Node) *yaml.Node {
	for range maxDepth {
		switch {
		case n.Kind == yaml.AliasNode && n.Alias != nil:
			n = n.Alias
		case n.Kind == yaml.DocumentNode && len(n.Content) == 1:
			n = n.Content[0]
		default:
			return n
		}
	}
	return n
}

// child returns the value of a key or an index, and the node to point at for it.
func child(n *yaml.Node, key string) (place, value *yaml.Node) {
	switch n.Kind {
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i]
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if k, v := n.Content[i], n.Content[i+1]; k.Value == key && k.Tag != "!!merge" {
				return pointAt(k, v), v
			}
		}
		return mergedChild(n, key)
	}
	return nil, nil
}

func mergedChild(n *yaml.Node, key string) (place, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		from := behind(n.Content[i+1])
		sources := []*yaml.Node{from}
		if from.Kind == yaml.SequenceNode {
			sources = from.Content
		}
		for _, s := range sources {
			if s = behind(s); s.Kind != yaml.MappingNode {
				continue
			}
			for j := 0; j+1 < len(s.Content); j += 2 {
				if k, v := s.Content[j], s.Content[j+1]; k.Value == key {
					return pointAt(k, v), v
				}
			}
		}
	}
	return nil, nil
}

// pointAt chooses between a key and its value: a block is reported at its key, everything else where it stands.
func pointAt(key, value *yaml.Node) *yaml.Node {
	block := value.Kind == yaml.MappingNode || value.Kind == yaml.SequenceNode
	if block && value.Style&yaml.FlowStyle == 0 || isEmpty(value) {
		return key
	}
	return value
}

// collectSecrets gathers the values below a node that came from references. It follows aliases, within their limit.
type collectSecrets struct {
	found   []string
	refs    *references
	visited int
}

func (c *collectSecrets) walk(n *yaml.Node, depth int) {
	if c.visited++; depth > maxDepth || c.visited > maxAliased {
		return
	}
	n = behind(n)
	if n.Kind == yaml.ScalarNode {
		value, secret := n.Value, n.Tag == referenceTag
		if !secret && n.Tag != literalTag && n.Tag != brokenTag && strings.Contains(value, "${") {
			value, secret, _ = c.refs.expand(value)
		}
		if secret {
			c.found = append(c.found, value)
			c.found = append(c.found, strings.Fields(value)...) // of "Bearer ${env:TOKEN}", the token alone
		}
		return
	}
	for _, item := range n.Content {
		c.walk(item, depth+1)
	}
}

// mask hides secrets in a message, also where they were quoted.
func mask(message string, secrets []string) string {
	for _, s := range secrets {
		if s == "" {
			continue
		}
		message = strings.ReplaceAll(message, strconv.Quote(s), masked)
		message = strings.ReplaceAll(message, s, masked)
	}
	return message
}
